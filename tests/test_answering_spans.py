"""The best spans of windows, compared with a search over all pairs of tokens."""

import numpy as np
import pytest

from bert_jax.tasks.answering.spans import WindowLogits, best_spans


def random_windows(seed: int, windows_per_question: list[int]) -> WindowLogits:
    rng = np.random.default_rng(seed)
    questions = np.repeat(np.arange(len(windows_per_question)), windows_per_question)
    sizes = rng.integers(0, 30, len(questions))
    tokens, cls = (rng.normal(0, 3, (count, 2)).astype(np.float32) for count in (sizes.sum(), len(sizes)))
    return WindowLogits(tokens, sizes, cls, questions)


@pytest.mark.parametrize("max_tokens", [1, 4, 100])
def test_one_window_gives_what_the_pipeline_of_transformers_gives(max_tokens: int) -> None:
    logits = random_windows(0, [1] * 40)
    found = best_spans(logits, max_tokens)
    ends = np.cumsum(logits.sizes)
    for question, (begin, end) in enumerate(zip(ends - logits.sizes, ends, strict=True)):
        # decode_spans of transformers 4.57: the outer product of both distributions, within a band, without [CLS].
        start, stop = (
            np.exp(one) / np.exp(one).sum() for one in np.concatenate([logits.cls[question, None], logits.tokens[begin:end]]).T
        )
        assert found.none_probabilities[question] == pytest.approx(start[0] * stop[0], rel=1e-5)
        assert found.none_scores[question] == pytest.approx(logits.cls[question].sum())
        if begin == end:
            assert (found.first[question], found.last[question], found.scores[question]) == (-1, -1, -np.inf)
            assert found.probabilities[question] == 0
            continue
        candidates = np.tril(np.triu(np.outer(start, stop)), max_tokens - 1)[1:, 1:]
        first, last = np.unravel_index(candidates.argmax(), candidates.shape)
        assert (found.first[question], found.last[question]) == (begin + first, begin + last)
        assert found.probabilities[question] == pytest.approx(candidates.max(), rel=1e-5)


def test_the_best_of_all_windows_is_chosen_and_the_lowest_score_of_no_answer() -> None:
    logits = random_windows(1, [3, 1, 5, 2])
    found = best_spans(logits, 6)
    windows = np.repeat(np.arange(len(logits.sizes)), logits.sizes)
    for question in range(4):
        spans = {
            (first, last): logits.tokens[first, 0] + logits.tokens[last, 1]
            for first in np.flatnonzero(logits.questions[windows] == question)
            for last in range(first, min(first + 6, len(windows)))
            if windows[first] == windows[last]
        }
        best = max(spans, key=lambda span: spans[span])
        assert (found.first[question], found.last[question]) == best
        assert found.scores[question] == spans[best]
        assert found.none_scores[question] == logits.cls[logits.questions == question].sum(1).min()


def test_equal_spans_give_the_first_and_shortest() -> None:
    logits = WindowLogits(np.zeros((6, 2), np.float32), np.array([3, 3]), np.zeros((2, 2), np.float32), np.array([0, 0]))
    found = best_spans(logits, 3)
    assert (found.first, found.last) == (0, 0)


def test_logits_of_any_size_give_probabilities() -> None:
    logits = WindowLogits(np.full((2, 2), 1e4, np.float32), np.array([2]), np.full((1, 2), -1e4, np.float32), np.array([0]))
    found = best_spans(logits, 3)
    assert (found.probabilities, found.none_probabilities) == (pytest.approx(0.25), 0)


def test_passages_without_tokens_have_no_answer() -> None:
    logits = WindowLogits(np.zeros((0, 2), np.float32), np.zeros(2, int), np.ones((2, 2), np.float32), np.array([0, 1]))
    found = best_spans(logits, 3)
    assert (found.first.tolist(), found.probabilities.tolist(), found.none_probabilities.tolist()) == ([-1, -1], [0, 0], [1, 1])
