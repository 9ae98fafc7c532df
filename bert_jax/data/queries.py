"""Texts that a model is asked about become packed batches of a few shapes, whatever their lengths and their number.

Texts are encoded as ranges of one array of tokens and cut to the model's positions; then every range gets its place in a row.
Rows are as long as a power of two and hold as many texts as fit, the longest text first. Short texts share long rows, so
that little of a batch is padding and two shapes for each of a few lengths are enough: one for batches that fill the
devices, one for the rows that are left over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bert_jax.data.packing import Batch, Placement, assemble, best_fit
from bert_jax.data.pairs import Examples
from bert_jax.data.reader import MaskingTokens, Reader
from bert_jax.errors import TextError

_SHORTEST_ROW = 16
_LEAST_LENGTHS = (128, 256, 512)
"""Row lengths below which texts do not get rows of their own where there are enough of them; longer ones if they fill better."""
_WELL_FILLED = 0.9
_MOST_SLOTS = 64
_MOST_SMALL_BATCHES = 8
"""Batches of one row a device that cost less than one full batch with as many rows: each costs the time of its launch."""
_FIELDS = ("tokens", "example_ids", "positions", "segments", "cls_positions", "units")
"""What a model reads of a batch when it answers; not every one has units."""


@dataclass(frozen=True)
class Queries:
    """n texts, or pairs of texts, and the tokens of the first of each that are masked by [MASK] and asked for."""

    examples: Examples
    tokens: np.ndarray
    """int32 [t], of which the examples are ranges."""
    masked: np.ndarray
    """int64 [c]: the index in `tokens` of each masked token."""
    owners: np.ndarray
    """int64 [c]: the example it is in, not decreasing."""
    truncated: int = 0
    """Texts that were cut."""
    units: np.ndarray | None = None
    """[t, U]: what stands beside the tokens, where the modality has it."""


@dataclass(frozen=True)
class BatchShapes:
    """The shapes that batches have: a full one for each row length, and one with a row for each device."""

    devices: int
    tokens: int
    """What a device takes at once."""

    def batches(self, rows: int, length: int) -> list[int]:
        """The numbers of rows of the batches that hold so many rows of a length, the empty rows at their end counted."""
        full = self.devices * max(1, self.tokens // length)
        whole, rest = divmod(rows, full)
        small = -(-rest // self.devices)
        return [full] * whole + ([self.devices] * small if small <= _MOST_SMALL_BATCHES else [full])


class Located(NamedTuple):
    """Some of n things, in the order of the rows of a batch: int64 [k] which they are, their rows, their slots or columns."""

    indices: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def between(self, first: int, last: int) -> "Located":
        """Those in the rows from `first` to before `last`, which are counted from `first`."""
        begin, end = np.searchsorted(self.rows, [first, last])
        return Located(self.indices[begin:end], self.rows[begin:end] - first, self.columns[begin:end])


@dataclass(frozen=True)
class PackedBatch:
    """Rows that a model answers at once."""

    fields: Batch
    """The part of the one batch shape that a model reads (docs/architecture.md)."""
    examples: Located
    """The examples in the rows, and their slots."""
    masked: Located
    """The masked tokens in the rows, and their columns."""


def encode_queries(
    texts: Sequence[str], pairs: Sequence[str] | None, reader: Reader, positions: int, masked: bool = False
) -> Queries:
    """Texts, or pairs of texts, as ranges of tokens.

    Args:
        texts: one or more.
        pairs: the second of each pair.
        reader: encodes them.
        positions: the most tokens of an example, to which it is cut: of a pair the longer text first, from its end.
        masked: the [MASK]s of a text are asked for; it is cut around them.

    Raises:
        TextError: not a string, an empty text, or, if they are asked for, no [MASK] or some too far apart.
    """
    _check(texts)
    _check(pairs or ())
    flat = reader.encode_flat([*texts, *(pairs or ())])
    count = len(texts)
    for index in np.flatnonzero(flat.lengths == 0):
        raise TextError(int(index) % count, "is empty: it holds nothing that can be read. Leave it out.")
    ends = np.cumsum(flat.lengths)
    ranges = np.stack([ends - flat.lengths, ends], 1)
    a, b = ranges[:count], ranges[count:] if pairs else np.zeros_like(ranges)
    capacity = positions - (3 if pairs else 2)
    masks = np.flatnonzero(flat.ids == reader.mask_id) if masked else np.zeros(0, np.int64)
    owners = np.searchsorted(ends, masks, side="right")
    if masked:
        _cut_around(a, masks, owners, capacity)
    else:
        _cut_the_longer(a, b, capacity)
    truncated = int((flat.lengths.reshape(-1, count).sum(0) > capacity).sum())
    return Queries(Examples(a, b, np.zeros(count, np.int32), np.ones(count, np.float32)), flat.ids, masks, owners, truncated, flat.units)


def mask_one_by_one(queries: Queries, uncounted: Sequence[int], tokens: int) -> Iterator[tuple[np.ndarray, Queries]]:
    """Copies of every text, each with another token masked, the longest text first.

    Args:
        queries: the texts, without pairs.
        uncounted: ids of tokens that are never masked.
        tokens: of the copies that are made at once, about.

    Returns:
        Copies with one masked token each, and the index of the text that each is of, int64 [copies].
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
    """All examples, the longest first, in batches of the given shapes; the masked tokens are [MASK]."""
    placement, counts = _place(queries.examples.lengths, shapes)
    examples = _by_row(placement.rows, placement.slots)
    to_column = placement.offsets + 1 - queries.examples.a[:, 0]
    masked = _by_row(placement.rows[queries.owners], to_column[queries.owners] + queries.masked)
    word_starts = np.ones(len(queries.tokens), np.bool_)  # which only masking reads
    first = 0
    for length, count in counts.items():
        inside, asked = (located.between(first, first + count) for located in (examples, masked))
        here = Placement(inside.rows, inside.columns, placement.offsets[inside.indices], count)
        own = queries.examples.select(inside.indices)
        fields = assemble(own, here, queries.tokens, word_starts, special, length, _slots(length), "labels", queries.units)
        fields["tokens"][asked.rows, asked.columns] = special.mask_id
        start = 0
        for rows in shapes.batches(count, length):
            stop = start + rows
            cut = {name: fields[name][start:stop] for name in _FIELDS if name in fields}
            yield PackedBatch(cut, inside.between(start, stop), asked.between(start, stop))
            start = stop
        first += count


def _check(texts: Sequence[object]) -> None:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(index, f"is not a text but {type(text).__name__}: give strings.")


def _cut_the_longer(a: np.ndarray, b: np.ndarray, capacity: int) -> None:
    """Shortens pairs [n, 2] of ranges at their ends, the longer of the two first, to `capacity` tokens together."""
    a_length, b_length = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    kept = np.minimum(a_length, np.maximum(capacity - b_length, capacity // 2))
    a[:, 1] = a[:, 0] + kept
    b[:, 1] = b[:, 0] + np.minimum(b_length, capacity - kept)


def _cut_around(a: np.ndarray, masks: np.ndarray, owners: np.ndarray, capacity: int) -> None:
    """Shortens ranges [n, 2] to `capacity` tokens, with their masks as near the middle as can be."""
    texts = np.arange(len(a))
    firsts, behind = np.searchsorted(owners, texts), np.searchsorted(owners, texts, side="right")
    for index in np.flatnonzero(firsts == behind):
        raise TextError(int(index), "has no [MASK]: write [MASK] where a token is to be filled in.")
    first, last = masks[firsts], masks[behind - 1]
    begins, ends = a.T
    starts = np.clip((first + last) // 2 - capacity // 2, begins, np.maximum(begins, ends - capacity))
    a[:] = np.stack([starts, np.minimum(ends, starts + capacity)], 1)
    for index in np.flatnonzero((first < a[:, 0]) | (last >= a[:, 1])):
        raise TextError(int(index), f"has masks too far apart for the model's {capacity + 2} positions: shorten it or cover fewer.")


def _by_row(rows: np.ndarray, columns: np.ndarray) -> Located:
    order = np.argsort(rows, kind="stable")
    return Located(order, rows[order], columns[order])


def _row_length(tokens: int) -> int:
    return max(_SHORTEST_ROW, 1 << (tokens - 1).bit_length())


def _slots(length: int) -> int:
    """Texts that a row may hold: few are shorter than [CLS], four tokens and [SEP]."""
    return min(_MOST_SLOTS, length // 6)


class _Rows:
    """The rows that `best_fit` asks for, the longest first, whole batches of each length.

    Attributes:
        counts: the number of rows of each length.
    """

    def __init__(self, shapes: BatchShapes, least_length: int) -> None:
        self._shapes, self._least_length = shapes, least_length
        self.counts: dict[int, int] = {}

    def __call__(self, size: int) -> list[tuple[int, int]]:
        length = max(self._least_length, _row_length(size))
        previous = next(reversed(self.counts), length)
        if previous > length and (spare := self.spare(previous)):
            # These rows would be computed empty.
            length, count = previous, spare
        else:
            count = 1
        self.counts[length] = self.counts.get(length, 0) + count
        return [(length, _slots(length))] * count

    def spare(self, length: int) -> int:
        """Rows that are missing to whole batches of a length."""
        return sum(self._shapes.batches(self.counts[length], length)) - self.counts[length]


def _place(lengths: np.ndarray, shapes: BatchShapes) -> tuple[Placement, dict[int, int]]:
    """Where each example stands, and the number of rows of each length, the longest first, whole batches of each."""
    total = int(lengths.sum())
    enough = _row_length(-(-total // shapes.devices))  # longer rows would leave a device without work
    tried = []
    for least_length in _LEAST_LENGTHS:
        rows = _Rows(shapes, min(least_length, enough))
        placement = best_fit(lengths, rows)
        shortest = next(reversed(rows.counts))
        rows.counts[shortest] += rows.spare(shortest)
        cells = sum(length * count for length, count in rows.counts.items())
        tried.append((cells, placement, rows.counts))
        if total >= _WELL_FILLED * cells or least_length >= enough:
            break
    fewest = min(cells for cells, _, _ in tried)
    # Attention costs more in longer rows.
    return next((placement, counts) for cells, placement, counts in tried if fewest >= _WELL_FILLED * cells)
