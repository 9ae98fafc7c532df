"""Rows: what goes where, and every field against a plain reference."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.data.packing import Batch, Placement, assemble, pack, pad_rows
from bert_jax.data.pairs import Examples

LENGTH, PER_ROW = 32, 4


class Special(NamedTuple):
    pad_id: int = 7
    cls_id: int = 1
    sep_id: int = 2


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(2, LENGTH), max_size=60), per_row=st.integers(1, 5), seed=st.integers(0, 100))
def test_placement(lengths: list[int], per_row: int, seed: int) -> None:
    sizes = np.array(lengths, np.int64)
    placement = pack(sizes, LENGTH, per_row)
    free = np.ones((placement.count, LENGTH), bool)
    for row, offset, size in zip(placement.rows, placement.offsets, lengths, strict=True):
        assert offset + size <= LENGTH and free[row, offset : offset + size].all()
        free[row, offset : offset + size] = False
    for row in range(placement.count):
        slots = np.sort(placement.slots[placement.rows == row])
        np.testing.assert_array_equal(slots, np.arange(len(slots)))
        assert 1 <= len(slots) <= per_row
        assert not np.diff(free[row].astype(int)).min(initial=0) < 0, "a hole between examples"
    shuffled = np.random.default_rng(seed).permutation(sizes)
    assert pack(shuffled, LENGTH, per_row).count == placement.count


@pytest.mark.parametrize("mean", [20, 60])
def test_fill(mean: int) -> None:
    """Sixty-odd rows of texts of typical lengths are packed to more than 94 percent."""
    rng = np.random.default_rng(0)
    sizes = np.minimum(128, 3 + rng.gamma(2, mean / 2, 64 * 128 // mean).astype(np.int64))
    assert sizes.sum() / (pack(sizes, 128, 16).count * 128) > 0.94


def reference(examples: Examples, placement: Placement, tokens: np.ndarray, word_starts: np.ndarray) -> Batch:
    """The batch shape's definition, token by token."""
    rows = placement.count
    batch = {
        "tokens": np.full((rows, LENGTH), Special().pad_id, np.int32),
        **{name: np.zeros((rows, LENGTH), np.int32) for name in ("example_ids", "positions", "segments")},
        "word_starts": np.zeros((rows, LENGTH), np.bool_),
        "cls_positions": np.zeros((rows, PER_ROW), np.int32),
        "example_weights": np.zeros((rows, PER_ROW), np.float32),
        "is_next": np.zeros((rows, PER_ROW), np.int32),
    }
    for i in range(len(examples)):
        row, slot, column = placement.rows[i], placement.slots[i], placement.offsets[i]
        pieces = [(Special().cls_id, 0, False)]
        for segment, (begin, end) in enumerate((examples.a[i], examples.b[i])):
            if segment == 0 or end > begin:
                pieces += [(tokens[t], segment, t == begin or word_starts[t]) for t in range(begin, end)]
                pieces += [(Special().sep_id, segment, False)]
        for position, (token, segment, start) in enumerate(pieces):
            at = row, column + position
            batch["tokens"][at], batch["segments"][at], batch["word_starts"][at] = token, segment, start
            batch["positions"][at], batch["example_ids"][at] = position, slot + 1
        batch["cls_positions"][row, slot] = column
        batch["example_weights"][row, slot] = examples.weights[i]
        batch["is_next"][row, slot] = examples.labels[i]
    return batch


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 14)), max_size=20), seed=st.integers(0, 1000))
def test_every_field(sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens, word_starts = rng.integers(10, 99, 100).astype(np.uint16), rng.random(100) < 0.7
    count = len(sizes)
    begins = rng.integers(0, 80, (count, 2))
    ends = begins + np.array(sizes, np.int64).reshape(count, 2)
    examples = Examples(
        np.stack([begins[:, 0], ends[:, 0]], 1), np.stack([begins[:, 1], ends[:, 1]], 1),
        rng.integers(0, 2, count).astype(np.int32), rng.integers(0, 2, count).astype(np.float32),
    )  # fmt: skip
    placement = pack(examples.lengths, LENGTH, PER_ROW)
    batch = assemble(examples, placement, tokens, word_starts, Special(), LENGTH, PER_ROW, "is_next")
    expected = reference(examples, placement, tokens, word_starts)
    assert batch.keys() == expected.keys()
    for name, field in expected.items():
        assert batch[name].dtype == field.dtype, name
        np.testing.assert_array_equal(batch[name], field, name)


def test_empty_rows() -> None:
    examples = Examples(np.array([[0, 3]]), np.array([[3, 5]]), np.ones(1, np.int32), np.ones(1, np.float32))
    batch = assemble(examples, pack(examples.lengths, 8, 2), np.arange(10, 15), np.ones(5, bool), Special(), 8, 2, "labels")
    padded = pad_rows(batch, 3, Special().pad_id)
    assert (padded["tokens"][1:] == 7).all()
    assert not any(field[1:].any() for name, field in padded.items() if name != "tokens")
    for name, field in batch.items():
        np.testing.assert_array_equal(padded[name][:1], field)
        assert padded[name].dtype == field.dtype
