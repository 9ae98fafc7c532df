"""Examples out of documents: the tasks' statistics, and what no random draw may break."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.data.pairs import Examples, make_examples

LENGTH = 64


class Block(NamedTuple):
    sentence_starts: np.ndarray
    document_ends: np.ndarray

    @property
    def tokens(self) -> int:
        return int(self.document_ends[-1])

    def document(self, tokens: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.document_ends, tokens, side="right")


def block_of(documents: list[list[int]]) -> Block:
    """A block from the sentence lengths of its documents."""
    lengths = np.array([length for document in documents for length in document])
    return Block(np.cumsum(lengths) - lengths, np.cumsum([sum(document) for document in documents]))


def random_block(seed: int, documents: int = 40, sentences: int = 12, tokens: int = 11) -> Block:
    rng = np.random.default_rng(seed)
    return block_of([(2 + rng.poisson(tokens - 2, 2 + rng.geometric(1 / (sentences - 2)))).tolist() for _ in range(documents)])


def examples_of(block: Block, task: str, seed: int = 0, short: float = 0.1, length: int = LENGTH) -> Examples:
    return make_examples(*block, length, task, short, np.random.default_rng(seed))  # type: ignore[arg-type]


def used(examples: Examples, block: Block) -> np.ndarray:
    """How often each token of the block is used."""
    counts = np.zeros(block.tokens, int)
    for begin, end in np.concatenate([examples.a, examples.b]).tolist():
        counts[begin:end] += 1
    return counts


sentence_lengths = st.lists(st.lists(st.integers(1, 100), min_size=1, max_size=8), min_size=2, max_size=6)


@settings(max_examples=150, deadline=None)
@given(documents=sentence_lengths, task=st.sampled_from(["nsp", "sop", "none"]), length=st.integers(8, 80), short=st.sampled_from([0, 0.5]))
def test_every_example_keeps_the_rules(documents: list[list[int]], task: str, length: int, short: float) -> None:
    block = block_of(documents)
    examples = examples_of(block, task, short=short, length=length)
    a_size, b_size = (np.diff(segment)[:, 0] for segment in (examples.a, examples.b))
    assert (a_size > 0).all() and (b_size >= 0).all()
    assert (examples.lengths <= length).all()
    for segment, size in ((examples.a, a_size), (examples.b, b_size)):
        inside = segment[size > 0]
        np.testing.assert_array_equal(block.document(inside[:, 0]), block.document(inside[:, 1] - 1), "a segment crosses documents")
    pair = b_size > 0
    np.testing.assert_array_equal(examples.weights, pair)
    assert not examples.labels[~pair].any()
    true, false = examples.labels == 1, pair & (examples.labels == 0)
    np.testing.assert_array_equal(examples.a[true, 1], examples.b[true, 0], "a true B does not follow its A")
    assert np.isin(examples.b[true, 0], block.sentence_starts).all()
    if task == "nsp":
        assert (block.document(examples.a[false, 0]) != block.document(examples.b[false, 0])).all()
    if task == "sop":
        np.testing.assert_array_equal(examples.b[false, 1], examples.a[false, 0])
    if task == "none":
        assert not pair.any()
    if task != "nsp":
        np.testing.assert_array_equal(used(examples, block), 1, "not every token is used once")


def test_next_sentence_uses_nearly_every_token_once() -> None:
    block = random_block(0, documents=200)
    counts = used(examples_of(block, "nsp"), block)
    assert (counts == 1).mean() > 0.97


def test_half_of_the_pairs_are_true() -> None:
    for seed in range(10):
        examples = examples_of(random_block(seed), "nsp", seed)
        labels = examples.labels[examples.weights > 0]
        assert abs(2 * labels.sum() - len(labels)) <= 1
    lone_pair = block_of([[5, 5], [9]])
    labels = [examples_of(lone_pair, "nsp", seed).labels[0] for seed in range(300)]
    assert 0.4 < np.mean(labels) < 0.6


def test_sentence_order_swaps_half() -> None:
    examples = examples_of(random_block(1, documents=400), "sop")
    labels = examples.labels[examples.weights > 0]
    assert abs(labels.mean() - 0.5) < 3 * 0.5 / len(labels) ** 0.5


def test_lengths_and_places_do_not_give_the_label_away() -> None:
    """A linear look at the sizes of A and B must not tell true from false, nor may false Bs begin documents."""
    block = random_block(2, documents=1200, sentences=5)
    examples = examples_of(block, "nsp")
    pair = examples.weights > 0
    a_size, b_size = (np.diff(segment)[pair, 0] for segment in (examples.a, examples.b))
    true = examples.labels[pair] == 1
    assert len(true) > 1000
    for sizes in (a_size, b_size, a_size + b_size):
        error = sizes.std() * (1 / true.sum() + 1 / (~true).sum()) ** 0.5
        assert abs(sizes[true].mean() - sizes[~true].mean()) < 4 * error
    openings = np.concatenate([[0], block.document_ends[:-1]])
    assert np.isin(examples.b[pair, 0], openings).mean() < 0.01


def test_a_document_that_fills_the_block_does_not_tip_the_balance() -> None:
    block = block_of([[10] * 300, [8, 9, 10], [12, 7]])
    examples = examples_of(block, "nsp")
    pair = examples.weights > 0
    assert abs(2 * examples.labels.sum() - pair.sum()) <= 1
    false = pair & (examples.labels == 0)
    assert (block.document(examples.a[false, 0]) != block.document(examples.b[false, 0])).all()
    assert (used(examples, block) >= 1).mean() > 0.97


def test_a_single_sentence_is_one_segment_without_a_label() -> None:
    examples = examples_of(block_of([[20], [7], [30]]), "nsp")
    assert examples.a.tolist() == [[0, 20], [20, 27], [27, 57]]
    assert not examples.weights.any() and not examples.labels.any() and not np.diff(examples.b).any()


def test_few_sentences_are_left_without_a_partner() -> None:
    for sentences in (3, 5, 12):
        examples = examples_of(random_block(3, documents=300, sentences=sentences), "nsp", short=0.0)
        assert (examples.weights == 0).mean() < 0.03


def test_a_sentence_beyond_the_row_is_cut_and_wholly_used() -> None:
    block = block_of([[1000], [5, 6]])
    examples = examples_of(block, "sop")
    np.testing.assert_array_equal(used(examples, block), 1)
    assert (examples.lengths == LENGTH).sum() == 1000 // (LENGTH - 2)


@pytest.mark.parametrize("task", ["sop", "none"])
def test_the_share_of_short_examples(task: str) -> None:
    """In documents without an end in sight only the draw makes an example short."""
    block = block_of([[7] * 20_000, [7] * 20_000])
    assert (examples_of(block, task, short=0.0).lengths == LENGTH).mean() > 0.99
    # A target is drawn evenly from 2 to 61 or 62 tokens and reached with whole sentences; above 56 that fills the row.
    share = (examples_of(block, task, short=0.4).lengths < LENGTH).mean()
    assert abs(share - 0.4 * 55 / 60) < 0.02


def test_the_draws_decide_everything() -> None:
    block = random_block(5)
    first, again, other = (examples_of(block, "nsp", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.a, again.a)
    np.testing.assert_array_equal(first.b, again.b)
    assert first.b.shape != other.b.shape or (first.b != other.b).any()
