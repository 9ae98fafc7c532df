"""The best spans of windows, compared with a search over all pairs of tokens."""

import time

import numpy as np
import pytest

from bert_jax.tasks.answering.spans import best_spans


def random_windows(seed: int, windows_per_question: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of the tokens of windows and of their [CLS], the number of tokens of each window, and its question."""
    rng = np.random.default_rng(seed)
    questions = np.repeat(np.arange(len(windows_per_question)), windows_per_question)
    sizes = rng.integers(1, 30, len(questions))
    tokens, cls = (rng.normal(0, 3, (count, 2)).astype(np.float32) for count in (sizes.sum(), len(sizes)))
    return np.concatenate([tokens, np.repeat(cls, sizes, 0)], 1), sizes, questions


@pytest.mark.parametrize("max_tokens", [1, 4, 100])
def test_one_window_gives_what_the_pipeline_of_transformers_gives(max_tokens: int) -> None:
    logits, sizes, questions = random_windows(0, [1] * 40)
    found = best_spans(logits, sizes, questions, max_tokens)
    ends = np.cumsum(sizes)
    for question, (begin, end) in enumerate(zip(ends - sizes, ends, strict=True)):
        # decode_spans of transformers 4.57: the outer product of both distributions, within a band, without [CLS].
        start, stop = (np.exp(one) / np.exp(one).sum() for one in np.concatenate([logits[begin, None, 2:], logits[begin:end, :2]]).T)
        candidates = np.tril(np.triu(np.outer(start, stop)), max_tokens - 1)[1:, 1:]
        first, last = np.unravel_index(candidates.argmax(), candidates.shape)
        assert (found.first[question], found.last[question]) == (begin + first, begin + last)
        assert found.probabilities[question] == pytest.approx(candidates.max(), rel=1e-5)
        assert found.none_probabilities[question] == pytest.approx(start[0] * stop[0], rel=1e-5)


def test_the_best_of_all_windows_is_chosen_and_the_lowest_score_of_no_answer() -> None:
    logits, sizes, questions = random_windows(1, [3, 1, 5, 2])
    found = best_spans(logits, sizes, questions, 6)
    windows = np.repeat(np.arange(len(sizes)), sizes)
    for question in range(4):
        own = np.flatnonzero(questions[windows] == question)
        spans = {
            (first, last): logits[first, 0] + logits[last, 1]
            for first in own
            for last in range(first, min(first + 6, len(windows)))
            if windows[first] == windows[last]
        }
        best = max(spans, key=lambda span: spans[span])
        assert (found.first[question], found.last[question]) == best
        assert found.none_margins[question] == pytest.approx(logits[own, 2:].sum(1).min() - spans[best])


def test_equal_spans_give_the_first_and_shortest() -> None:
    found = best_spans(np.zeros((6, 4), np.float32), np.array([3, 3]), np.array([0, 0]), 3)
    assert (found.first, found.last) == (0, 0)


def test_logits_of_any_size_give_probabilities() -> None:
    logits = np.array([[1e4, 1e4, -1e4, -1e4]] * 2, np.float32)
    found = best_spans(logits, np.array([2]), np.array([0]), 3)
    assert (found.probabilities, found.none_probabilities) == (pytest.approx(0.25), 0)


def test_a_limit_beyond_the_windows_costs_nothing() -> None:
    sizes, rng = np.full(40_000, 5), np.random.default_rng(0)
    logits = rng.normal(0, 3, (sizes.sum(), 4)).astype(np.float32)
    start = time.perf_counter()
    for one, other in zip(*(best_spans(logits, sizes, np.arange(len(sizes)), most) for most in (5, 10**9)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert time.perf_counter() - start < 15  # several minutes, were spans of every length tried
