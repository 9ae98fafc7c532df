"""Labelled text: what a file, a TFDS data set or the demo holds, split into train, dev and test, then as batches of rows."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import grain
import numpy as np

from bert_jax.config import LabelledConfig
from bert_jax.data.classes import absent, class_names, keep_every_class, listed, remarks
from bert_jax.data.packing import Batch, Placement, assemble, pack
from bert_jax.data.pairs import Examples
from bert_jax.data.pipeline import Batches, State, check_stream, fingerprint_stream, own_rows
from bert_jax.data.reader import SpecialTokens
from bert_jax.data.tables import Row, Table, read_rows
from bert_jax.errors import InputError

_TEXTS_AT_ONCE = 1024
_PREFETCHED_BATCHES = 8


@dataclass(frozen=True)
class LabelledExamples:
    """n texts, or pairs of texts, with their classes."""

    texts: list[str]
    pairs: list[str] | None
    """The second texts; None where examples are single texts."""
    labels: np.ndarray
    """int32 [n]: index into the label names."""
    lines: np.ndarray
    """int64 [n]: the line of the file, or the number of the example in its data set."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: np.ndarray) -> "LabelledExamples":
        """Those examples, in that order."""
        chosen = indices.tolist()
        pairs = None if self.pairs is None else [self.pairs[i] for i in chosen]
        return LabelledExamples([self.texts[i] for i in chosen], pairs, self.labels[indices], self.lines[indices])

    def counts(self, classes: int) -> np.ndarray:
        """int64 [classes]: the examples of each class."""
        return np.bincount(self.labels, minlength=classes)

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
    duplicates: int
    """Training examples left out before dev was held out of them: repeated texts, and texts with more than one label."""
    overlaps: dict[str, int]
    """For `dev` and `test`: how many of their examples stand in the training examples too, and so measure memory."""

    @property
    def untrained(self) -> list[str]:
        """The classes without a training example."""
        return absent(self.label_names, self.train.counts(len(self.label_names)))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know of the classes: labels that differ only in case, classes without training or test examples."""
        classes = len(self.label_names)
        return remarks(self.label_names, {"train": self.train.counts(classes), "test": self.test.counts(classes)})

    @property
    def fingerprint(self) -> str:
        """A name for these texts and labels, in this order."""
        content = [self.label_names, *([part.texts, part.pairs, part.labels.tolist()] for part in (self.train, self.dev, self.test))]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def load_labelled(config: LabelledConfig, seed: int, tables: Mapping[str, Table] = MappingProxyType({})) -> Labelled:
    """Reads the labelled text of a configuration.

    Where no dev set is named, one is held out of the training examples, the same for every seed, after repeated texts
    were left out of them. Sets that are named are taken as they are. Neither that nor `max_train_examples` takes the last
    training example of a class, as long as there are as many training examples as classes.

    Args:
        config: where the text is.
        seed: draws `max_train_examples`.
        tables: tables that have names instead of files; one that is named for training has the splits for dev and test too.

    Raises:
        InputError: a fault in a file, named with its line: a missing column, an unknown label, a label in two spellings, an empty
            text, bytes that are not UTF-8, no examples at all; or a leak that the configuration refuses.
    """
    others = config.train if config.train in tables else ""
    sources = {"train": config.train, "dev": config.dev or others, "test": config.test or others}
    raw = {role: _read(source, role, config, tables) for role, source in sources.items() if source}
    names = config.labels or class_names(raw["train"].labels, raw["train"].lines, config.train)
    if len(names) < 2:
        raise InputError(f"Every example of {config.train} has the label {names[0]!r}, so nothing to learn: check finetune.data.label.")
    parts = {role: _number(part, sources[role], names, config) for role, part in raw.items()}
    train, duplicates = parts["train"], 0
    if "dev" not in parts:
        kept = _distinct(train)
        duplicates = len(train) - len(kept)
        train, parts["dev"] = _hold_out(train.select(kept), config)
    parts.setdefault("test", parts["dev"])
    if config.leaks == "leave_out":
        train = _without(train, {*parts["dev"].keys(), *parts["test"].keys()}, config)
    if config.max_train_examples:
        order, count = np.random.default_rng(seed).permutation(len(train)), config.max_train_examples
        train = train.select(keep_every_class(order[:count], order[count:], train.labels)[0])
    seen = set(train.keys())
    overlaps = {role: sum(key in seen for key in parts[role].keys()) for role in ("dev", "test")}  # noqa: SIM118  # not a dict
    for role, count in overlaps.items():
        if count and config.leaks == "refuse":
            line = next(line for key, line in zip(parts[role].keys(), parts[role].lines.tolist(), strict=True) if key in seen)
            raise InputError(
                f"{count:,} of the {len(parts[role]):,} {role} examples of {sources[role]} (the first in line {line}) stand "
                f"in {config.train} too, and finetune.data.leaks=refuse: clean the files, or set it to leave_out to train without them."
            )
    return Labelled(train, parts["dev"], parts["test"], names, duplicates, overlaps)


@dataclass(frozen=True)
class _Raw:
    texts: list[str]
    pairs: list[str] | None
    labels: list[str]
    lines: list[int]


def _read(source: str, role: str, config: LabelledConfig, tables: Mapping[str, Table]) -> _Raw:
    columns = {"finetune.data.text": config.text, "finetune.data.label": config.label}
    columns |= {"finetune.data.text_pair": config.text_pair} if config.text_pair else {}
    raw = _Raw([], [] if config.text_pair else None, [], [])
    for line, (text, label, *pair) in _rows(source, columns, role, tables):
        for column, value in zip((config.text, config.text_pair), (text, *pair), strict=False):
            if not value.strip():
                raise InputError(f"{source} line {line} has an empty text in the column {column!r}: fill it in or remove the line.")
        if not label.strip():
            raise InputError(f"{source} line {line} has no label in the column {config.label!r}: fill it in or remove the line.")
        raw.texts.append(text)
        raw.labels.append(label.strip())
        raw.lines.append(line)
        if raw.pairs is not None:
            raw.pairs.extend(pair)
    return raw


def _rows(source: str, columns: Mapping[str, str], role: str, tables: Mapping[str, Table]) -> Iterator[Row]:
    return tables[source](columns, role) if source in tables else read_rows(source, columns, split={"dev": "validation"}.get(role, role))


def _number(raw: _Raw, source: str, names: Sequence[str], config: LabelledConfig) -> LabelledExamples:
    index = {name: i for i, name in enumerate(names)}
    for line, label in zip(raw.lines, raw.labels, strict=True):
        if label not in index:
            origin = "finetune.data.labels" if config.labels else f"the labels of {config.train}"
            raise InputError(
                f"{source} line {line} has the unknown label {label!r} in the column {config.label!r}; {origin} are "
                f"{listed(names)}. Correct the line, or name all labels in finetune.data.labels."
            )
    labels = np.array([index[label] for label in raw.labels], np.int32)
    return LabelledExamples(raw.texts, raw.pairs, labels, np.array(raw.lines, np.int64))


def _distinct(examples: LabelledExamples) -> np.ndarray:
    """Indices of the first example of each text that has one label only."""
    labels: dict[str, set[int]] = {}
    first: dict[str, int] = {}
    for i, (key, label) in enumerate(zip(examples.keys(), examples.labels.tolist(), strict=True)):
        labels.setdefault(key, set()).add(label)
        first.setdefault(key, i)
    return np.array([i for key, i in first.items() if len(labels[key]) == 1], np.int64)


def _without(examples: LabelledExamples, keys: set[str], config: LabelledConfig) -> LabelledExamples:
    kept = np.array([i for i, key in enumerate(examples.keys()) if key not in keys], np.int64)
    if not len(kept):
        raise InputError(f"All of {config.train} is in dev or test too: finetune.data.leaks=leave_out leaves no example: name another.")
    return examples.select(kept)


def _hold_out(examples: LabelledExamples, config: LabelledConfig) -> tuple[LabelledExamples, LabelledExamples]:
    count = max(1, round(config.dev_fraction * len(examples)))
    if count >= len(examples):
        raise InputError(
            f"{config.train} has {len(examples)} distinct examples, too few to hold out a dev set: add some, or set finetune.data.dev."
        )
    # Not of the run's seed: runs with different seeds are compared on the same dev set.
    order = np.random.default_rng(0).permutation(len(examples))
    train, dev = keep_every_class(order[count:], order[:count], examples.labels)
    return examples.select(np.sort(train)), examples.select(np.sort(dev))


class TextEncoding(Protocol):
    """The tokens of one text."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def word_starts(self) -> np.ndarray: ...


class Encoder(SpecialTokens, Protocol):
    """What is needed of a `bert_jax.modalities.text.tokenizer.Tokenizer`."""

    def encode_batch(self, texts: list[str]) -> Sequence[TextEncoding]: ...


@dataclass(frozen=True)
class EncodedExamples:
    """Labelled examples as ranges of tokens, each short enough for a row."""

    examples: Examples
    tokens: np.ndarray
    word_starts: np.ndarray
    truncated: int
    """Examples that were longer than a row and lost their end."""

    def rows(self, placement: Placement, own: range, special: SpecialTokens, length: int, per_row: int) -> tuple[Batch, np.ndarray]:
        """The batch of the rows `own`, empty beyond the last one, and the example in each slot, int64 [rows, per_row], -1 for none."""
        inside = np.flatnonzero((placement.rows >= own.start) & (placement.rows < own.stop))
        here = Placement(placement.rows[inside] - own.start, placement.slots[inside], placement.offsets[inside], len(own))
        batch = assemble(self.examples.select(inside), here, self.tokens, self.word_starts, special, length, per_row, "labels")
        indices = np.full((len(own), per_row), -1, np.int64)
        indices[here.rows, here.slots] = inside
        return batch, indices


def encode_examples(examples: LabelledExamples, tokenizer: Encoder, length: int) -> EncodedExamples:
    """Tokenises labelled examples and cuts them to rows of `length` tokens: of a pair the longer text first, from its end."""
    tokens: list[np.ndarray] = [np.zeros(0, np.int32)]
    word_starts: list[np.ndarray] = [np.zeros(0, np.bool_)]
    sizes: list[int] = []
    truncated = 0
    for start in range(0, len(examples), _TEXTS_AT_ONCE):
        stop = start + _TEXTS_AT_ONCE
        firsts = tokenizer.encode_batch(examples.texts[start:stop])
        seconds = [None] * len(firsts) if examples.pairs is None else tokenizer.encode_batch(examples.pairs[start:stop])
        for first, second in zip(firsts, seconds, strict=True):
            a, b = len(first.ids), 0 if second is None else len(second.ids)
            room = length - 2 - (b > 0)
            kept = min(a, max(room - b, room // 2))
            for text, size in ((first, kept), (second, min(b, room - kept))):
                sizes.append(size)
                if text is not None:
                    tokens.append(text.ids[:size])
                    word_starts.append(text.word_starts[:size])
            truncated += a + b > room
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    a_ranges, b_ranges = np.stack([edges[:-1], edges[1:]], 1).reshape(-1, 2, 2).transpose(1, 0, 2)
    ranges = Examples(a_ranges, b_ranges, examples.labels, np.ones(len(examples), np.float32))
    return EncodedExamples(ranges, np.concatenate(tokens), np.concatenate(word_starts), truncated)


class ClassificationBatches(Batches):
    """The training batches of one process, `epochs` times over the examples.

    Attributes:
        steps: batches in all.
        steps_per_epoch: batches in one epoch, the last filled up with empty rows.
        truncated: examples that were cut because they are longer than a row.
    """

    def __init__(self, iterator: "_Epochs", epochs: int):
        super().__init__(iterator, _PREFETCHED_BATCHES)
        self.steps_per_epoch = iterator.steps_per_epoch
        self.steps = epochs * iterator.steps_per_epoch
        self.truncated = iterator.encoded.truncated


class _Epochs(grain.DatasetIterator[Batch]):
    """In every epoch the examples are packed in another order and the rows are shuffled, by (seed, epoch)."""

    def __init__(
        self, encoded: EncodedExamples, special: SpecialTokens, length: int, per_row: int, packing: bool, batch_size: int,
        seed: int, epochs: int, own: slice,
    ):  # fmt: skip
        super().__init__()
        self.encoded, self._special, self._length, self._per_row = encoded, special, length, per_row
        self._most = per_row if packing else 1
        self._batch_size, self._seed, self._epochs, self._own = batch_size, seed, epochs, own
        # Best fit decreasing makes as many rows of the same lengths in any order.
        self.steps_per_epoch = -(-pack(encoded.examples.lengths, length, self._most).count // batch_size)
        self._fingerprint = fingerprint_stream(
            "classification", zlib.crc32(encoded.tokens.tobytes()), zlib.crc32(encoded.examples.labels.tobytes()),
            len(encoded.examples), length, per_row, packing, batch_size, seed,
        )  # fmt: skip
        self._epoch = self._batch = 0
        self._placed: tuple[int, Placement] | None = None

    def __next__(self) -> Batch:
        if self._epoch >= self._epochs:
            raise StopIteration
        if self._placed is None or self._placed[0] != self._epoch:
            self._placed = self._epoch, self._place(self._epoch)
        own = range(self._batch * self._batch_size, (self._batch + 1) * self._batch_size)[self._own]
        batch, _ = self.encoded.rows(self._placed[1], own, self._special, self._length, self._per_row)
        epochs, self._batch = divmod(self._batch + 1, self.steps_per_epoch)
        self._epoch += epochs
        return batch

    def _place(self, epoch: int) -> Placement:
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self.encoded.examples))
        packed = pack(self.encoded.examples.lengths[order], self._length, self._most)
        rows, slots, offsets = (np.empty_like(order) for _ in range(3))
        rows[order], slots[order], offsets[order] = rng.permutation(packed.count)[packed.rows], packed.slots, packed.offsets
        return Placement(rows, slots, offsets, packed.count)

    def get_state(self) -> State:
        return {"stream": self._fingerprint, "epoch": self._epoch, "batch": self._batch}

    def set_state(self, state: dict[str, Any]) -> None:
        check_stream(state, self._fingerprint)
        self._epoch, self._batch = state["epoch"], state["batch"]


def classification_batches(
    examples: LabelledExamples,
    tokenizer: Encoder,
    length: int,
    examples_per_row: int,
    packing: bool,
    batch_size: int,
    seed: int,
    epochs: int,
    process_index: int = 0,
    process_count: int = 1,
) -> ClassificationBatches:
    """The training batches of one process: every example once an epoch, in packed rows, with `labels` int32 [B, E].

    Args:
        examples: the training examples.
        tokenizer: encodes their texts, once.
        length: tokens of a row; longer texts are cut and counted.
        examples_per_row: E, the slots of a row; without `packing` only the first is used.
        packing: whether a row holds several examples.
        batch_size: rows of the global batch; this process gets `batch_size / process_count` of them.
        seed: decides the order.
        epochs: how often every example is seen.
        process_index: which process this is, of `process_count`.

    Raises:
        InputError: the processes do not divide the batch.
    """
    own = own_rows(batch_size, process_index, process_count)
    encoded = encode_examples(examples, tokenizer, length)
    return ClassificationBatches(_Epochs(encoded, tokenizer, length, examples_per_row, packing, batch_size, seed, epochs, own), epochs)


def classification_evaluation(
    examples: LabelledExamples, tokenizer: Encoder, length: int, examples_per_row: int, packing: bool, batch_size: int
) -> list[tuple[Batch, np.ndarray]]:
    """All examples once, as global batches of `batch_size` rows, the last filled up with empty rows.

    Returns:
        Pairs of a batch and the index of the example in each slot, int64 [batch_size, examples_per_row], -1 where it is empty.
    """
    encoded = encode_examples(examples, tokenizer, length)
    placement = pack(encoded.examples.lengths, length, examples_per_row if packing else 1)
    starts = range(0, placement.count, batch_size)
    return [encoded.rows(placement, range(start, start + batch_size), tokenizer, length, examples_per_row) for start in starts]
