"""Pack examples into rows of the batch layout (docs/architecture.md): first assign each example a place, then copy all tokens at once."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bert_jax.data.pairs import Examples
from bert_jax.data.reader import SpecialTokens

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Placement:
    """The assignment of n examples to `count` rows."""

    rows: np.ndarray
    """int64 [n]: the row of each example."""
    slots: np.ndarray
    """int64 [n]: its slot in the row, 0 to examples_per_row - 1."""
    offsets: np.ndarray
    """int64 [n]: the column of its first token."""
    count: int
    """Number of rows."""


def pack(lengths: np.ndarray, length: int, examples_per_row: int) -> Placement:
    """Pack examples into rows of equal length by best-fit decreasing.

    The number of rows depends only on the lengths, not on their order.

    Args:
        lengths: [n] number of tokens in each example, at most `length`.
        length: tokens per row.
        examples_per_row: maximum number of examples per row; 1 disables packing.
    """
    return best_fit(lengths, lambda size: [(length, examples_per_row)])


def best_fit(lengths: np.ndarray, new_rows: Callable[[int], Sequence[tuple[int, int]]]) -> Placement:
    """Pack by best-fit decreasing: longest example first, each into the fullest row that still fits it (Johnson 1974).

    Args:
        lengths: [n] number of tokens in each example.
        new_rows: called with the length of an example that fits in no existing row; returns one or more new rows as
            (tokens, maximum number of examples), each long enough for that example.
    """
    rows, slots, offsets = (np.zeros(len(lengths), np.int64) for _ in range(3))
    tokens: list[int] = []  # length of each row
    max_examples: list[int] = []  # maximum number of examples in each row
    held: list[int] = []  # number of examples in each row
    rows_by_space: defaultdict[int, list[int]] = defaultdict(list)  # open rows by the number of free tokens
    available = 0  # bit s is set if rows_by_space[s] is not empty
    order = np.argsort(-lengths, kind="stable")
    placed = []
    for size in lengths[order].tolist():
        if not available >> size:
            for length, examples in new_rows(size):
                rows_by_space[length].append(len(held))
                available |= 1 << length
                tokens.append(length)
                max_examples.append(examples)
                held.append(0)
        fitting = available >> size
        space = size + (fitting & -fitting).bit_length() - 1
        row = rows_by_space[space].pop()
        if not rows_by_space[space]:
            available ^= 1 << space
        placed.append((row, held[row], tokens[row] - space))
        held[row] += 1
        if held[row] < max_examples[row] and space > size:
            rows_by_space[space - size].append(row)
            available |= 1 << (space - size)
    if placed:
        rows[order], slots[order], offsets[order] = np.array(placed).T
    return Placement(rows, slots, offsets, len(held))


def assemble(
    examples: Examples,
    placement: Placement,
    tokens: np.ndarray,
    word_starts: np.ndarray,
    special: SpecialTokens,
    length: int,
    examples_per_row: int,
    label_field: str,
    units: np.ndarray | None = None,
    token_labels: np.ndarray | None = None,
) -> Batch:
    """Write the examples into rows and return the fields of the batch layout, with the labels under the name `label_field`.

    Args:
        examples: ranges of `tokens`.
        placement: where each example goes.
        tokens: [t] token ids of the text.
        word_starts: bool [t], true where a token starts a word.
        special: ids of [PAD], [CLS] and [SEP].
        length: L, tokens per row.
        examples_per_row: E, slots per row.
        label_field: `is_next` or `labels`.
        units: [t, U], the unit vector of each token, if the modality has units. The batch then has a field `units` [B, L, U],
            zero at special tokens and padding.
        token_labels: int [t], the label of each token, at least 0, or -1; the labels of the batch are then [B, L], not those of the
            examples.
    """
    sizes = examples.lengths
    example = np.repeat(np.arange(len(examples)), sizes)
    position = np.arange(len(example)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    a_begin, a_size = examples.a[:, 0], examples.a[:, 1] - examples.a[:, 0]
    segment = position > (a_size + 1)[example]
    # Index of each cell's token in `text`, where [CLS] and [SEP] follow the tokens. A is shifted by one special token, B by two.
    source = position + np.where(segment, (examples.b[:, 0] - a_size - 2)[example], (a_begin - 1)[example])
    source[position == 0] = len(tokens)
    source[(position == (a_size + 1)[example]) | (position == (sizes - 1)[example])] = len(tokens) + 1
    cell = (placement.rows * length + placement.offsets)[example] + position

    def spread(values: np.ndarray, fill: int, dtype: np.typing.DTypeLike) -> np.ndarray:
        field: np.ndarray = np.full((placement.count * length, *values.shape[1:]), fill, dtype)
        field[cell] = values
        return field.reshape(placement.count, length, *values.shape[1:])

    def slotted(values: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
        field: np.ndarray = np.zeros((placement.count, examples_per_row, *values.shape[1:]), dtype)
        field[placement.rows, placement.slots] = values
        return field

    text = np.concatenate([tokens.astype(np.int32), np.array([special.cls_id, special.sep_id], np.int32)])
    starts = np.concatenate([word_starts, [False, False]])[source]
    # If a segment starts in the middle of a word, its first token counts as the start of a word.
    starts[(source < len(tokens)) & ((position == 1) | (position == (a_size + 2)[example]))] = True
    batch = {
        "tokens": spread(text[source], special.pad_id, np.int32),
        "example_ids": spread((placement.slots + 1)[example], 0, np.int32),
        "positions": spread(position, 0, np.int32),
        "segments": spread(segment, 0, np.int32),
        "word_starts": spread(starts, 0, np.bool_),
        "cls_positions": slotted(placement.offsets, np.int32),
        "example_weights": slotted(examples.weights, np.float32),
        label_field: slotted(examples.labels, examples.labels.dtype),
    }
    if units is not None:
        special_units = np.zeros((2, units.shape[1]), units.dtype)
        batch["units"] = spread(np.concatenate([units, special_units])[source], 0, units.dtype)
    if token_labels is not None:
        batch[label_field] = spread(np.concatenate([token_labels, [-1, -1]])[source], -1, token_labels.dtype)
    return batch


def pad_rows(batch: Batch, count: int, pad_id: int) -> Batch:
    """Append empty rows to the batch, for a total of `count` rows."""
    return {
        name: np.concatenate([field, np.full((count - len(field), *field.shape[1:]), pad_id if name == "tokens" else 0, field.dtype)])
        for name, field in batch.items()
    }
