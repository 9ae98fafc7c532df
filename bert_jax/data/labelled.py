"""Labelled text from a file, a data set or the demo, split into train, dev and test."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from bert_jax.config import LabelledConfig
from bert_jax.data.tables import Row, Table, read_rows
from bert_jax.errors import InputError

ReadRows: TypeAlias = Callable[[str, Mapping[str, str], str], Iterator[Row]]
"""Reads the rows of a source: takes its name, columns keyed by the configuration fields that set them, and a split."""


class Parsed(NamedTuple):
    """The values that a `LabelReader` parsed from a table of n examples, one value per example."""

    source: str
    values: list[Any]
    lines: list[int]


class LabelReader(Protocol):
    """Reads the targets of a task from the columns of tables."""

    def columns(self) -> Mapping[str, str]:
        """Return the names of the target columns, keyed by the configuration fields that set them."""

    def parse(self, values: Sequence[str], where: str) -> Any:
        """Parse the target columns of one row; `where` identifies the row in error messages.

        Raises:
            InputError: a value cannot be parsed.
        """

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the targets [n, ...] of each split, and the label names if the labels have any.

        `parsed` always contains `train`; `dev` and `test` are optional.

        Raises:
            InputError: the splits are inconsistent with each other, or there is nothing to learn.
        """

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adjust a random split of the examples so that `kept` contains everything the task needs.

        Both arguments and both results are int64 indices; examples are swapped between the two parts as needed.
        """


@runtime_checkable
class Noting(Protocol):
    """A `LabelReader` that repairs labels or leaves rows out where it is configured to."""

    def notes(self) -> tuple[str, ...]:
        """Return sentences about what was repaired or left out; called after `LabelReader.targets`."""


@runtime_checkable
class Selecting(Protocol):
    """A `LabelReader` with targets that are scored although nothing can be learned from them."""

    def learnable(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples with the targets [n, ...] to train on, bool [n]."""


@runtime_checkable
class RowReader(LabelReader, Protocol):
    """A label reader that looks at the texts of each row too."""

    @property
    def several_targets(self) -> bool:
        """Whether examples with equal texts and different targets are all right, instead of in conflict."""

    def accepts(self, texts: Sequence[str], value: Any, where: str) -> bool:
        """Return whether to use a row with these texts (or identities of inputs) and this parsed value.

        Raises:
            InputError: the row has a fault.
        """


@dataclass(frozen=True)
class LabelledExamples:
    """n texts or text pairs with their targets.

    In place of a text there may be an input of another modality, with an attribute `identity`: a hash of its content.
    """

    texts: list[Any]
    pairs: list[Any] | None
    """The second text of each pair; None for single texts."""
    targets: np.ndarray
    """[n, ...]: the values to predict, for example the class index of each example, int32 [n]."""
    lines: np.ndarray
    """int64 [n]: the line number in the file, or the index of the example in its data set."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: np.ndarray) -> "LabelledExamples":
        """Return the examples at `indices`, in that order."""
        chosen = indices.tolist()
        pairs = None if self.pairs is None else [self.pairs[i] for i in chosen]
        return LabelledExamples([self.texts[i] for i in chosen], pairs, self.targets[indices], self.lines[indices])

    def keys(self) -> list[str]:
        """Return a key for each example that is equal for examples that differ only in whitespace."""
        pairs = self.pair_identities or [""] * len(self.texts)
        return ["".join(text.split()) + "\0" + "".join(pair.split()) for text, pair in zip(self.identities, pairs, strict=True)]

    @property
    def identities(self) -> list[str]:
        """The texts, or for inputs of other modalities their identities."""
        return [*map(_identity, self.texts)]

    @property
    def pair_identities(self) -> list[str] | None:
        """The same of the pairs, if there are any."""
        return None if self.pairs is None else [*map(_identity, self.pairs)]


@dataclass(frozen=True)
class Labelled:
    """The labelled text of a fine-tuning run; `test` is `dev` if no test set was given."""

    train: LabelledExamples
    dev: LabelledExamples
    test: LabelledExamples
    label_names: tuple[str, ...]
    """Empty if the labels have no names."""
    duplicates: int
    """Training examples dropped before dev was held out: repeated texts, and texts with conflicting labels."""
    overlaps: dict[str, int]
    """For `dev` and `test`, the number of examples that also appear in the training set and so measure memorization."""
    notes: tuple[str, ...] = ()
    """Sentences about what the reader of the labels repaired or left out."""

    @property
    def fingerprint(self) -> str:
        """A hash of the texts and targets, in order."""
        parts = (self.train, self.dev, self.test)
        content = [self.label_names, *([part.identities, part.pair_identities, part.targets.tolist()] for part in parts)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def load_labelled(
    config: LabelledConfig,
    labels: LabelReader,
    seed: int,
    tables: Mapping[str, Table] = MappingProxyType({}),
    others: ReadRows = read_rows,
) -> Labelled:
    """Read the labelled text that a configuration names.

    If no dev set is given, repeated texts are removed from the training examples and a dev set is held out of the rest; it is the
    same for every seed. Dev and test sets that are given are used unchanged. Where possible, neither the dev split nor
    `max_train_examples` removes training examples that the labels require, such as the last example of a class.

    Args:
        config: where the text is.
        labels: reads the targets.
        seed: seed for sampling `max_train_examples`.
        tables: built-in tables by name; one that is used for training also supplies the dev and test splits.
        others: reads all other sources.

    Raises:
        InputError: a file has an error, reported with its line: a missing column, an empty text, bytes that are not UTF-8, no
            examples, or a target that `labels` rejects; or training data leak into dev or test and `config.leaks` is `refuse`.
    """
    default = config.train if config.train in tables else ""
    sources = {"train": config.train, "dev": config.dev or default, "test": config.test or default}
    parts, names = read_examples(sources, config, labels, tables, others)
    return divide(parts, names, sources, config, labels, seed)


def read_examples(
    sources: Mapping[str, str], config: LabelledConfig, labels: LabelReader, tables: Mapping[str, Table], others: ReadRows
) -> tuple[dict[str, LabelledExamples], tuple[str, ...]]:
    """Read every source that is named, and return its examples by the split that it is for, and the label names.

    Raises:
        InputError: as `load_labelled`.
    """
    read = {role: tables.get(source) or _table(source, others) for role, source in sources.items() if source}
    raw = {role: _read(sources[role], role, config, labels, table) for role, table in read.items()}
    targets, names = labels.targets({role: Parsed(sources[role], part.values, part.lines) for role, part in raw.items()})
    parts = {
        role: LabelledExamples(part.texts, part.pairs, targets[role], np.array(part.lines, np.int64)) for role, part in raw.items()
    }
    return parts, names


def divide(
    given: Mapping[str, LabelledExamples], names: tuple[str, ...], sources: Mapping[str, str], config: LabelledConfig, labels: LabelReader,
    seed: int,
) -> Labelled:  # fmt: skip
    """Hold out dev from the training examples if it is not given, and apply `leaks` and `max_train_examples`.

    Raises:
        InputError: as `load_labelled`.
    """
    parts = dict(given)
    train, duplicates = parts["train"], 0
    if isinstance(labels, Selecting):
        train = train.select(np.flatnonzero(labels.learnable(train.targets)))
    if "dev" not in parts:
        kept = _distinct(train, isinstance(labels, RowReader) and labels.several_targets)
        duplicates = len(train) - len(kept)
        train, parts["dev"] = _hold_out(train.select(kept), labels, config)
    parts.setdefault("test", parts["dev"])
    if config.leaks == "leave_out":
        train = _without(train, {*parts["dev"].keys(), *parts["test"].keys()}, config)
    if config.max_train_examples:
        order, count = np.random.default_rng(seed).permutation(len(train)), config.max_train_examples
        train = train.select(labels.keep(order[:count], order[count:], train.targets)[0])
    notes = labels.notes() if isinstance(labels, Noting) else ()
    return Labelled(train, parts["dev"], parts["test"], names, duplicates, _overlaps(train, parts, sources, config), notes)


def _overlaps(
    train: LabelledExamples, parts: Mapping[str, LabelledExamples], sources: Mapping[str, str], config: LabelledConfig
) -> dict[str, int]:
    seen = set(train.keys())
    overlaps = {role: sum(key in seen for key in parts[role].keys()) for role in ("dev", "test")}  # noqa: SIM118  # not a dict
    for role, count in overlaps.items():
        if count and config.leaks == "refuse":
            line = next(line for key, line in zip(parts[role].keys(), parts[role].lines.tolist(), strict=True) if key in seen)
            raise InputError(
                f"{count:,} of the {len(parts[role]):,} {role} examples of {sources[role]} (the first in line {line}) also appear "
                f"in {config.train}, and finetune.data.leaks=refuse: clean the files, or set it to leave_out to train without them."
            )
    return overlaps


def _table(source: str, others: ReadRows) -> Table:
    return lambda columns, role: others(source, columns, {"dev": "validation"}.get(role, role))


def _identity(text: Any) -> str:
    return text if isinstance(text, str) else text.identity


@dataclass(frozen=True)
class _Raw:
    texts: list[Any]
    pairs: list[Any] | None
    values: list[Any]
    lines: list[int]


def _read(source: str, role: str, config: LabelledConfig, labels: LabelReader, table: Table) -> _Raw:
    texts = {"finetune.data.text": config.text} | ({"finetune.data.text_pair": config.text_pair} if config.text_pair else {})
    raw = _Raw([], [] if config.text_pair else None, [], [])
    rows = labels if isinstance(labels, RowReader) else None
    for line, values in table(texts | dict(labels.columns()), role):
        for column, value in zip(texts.values(), values, strict=False):
            if not _identity(value).strip():
                raise InputError(f"{source} line {line} has empty text in column {column!r}: fill it in or remove the line.")
        where = f"{source} line {line}"
        target = labels.parse(values[len(texts) :], where)
        if rows and not rows.accepts([*map(_identity, values[: len(texts)])], target, where):
            continue
        raw.values.append(target)
        raw.texts.append(values[0])
        raw.lines.append(line)
        if raw.pairs is not None:
            raw.pairs.append(values[1])
    if not raw.texts:
        raise InputError(f"No row of {source} can be used: all were left out. Correct them, or name another file in finetune.data.{role}.")
    return raw


def _distinct(examples: LabelledExamples, several_targets: bool = False) -> np.ndarray:
    """Return the index of the first example of each text, omitting texts with conflicting labels; or of each text and target."""
    labels: dict[str, set[str]] = {}
    first: dict[Any, int] = {}
    for i, (key, target) in enumerate(zip(examples.keys(), examples.targets.tolist(), strict=True)):
        labels.setdefault(key, set()).add(repr(target))
        first.setdefault((key, repr(target)) if several_targets else key, i)
    return np.array([i for key, i in first.items() if several_targets or len(labels[key]) == 1], np.int64)


def _without(examples: LabelledExamples, keys: set[str], config: LabelledConfig) -> LabelledExamples:
    kept = np.array([i for i, key in enumerate(examples.keys()) if key not in keys], np.int64)
    if not len(kept):
        raise InputError(
            f"Every example of {config.train} is also in dev or test, so finetune.data.leaks=leave_out leaves no training examples: "
            "use another training file."
        )
    return examples.select(kept)


def _hold_out(
    examples: LabelledExamples, labels: LabelReader, config: LabelledConfig
) -> tuple[LabelledExamples, LabelledExamples]:
    count = max(1, round(config.dev_fraction * len(examples)))
    if count >= len(examples):
        raise InputError(
            f"{config.train} has {len(examples)} distinct examples, too few to hold out a dev set: add examples, or set finetune.data.dev."
        )
    # Independent of the run's seed, so that runs with different seeds are compared on the same dev set.
    order = np.random.default_rng(0).permutation(len(examples))
    train, dev = (examples.select(np.sort(part)) for part in labels.keep(order[count:], order[:count], examples.targets))
    # Texts with several targets may have been divided.
    held_out = {*dev.keys()}
    kept = np.array([i for i, key in enumerate(train.keys()) if key not in held_out], np.int64)
    if not len(kept):
        raise InputError(
            f"The {len(examples):,} examples of {config.train} have too few different texts to hold out a dev set: add examples, or set "
            "finetune.data.dev."
        )
    return train.select(kept), dev
