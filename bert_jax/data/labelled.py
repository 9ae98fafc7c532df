"""Labelled text: what a file, a TFDS data set or the demo holds, split into train, dev and test."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from bert_jax.config import LabelledConfig
from bert_jax.data.tables import Row, Table, read_rows
from bert_jax.errors import InputError


class Parsed(NamedTuple):
    """What a table says of n examples, a value each."""

    source: str
    values: list[Any]
    lines: list[int]


class LabelReader(Protocol):
    """Reads what a task learns, its targets, out of the columns of tables."""

    def columns(self) -> Mapping[str, str]:
        """The names of these columns, by the configuration values that hold them."""

    def parse(self, values: Sequence[str], where: str) -> Any:
        """What the columns of a row say; `where` is the row, for messages.

        Raises:
            InputError: it makes no sense.
        """

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Of `train` and perhaps `dev` and `test` the targets [n, ...], and the names of the labels where they have names.

        Raises:
            InputError: the tables do not fit each other, or there is nothing to learn.
        """

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A draw of examples and the others, int64 indices, with examples exchanged where the draw would lack something."""


@dataclass(frozen=True)
class LabelledExamples:
    """n texts, or pairs of texts, with their targets."""

    texts: list[str]
    pairs: list[str] | None
    """The second texts; None where examples are single texts."""
    targets: np.ndarray
    """[n, ...]: what is to be predicted, such as int32 [n], the index of each example's class."""
    lines: np.ndarray
    """int64 [n]: the line of the file, or the number of the example in its data set."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: np.ndarray) -> "LabelledExamples":
        """Those examples, in that order."""
        chosen = indices.tolist()
        pairs = None if self.pairs is None else [self.pairs[i] for i in chosen]
        return LabelledExamples([self.texts[i] for i in chosen], pairs, self.targets[indices], self.lines[indices])

    def keys(self) -> list[str]:
        """What makes two examples the same text: their characters, white space aside."""
        pairs = self.pairs or [""] * len(self.texts)
        return ["".join(text.split()) + "\0" + "".join(pair.split()) for text, pair in zip(self.texts, pairs, strict=True)]


@dataclass(frozen=True)
class Labelled:
    """The labelled text of a fine-tuning run; `test` is `dev` where none was named."""

    train: LabelledExamples
    dev: LabelledExamples
    test: LabelledExamples
    label_names: tuple[str, ...]
    """Empty where labels have no names."""
    duplicates: int
    """Training examples left out before dev was held out of them: repeated texts, and texts with more than one label."""
    overlaps: dict[str, int]
    """For `dev` and `test`: how many of their examples stand in the training examples too, and so measure memory."""

    @property
    def fingerprint(self) -> str:
        """A name for these texts and targets, in this order."""
        content = [self.label_names, *([part.texts, part.pairs, part.targets.tolist()] for part in (self.train, self.dev, self.test))]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def load_labelled(
    config: LabelledConfig, labels: LabelReader, seed: int, tables: Mapping[str, Table] = MappingProxyType({})
) -> Labelled:
    """Reads the labelled text of a configuration.

    Where no dev set is named, one is held out of the training examples, the same for every seed, after repeated texts
    were left out of them. Sets that are named are taken as they are. Neither that nor `max_train_examples` takes from the training
    examples what the labels must keep there, such as the last example of a class, where that can be helped.

    Args:
        config: where the text is.
        labels: reads the targets.
        seed: draws `max_train_examples`.
        tables: tables that have names instead of files; one that is named for training has the splits for dev and test too.

    Raises:
        InputError: a fault in a file, named with its line: a missing column, an empty text, bytes that are not UTF-8, no examples at
            all, or what `labels` refuses; or a leak that the configuration refuses.
    """
    others = config.train if config.train in tables else ""
    sources = {"train": config.train, "dev": config.dev or others, "test": config.test or others}
    raw = {role: _read(source, role, config, labels, tables) for role, source in sources.items() if source}
    targets, names = labels.targets({role: Parsed(sources[role], part.values, part.lines) for role, part in raw.items()})
    parts = {
        role: LabelledExamples(part.texts, part.pairs, targets[role], np.array(part.lines, np.int64)) for role, part in raw.items()
    }
    train, duplicates = parts["train"], 0
    if "dev" not in parts:
        kept = _distinct(train)
        duplicates = len(train) - len(kept)
        train, parts["dev"] = _hold_out(train.select(kept), labels, config)
    parts.setdefault("test", parts["dev"])
    if config.leaks == "leave_out":
        train = _without(train, {*parts["dev"].keys(), *parts["test"].keys()}, config)
    if config.max_train_examples:
        order, count = np.random.default_rng(seed).permutation(len(train)), config.max_train_examples
        train = train.select(labels.keep(order[:count], order[count:], train.targets)[0])
    return Labelled(train, parts["dev"], parts["test"], names, duplicates, _overlaps(train, parts, sources, config))


def _overlaps(
    train: LabelledExamples, parts: Mapping[str, LabelledExamples], sources: Mapping[str, str], config: LabelledConfig
) -> dict[str, int]:
    seen = set(train.keys())
    overlaps = {role: sum(key in seen for key in parts[role].keys()) for role in ("dev", "test")}  # noqa: SIM118  # not a dict
    for role, count in overlaps.items():
        if count and config.leaks == "refuse":
            line = next(line for key, line in zip(parts[role].keys(), parts[role].lines.tolist(), strict=True) if key in seen)
            raise InputError(
                f"{count:,} of the {len(parts[role]):,} {role} examples of {sources[role]} (the first in line {line}) stand "
                f"in {config.train} too, and finetune.data.leaks=refuse: clean the files, or set it to leave_out to train without them."
            )
    return overlaps


@dataclass(frozen=True)
class _Raw:
    texts: list[str]
    pairs: list[str] | None
    values: list[Any]
    lines: list[int]


def _read(source: str, role: str, config: LabelledConfig, labels: LabelReader, tables: Mapping[str, Table]) -> _Raw:
    texts = {"finetune.data.text": config.text} | ({"finetune.data.text_pair": config.text_pair} if config.text_pair else {})
    raw = _Raw([], [] if config.text_pair else None, [], [])
    for line, values in _rows(source, texts | dict(labels.columns()), role, tables):
        for column, value in zip(texts.values(), values, strict=False):
            if not value.strip():
                raise InputError(f"{source} line {line} has an empty text in the column {column!r}: fill it in or remove the line.")
        raw.values.append(labels.parse(values[len(texts) :], f"{source} line {line}"))
        raw.texts.append(values[0])
        raw.lines.append(line)
        if raw.pairs is not None:
            raw.pairs.append(values[1])
    return raw


def _rows(source: str, columns: Mapping[str, str], role: str, tables: Mapping[str, Table]) -> Iterator[Row]:
    return tables[source](columns, role) if source in tables else read_rows(source, columns, split={"dev": "validation"}.get(role, role))


def _distinct(examples: LabelledExamples) -> np.ndarray:
    """Indices of the first example of each text that has one label only."""
    labels: dict[str, set[str]] = {}
    first: dict[str, int] = {}
    for i, (key, target) in enumerate(zip(examples.keys(), examples.targets.tolist(), strict=True)):
        labels.setdefault(key, set()).add(repr(target))
        first.setdefault(key, i)
    return np.array([i for key, i in first.items() if len(labels[key]) == 1], np.int64)


def _without(examples: LabelledExamples, keys: set[str], config: LabelledConfig) -> LabelledExamples:
    kept = np.array([i for i, key in enumerate(examples.keys()) if key not in keys], np.int64)
    if not len(kept):
        raise InputError(f"All of {config.train} is in dev or test too: finetune.data.leaks=leave_out leaves no example: name another.")
    return examples.select(kept)


def _hold_out(
    examples: LabelledExamples, labels: LabelReader, config: LabelledConfig
) -> tuple[LabelledExamples, LabelledExamples]:
    count = max(1, round(config.dev_fraction * len(examples)))
    if count >= len(examples):
        raise InputError(
            f"{config.train} has {len(examples)} distinct examples, too few to hold out a dev set: add some, or set finetune.data.dev."
        )
    # Not of the run's seed: runs with different seeds are compared on the same dev set.
    order = np.random.default_rng(0).permutation(len(examples))
    train, dev = labels.keep(order[count:], order[:count], examples.targets)
    return examples.select(np.sort(train)), examples.select(np.sort(dev))
