"""Texts to packed batches: everything is there once, little is padding, and the shapes are few."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.config import VocabularyConfig
from bert_jax.data.labelled import LabelledExamples
from bert_jax.data.labelled_batches import encode_examples
from bert_jax.data.pairs import Examples
from bert_jax.data.queries import BatchShapes, Queries, encode_queries, mask_one_by_one, packed_batches
from bert_jax.errors import TextError
from bert_jax.modalities.text.tokenizer import Tokenizer


class Special(NamedTuple):
    pad_id: int = 7
    cls_id: int = 1
    sep_id: int = 2
    mask_id: int = 3


CPU, ACCELERATOR = BatchShapes(1, 2048), BatchShapes(1, 32 * 512)


def queries(lengths, masked=(), owners=()) -> Queries:
    """Texts of some lengths, the special tokens counted, of which no two tokens are the same."""
    sizes = np.asarray(lengths, np.int64) - 2
    ends = np.cumsum(sizes)
    count = len(sizes)
    examples = Examples(
        np.stack([ends - sizes, ends], 1), np.zeros((count, 2), np.int64), np.zeros(count, np.int32), np.ones(count, np.float32)
    )
    return Queries(examples, np.arange(10, 10 + sizes.sum(), dtype=np.int32), np.array(masked, np.int64), np.array(owners, np.int64))


def real_lengths(count: int, seed: int = 0) -> np.ndarray:
    """Reviews and the like: half are between 40 and 90 tokens, a few fill the model."""
    return np.clip(np.random.default_rng(seed).lognormal(np.log(60), 0.6, count).astype(np.int64), 3, 512)


def padding(lengths, shapes: BatchShapes) -> float:
    cells = sum(packed.fields["tokens"].size for packed in packed_batches(queries(lengths), Special(), shapes))
    return 1 - np.sum(lengths) / cells


def shapes_of(lengths, shapes: BatchShapes) -> list[tuple[int, int, int]]:
    """Rows, length and slots of each batch."""
    batches = [packed.fields for packed in packed_batches(queries(lengths), Special(), shapes)]
    return [(*fields["tokens"].shape, fields["cls_positions"].shape[1]) for fields in batches]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 150), min_size=1, max_size=150),
    devices=st.integers(1, 2),
    tokens=st.sampled_from([100, 512, 2048]),
    seed=st.integers(0, 99),
)
def test_every_text_is_in_one_place_as_it_is(lengths, devices, tokens, seed):
    rng = np.random.default_rng(seed)
    asked = queries(lengths)
    masked = np.sort(rng.choice(len(asked.tokens), min(5, len(asked.tokens)), replace=False))
    asked = queries(lengths, masked, np.searchsorted(asked.examples.a[:, 1], masked, side="right"))
    texts: list[list[int]] = [[] for _ in lengths]
    masks = []
    for packed in packed_batches(asked, Special(), BatchShapes(devices, tokens)):
        fields = packed.fields
        rows, length = fields["tokens"].shape
        assert rows in (devices, devices * max(1, tokens // length)) and length.bit_count() == 1
        for example, row, slot in zip(*packed.examples, strict=True):
            inside = np.flatnonzero(fields["example_ids"][row] == slot + 1)
            assert not texts[example]
            texts[example] = fields["tokens"][row, inside].tolist()
            assert inside[0] == fields["cls_positions"][row, slot]
            np.testing.assert_array_equal(fields["positions"][row, inside], range(len(inside)))
            np.testing.assert_array_equal(np.diff(inside), 1)
        assert (fields["example_ids"] > 0).sum() == sum(lengths[example] for example in packed.examples.indices)
        assert (fields["tokens"][fields["example_ids"] == 0] == 7).all()
        assert (fields["tokens"][packed.masked.rows, packed.masked.columns] == 3).all()
        masks += packed.masked.indices.tolist()
    assert sorted(masks) == list(range(len(masked)))
    text = np.where(np.isin(np.arange(len(asked.tokens)), masked), 3, asked.tokens)
    assert texts == [[1, *text[begin:end].tolist(), 2] for begin, end in asked.examples.a]


@pytest.mark.parametrize(("shapes", "most"), [(CPU, 0.05), (BatchShapes(2, 2048), 0.05), (ACCELERATOR, 0.1)])
def test_little_of_a_batch_is_padding(shapes, most):
    assert padding(real_lengths(2048), shapes) < most
    assert padding(np.clip(real_lengths(2048) // 4, 3, 512), shapes) < 2 * most


@pytest.mark.parametrize("length", [33, 65, 70, 129, 140])
def test_texts_just_too_long_for_half_a_row_share_longer_rows(length):
    assert padding([length] * 500, CPU) < 0.25


def test_small_calls_are_small_batches():
    assert shapes_of([10], CPU) == [(1, 16, 2)]
    assert shapes_of([10], BatchShapes(2, 2048)) == [(2, 16, 2)]
    assert shapes_of([10, 9, 8], CPU) == [(1, 32, 5)]
    assert shapes_of([400, 30, 30, 20], ACCELERATOR) == [(1, 512, 64)]
    assert shapes_of([300] * 3, CPU) == [(1, 512, 64)] * 3
    assert shapes_of([10] * 96, CPU) == [(1, 128, 21)] * 8


def test_any_lengths_and_numbers_of_texts_need_few_shapes():
    rng = np.random.default_rng(0)
    for shapes in (CPU, ACCELERATOR):
        found = set()
        for count in [1] * 60 + [2, 3, 5, 10, 30, 100, 300, 1000, 2000] * 3:
            longest = rng.integers(4, 513)
            found.update(shapes_of(rng.integers(3, longest, count), shapes))
        assert 6 <= len(found) <= 9


def test_the_empty_rows_of_a_batch_of_long_texts_hold_shorter_ones():
    # Nine rows are more than are computed one by one, and the other 23 of a full batch have room for all short texts.
    assert shapes_of([500] * 9 + [100] * 100, ACCELERATOR) == [(32, 512, 64)]
    assert {length for _, length, _ in shapes_of([500] * 8 + [64] * 2000, ACCELERATOR)} == {512, 128}


def test_copies_cover_every_counted_token_once_in_bounded_groups():
    lengths = real_lengths(30)
    asked = queries(lengths)
    uncounted = asked.tokens[[4, 50]].tolist()
    masked = []
    for texts, copies in mask_one_by_one(asked, uncounted, 4000):
        assert copies.examples.lengths.sum() < 4000 + lengths.max()
        np.testing.assert_array_equal(copies.examples.a, asked.examples.a[texts])
        assert ((copies.masked >= copies.examples.a[:, 0]) & (copies.masked < copies.examples.a[:, 1])).all()
        np.testing.assert_array_equal(copies.owners, np.arange(len(texts)))
        masked += copies.masked.tolist()
    assert sorted(masked) == [i for i in range(len(asked.tokens)) if i not in (4, 50)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["很好的服务 a b c"], VocabularyConfig(size=50, min_frequency=1), show_progress=False)


def test_pairs_are_cut_as_in_training(tokenizer):
    pairs = [("很" * a, "好" * b) for a in (1, 20, 22, 23, 24, 50) for b in (1, 20, 22, 23, 24, 50)]
    a, b = (list(texts) for texts in zip(*pairs, strict=True))
    trained = encode_examples(LabelledExamples(a, b, np.zeros(36, np.int32), np.arange(36)), tokenizer, 48)
    asked = encode_queries(a, b, tokenizer, 48)
    assert asked.truncated == trained.truncated == sum(len(a) + len(b) > 45 for a, b in pairs)
    for mine, theirs in ((asked.examples.a, trained.examples.a), (asked.examples.b, trained.examples.b)):
        np.testing.assert_array_equal(np.diff(mine), np.diff(theirs))


def test_texts_are_cut_around_their_masks(tokenizer):
    texts = ["很" * 9 + "[MASK]", "[MASK]" + "很" * 9, "很" * 5 + "[MASK]好[MASK]" + "很" * 5, "很[MASK]"]
    asked = encode_queries(texts, None, tokenizer, 7, masked=True)
    kept = [tokenizer.decode(asked.tokens[begin:end]).replace(" ", "") for begin, end in asked.examples.a]
    assert kept == ["很很很很[MASK]", "[MASK]很很很很", "很[MASK]好[MASK]很", "很[MASK]"]
    assert asked.truncated == 3
    assert asked.owners.tolist() == [0, 1, 2, 2, 3]
    assert (asked.tokens[asked.masked] == tokenizer.mask_id).all()


def test_the_second_text_of_a_pair_is_told_from_the_first(tokenizer):
    for second, problem in ((" ", "is empty"), (3, "is not a string but int")):
        with pytest.raises(TextError, match=rf"^Text 1 .* is paired with another text that {problem}") as error:
            encode_queries(["很", "好", "很"], ["很", second, "很"], tokenizer, 7)
        assert [*error.value.problems] == [1]
    with pytest.raises(TextError, match=r"^Text 1 \(counted from 0\) is empty"):
        encode_queries(["很", " "], ["很", " "], tokenizer, 7)


@pytest.mark.parametrize(
    ("texts", "masked", "index", "problem"),
    [
        (["很", " \u200b"], False, 1, "is empty"),
        (["很", "好", 3], False, 2, "not a string but int"),
        (["很[MASK]", "很"], True, 1, r"no \[MASK\]"),
        (["[MASK]", "[MASK]很很很很[MASK]"], True, 1, "too far apart for the model's 7 positions"),
    ],
)
def test_what_is_no_query_is_told_with_its_number(tokenizer, texts, masked, index, problem):
    with pytest.raises(TextError, match=problem) as error:
        encode_queries(texts, None, tokenizer, 7, masked)
    assert error.value.index == index
