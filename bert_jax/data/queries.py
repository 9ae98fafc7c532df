"""Pack inference inputs into batches of a few fixed shapes, whatever the number and lengths of the texts.

Texts are encoded as ranges of a single token array and truncated to the model's maximum positions; then each range is
assigned a place in a row. Row lengths are powers of two, and rows are filled by best fit, longest text first. Short texts
share long rows, which keeps padding low and the number of compiled shapes small: two for each of a few row lengths, one
for full batches and one for the remaining rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bert_jax.data.packing import Batch, Placement, assemble, best_fit
from bert_jax.data.pairs import Examples
from bert_jax.data.reader import MaskingTokens, Reader
from bert_jax.errors import TextError

_MIN_ROW_LENGTH = 16
_TARGET_FILL = 0.9
_MAX_SLOTS = 64
_MAX_SMALL_BATCHES = 8
"""Up to this many batches of one row per device are cheaper than one full batch; beyond it, launch overhead dominates."""
_FIELDS = ("tokens", "example_ids", "positions", "segments", "cls_positions", "units")
"""Batch fields that a model reads at inference; `units` is optional."""


@dataclass(frozen=True)
class Queries:
    """n texts or text pairs, and the masked tokens to predict, which are always in the first text of a pair."""

    examples: Examples
    tokens: np.ndarray
    """int32 [t]: token ids; the examples are ranges of this array."""
    masked: np.ndarray
    """int64 [c]: the index in `tokens` of each masked token."""
    owners: np.ndarray
    """int64 [c]: the example that contains each masked token, in non-decreasing order."""
    truncated: int = 0
    """Number of truncated examples."""
    units: np.ndarray | None = None
    """[t, U]: the unit vector of each token, if the modality has units."""


@dataclass(frozen=True)
class BatchShapes:
    """The batch shapes in use: for each row length a full batch, and a small one with one row per device."""

    devices: int
    tokens: int
    """Tokens per device in a full batch."""
    least: tuple[int, ...] = (128, 256, 512)
    """Candidates for the minimum row length, shortest first; a longer one is used if it reduces padding."""

    def full(self, length: int) -> int:
        """Return the number of rows of `length` tokens in a full batch."""
        return self.devices * max(1, self.tokens // length)

    def batches(self, rows: int, length: int) -> list[int]:
        """Return the number of rows in each batch, including empty rows, that together hold `rows` rows of `length` tokens."""
        full = self.full(length)
        full_batches, rest = divmod(rows, full)
        small = -(-rest // self.devices)
        return [full] * full_batches + ([self.devices] * small if small <= _MAX_SMALL_BATCHES else [full])


class Located(NamedTuple):
    """Positions of k items in a batch, sorted by row: their indices, rows, and slots or columns, each int64 [k]."""

    indices: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def between(self, first: int, last: int) -> "Located":
        """Return the items in rows `first` to `last` - 1, with row numbers relative to `first`."""
        begin, end = np.searchsorted(self.rows, [first, last])
        return Located(self.indices[begin:end], self.rows[begin:end] - first, self.columns[begin:end])


@dataclass(frozen=True)
class PackedBatch:
    """A batch of packed inputs for inference."""

    fields: Batch
    """The fields of the batch layout that a model reads (docs/architecture.md)."""
    examples: Located
    """The examples in the rows, and their slots."""
    masked: Located
    """The masked tokens in the rows, and their columns."""


def encode_queries(
    texts: Sequence[Any], pairs: Sequence[Any] | None, reader: Reader, positions: int, masked: bool = False
) -> Queries:
    """Encode texts or text pairs as ranges of tokens.

    Args:
        texts: one or more texts.
        pairs: the second text of each pair, or None.
        reader: encodes the texts.
        positions: maximum number of tokens in an example. The longer text of a pair is truncated first, at its end.
        masked: whether to predict the [MASK] tokens of the texts; texts are then truncated around them.

    Raises:
        TextError: a text cannot be encoded or is empty; or, with `masked`, has no [MASK] or has [MASK]s too far apart.
    """
    count = len(texts)
    try:
        flat = reader.encode_flat([*texts, *(pairs or ())])
        _refuse(np.flatnonzero(flat.lengths == 0), "is empty: it contains no readable characters. Leave it out.", reader.nouns.input)
    except TextError as error:
        raise _of_pairs(error, count) from None
    ends = np.cumsum(flat.lengths)
    ranges = np.stack([ends - flat.lengths, ends], 1)
    a, b = ranges[:count], ranges[count:] if pairs else np.zeros_like(ranges)
    capacity = positions - (3 if pairs else 2)
    masks = np.flatnonzero(flat.ids == reader.mask_id) if masked else np.zeros(0, np.int64)
    owners = np.searchsorted(ends, masks, side="right")
    if masked:
        _refuse(np.setdiff1d(np.arange(count), owners), f"has no [MASK]: {reader.mask_hint}.", reader.nouns.input)
        _truncate_around_masks(a, masks, owners, capacity, reader.nouns.input)
    else:
        _truncate_longer(a, b, capacity)
    truncated = int((flat.lengths.reshape(-1, count).sum(0) > capacity).sum())
    return Queries(Examples(a, b, np.zeros(count, np.int32), np.ones(count, np.float32)), flat.ids, masks, owners, truncated, flat.units)


def mask_one_by_one(queries: Queries, uncounted: Sequence[int], tokens: int) -> Iterator[tuple[np.ndarray, Queries]]:
    """Yield copies of every text with a different token masked in each copy, longest text first.

    Args:
        queries: the texts, without pairs.
        uncounted: ids of tokens that are never masked.
        tokens: approximate number of tokens in the copies that are yielded together.

    Yields:
        The index of the text of each copy, int64 [copies], and the copies, each with one masked token.
    """
    begins, sizes = queries.examples.a[:, 0], queries.examples.a[:, 1] - queries.examples.a[:, 0]
    order = np.argsort(-sizes, kind="stable")
    ends = np.cumsum(sizes[order])
    texts = np.repeat(order, sizes[order])
    masked = np.arange(len(texts)) + np.repeat(begins[order] - ends + sizes[order], sizes[order])
    counted = ~np.isin(queries.tokens[masked], uncounted)
    texts, masked = texts[counted], masked[counted]
    groups = np.cumsum(queries.examples.lengths[texts]) // tokens
    for members in np.split(np.arange(len(texts)), np.flatnonzero(np.diff(groups)) + 1):
        if len(members):
            copies = queries.examples.select(texts[members])
            yield texts[members], Queries(copies, queries.tokens, masked[members], np.arange(len(members)), units=queries.units)


def packed_batches(queries: Queries, special: MaskingTokens, shapes: BatchShapes) -> Iterator[PackedBatch]:
    """Yield all examples, longest first, in batches of the given shapes, with [MASK] in place of the masked tokens."""
    placement, counts = _place(queries.examples.lengths, shapes)
    examples = _by_row(placement.rows, placement.slots)
    to_column = placement.offsets + 1 - queries.examples.a[:, 0]
    masked = _by_row(placement.rows[queries.owners], to_column[queries.owners] + queries.masked)
    word_starts = np.ones(len(queries.tokens), np.bool_)  # read only by training-time masking
    first = 0
    for length, count in counts.items():
        inside, targets = (located.between(first, first + count) for located in (examples, masked))
        here = Placement(inside.rows, inside.columns, placement.offsets[inside.indices], count)
        own = queries.examples.select(inside.indices)
        fields = assemble(own, here, queries.tokens, word_starts, special, length, _slots(length), "labels", queries.units)
        fields["tokens"][targets.rows, targets.columns] = special.mask_id
        start = 0
        for rows in shapes.batches(count, length):
            stop = start + rows
            part = {name: fields[name][start:stop] for name in _FIELDS if name in fields}
            yield PackedBatch(part, inside.between(start, stop), targets.between(start, stop))
            start = stop
        first += count


def _truncate_longer(a: np.ndarray, b: np.ndarray, capacity: int) -> None:
    """Truncate pairs of ranges [n, 2] in place at their ends to a total of `capacity` tokens, the longer range first."""
    a_length, b_length = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    kept = np.minimum(a_length, np.maximum(capacity - b_length, capacity // 2))
    a[:, 1] = a[:, 0] + kept
    b[:, 1] = b[:, 0] + np.minimum(b_length, capacity - kept)


def _truncate_around_masks(a: np.ndarray, masks: np.ndarray, owners: np.ndarray, capacity: int, noun: str) -> None:
    """Truncate ranges [n, 2] in place to `capacity` tokens, with their masks as close to the middle as possible."""
    texts = np.arange(len(a))
    begin_masks, end_masks = np.searchsorted(owners, texts), np.searchsorted(owners, texts, side="right")
    first, last = masks[begin_masks], masks[end_masks - 1]
    begins, ends = a.T
    starts = np.clip((first + last) // 2 - capacity // 2, begins, np.maximum(begins, ends - capacity))
    a[:] = np.stack([starts, np.minimum(ends, starts + capacity)], 1)
    too_far = f"has masks too far apart for the model's {capacity + 2} positions: shorten it or use fewer masks."
    _refuse(np.flatnonzero((first < a[:, 0]) | (last >= a[:, 1])), too_far, noun)


def _refuse(indices: np.ndarray, problem: str, noun: str) -> None:
    """Raise TextError if there are any indices."""
    if len(indices):
        raise TextError(int(indices[0]), problem, noun, dict.fromkeys(indices.tolist(), problem))


def _of_pairs(error: TextError, count: int) -> TextError:
    """Return an error about `count` texts, or about these and then their pairs, as one about the texts alone."""
    problems: dict[int, str] = {}
    for index, problem in error.problems.items():
        problems.setdefault(index % count, problem if index < count else f"is paired with another {error.noun} that {problem}")
    first = error.index % count
    return TextError(first, problems[first], error.noun, problems)


def _by_row(rows: np.ndarray, columns: np.ndarray) -> Located:
    order = np.argsort(rows, kind="stable")
    return Located(order, rows[order], columns[order])


def _row_length(tokens: int) -> int:
    return max(_MIN_ROW_LENGTH, 1 << (tokens - 1).bit_length())


def _slots(length: int) -> int:
    """Return the number of slots per row; few texts are shorter than four tokens plus [CLS] and [SEP]."""
    return min(_MAX_SLOTS, length // 6)


class _Rows:
    """Supplies `best_fit` with new rows, longest first, in complete batches of each length.

    Attributes:
        counts: the number of rows of each length.
    """

    def __init__(self, shapes: BatchShapes, min_length: int) -> None:
        self._shapes, self._min_length = shapes, min_length
        self.counts: dict[int, int] = {}

    def __call__(self, size: int) -> list[tuple[int, int]]:
        length = max(self._min_length, _row_length(size))
        previous = next(reversed(self.counts), length)
        if previous > length and (spare := self.spare(previous)):
            # Use the rows that would otherwise be computed empty.
            length, count = previous, spare
        else:
            count = 1
        self.counts[length] = self.counts.get(length, 0) + count
        return [(length, _slots(length))] * count

    def spare(self, length: int) -> int:
        """Return the number of empty rows that would complete the last batch of this length."""
        return sum(self._shapes.batches(self.counts[length], length)) - self.counts[length]


def _place(lengths: np.ndarray, shapes: BatchShapes) -> tuple[Placement, dict[int, int]]:
    """Return the placement of the examples and the number of rows of each length, longest first, in complete batches."""
    total = int(lengths.sum())
    longest_useful = _row_length(-(-total // shapes.devices))  # longer rows would leave devices idle
    tried = []
    for min_length in shapes.least:
        rows = _Rows(shapes, min(min_length, longest_useful))
        placement = best_fit(lengths, rows)
        shortest = next(reversed(rows.counts))
        rows.counts[shortest] += rows.spare(shortest)
        cells = sum(length * count for length, count in rows.counts.items())
        tried.append((cells, placement, rows.counts))
        if total >= _TARGET_FILL * cells or min_length >= longest_useful:
            break
    fewest = min(cells for cells, _, _ in tried)
    # Prefer the shortest rows among near-equals: attention costs more in longer rows.
    return next((placement, counts) for cells, placement, counts in tried if fewest >= _TARGET_FILL * cells)
