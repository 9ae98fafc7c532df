"""Examples become rows of the one batch shape (docs/architecture.md): which example goes where, then all tokens at once."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bert_jax.data.pairs import Examples
from bert_jax.data.reader import SpecialTokens

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Placement:
    """Where each of n examples stands in `count` rows."""

    rows: np.ndarray
    """int64 [n]."""
    slots: np.ndarray
    """int64 [n]: 0 to examples_per_row - 1."""
    offsets: np.ndarray
    """int64 [n]: the column of the example's first token."""
    count: int


def pack(lengths: np.ndarray, length: int, examples_per_row: int) -> Placement:
    """Best fit decreasing into rows of one length; the number of rows depends on the lengths alone, not on their order.

    Args:
        lengths: [n] tokens of each example, none above `length`.
        length: tokens of a row.
        examples_per_row: the most that one row may hold; 1 does not pack.
    """
    return best_fit(lengths, lambda size: [(length, examples_per_row)])


def best_fit(lengths: np.ndarray, new_rows: Callable[[int], Sequence[tuple[int, int]]]) -> Placement:
    """Best fit decreasing: the longest example first, each into the fullest row that has room (Johnson 1974).

    Args:
        lengths: [n] tokens of each example.
        new_rows: the rows to add where no row has room for an example of a length, as (tokens, most examples); one or more,
            each with room for it.
    """
    rows, slots, offsets = (np.zeros(len(lengths), np.int64) for _ in range(3))
    tokens: list[int] = []  # of each row
    most: list[int] = []  # examples that each row may hold
    held: list[int] = []  # examples in each row
    with_room: defaultdict[int, list[int]] = defaultdict(list)  # rows by the room that is left
    rooms = 0  # bit r is set where with_room[r] is not empty
    order = np.argsort(-lengths, kind="stable")
    placed = []
    for size in lengths[order].tolist():
        if not rooms >> size:
            for length, examples in new_rows(size):
                with_room[length].append(len(held))
                rooms |= 1 << length
                tokens.append(length)
                most.append(examples)
                held.append(0)
        fitting = rooms >> size
        room = size + (fitting & -fitting).bit_length() - 1
        row = with_room[room].pop()
        if not with_room[room]:
            rooms ^= 1 << room
        placed.append((row, held[row], tokens[row] - room))
        held[row] += 1
        if held[row] < most[row] and room > size:
            with_room[room - size].append(row)
            rooms |= 1 << (room - size)
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
) -> Batch:
    """Writes the examples into rows: the fields of the one batch shape, with the labels named `label_field`.

    Args:
        examples: ranges of `tokens`.
        placement: where each example goes.
        tokens: [t] ids of the text; word_starts: bool [t].
        special: ids of [PAD], [CLS] and [SEP].
        length: L of the rows; examples_per_row: E.
        label_field: `is_next` or `labels`.
        units: [t, U] what stands beside the ids; the batch then has `units` [B, L, U], zero at special tokens and padding.
    """
    sizes = examples.lengths
    example = np.repeat(np.arange(len(examples)), sizes)
    position = np.arange(len(example)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    a_begin, a_size = examples.a[:, 0], examples.a[:, 1] - examples.a[:, 0]
    segment = position > (a_size + 1)[example]
    # Index of the token in the text, after which [CLS] and [SEP] stand; B begins two special tokens and A behind [CLS].
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
    # A segment that begins inside a word begins with a word of its own.
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
    return batch


def pad_rows(batch: Batch, count: int, pad_id: int) -> Batch:
    """The batch with empty rows behind its own, `count` in all."""
    return {
        name: np.concatenate([field, np.full((count - len(field), *field.shape[1:]), pad_id if name == "tokens" else 0, field.dtype)])
        for name, field in batch.items()
    }
