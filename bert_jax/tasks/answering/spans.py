"""The best answers from the logits of the windows of passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class Spans(NamedTuple):
    """The best answers to q questions.

    Attributes:
        first, last: int64 [q], the first and the last token of the answer, among the tokens of all windows.
        probabilities: float32 [q], the probability that the answer starts and ends there.
        none_margins: float32 [q], by how much the score of no answer exceeds that of the answer; it is compared with a threshold.
        none_probabilities: float32 [q], the probability of no answer.
    """

    first: np.ndarray
    last: np.ndarray
    probabilities: np.ndarray
    none_margins: np.ndarray
    none_probabilities: np.ndarray


def best_spans(logits: np.ndarray, sizes: np.ndarray, questions: np.ndarray, max_tokens: int) -> Spans:
    """Return the span with the highest score for each question, and how its score compares with that of no answer.

    The score of a span is the sum of the start logit of its first token and the end logit of its last one (Devlin et al. 2019, section
    4.2), the higher one if two windows hold it. That of no answer is the sum for [CLS] (section 4.3), the lowest among the windows. Of
    equal spans, the first in the passage is chosen, and then the shortest. Probabilities are relative to all tokens of the passage in the
    window and [CLS], as in the `question-answering` pipeline of `transformers`.

    Args:
        logits: float32 [t, 4], for each token of a passage in a window its start and end logit, and those of the window's [CLS]. The tokens
            of a window follow each other.
        sizes: int64 [w], the number of these tokens in each window, at least 1.
        questions: int64 [w], the question of each window, from 0, in ascending order. Each question has a window.
        max_tokens: the maximum number of tokens in an answer.
    """
    import numpy as np

    windows = np.repeat(np.arange(len(sizes)), sizes)
    last, scores = _best_ends(logits[:, :2], windows, min(max_tokens, int(sizes.max())))
    # Every token is the start of some span, and the best of a question's starts is its answer.
    owners = questions[windows]
    order = np.lexsort((-scores, owners))
    begins = np.flatnonzero(np.diff(questions, prepend=-1))
    first = order[np.searchsorted(owners[order], questions[begins])]
    cls = logits[np.cumsum(sizes) - sizes, 2:]
    shares, cls_shares = _shares(logits[:, :2], cls, windows)
    return Spans(
        first,
        last[first],
        shares[first, 0] * shares[last[first], 1],
        np.minimum.reduceat(cls.sum(1), begins) - scores[first],
        np.minimum.reduceat(cls_shares.prod(1), begins),
    )


def _best_ends(logits: np.ndarray, windows: np.ndarray, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the last token of the best span that starts at each token, int64 [t], and the span's score, float32 [t]."""
    import numpy as np

    starts, ends = logits.T
    last, scores = np.arange(len(logits)), starts + ends
    for more in range(1, max_tokens):
        longer = np.where(windows[more:] == windows[:-more], starts[:-more] + ends[more:], -np.inf)
        better = np.flatnonzero(longer > scores[:-more])
        last[better], scores[better] = better + more, longer[better]
    return last, scores


def _shares(logits: np.ndarray, cls: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the softmax over the tokens of a window and its [CLS]: float32 [t, 2] and [w, 2]."""
    import numpy as np

    begins = np.flatnonzero(np.diff(windows, prepend=-1))
    highest = np.maximum(np.maximum.reduceat(logits, begins), cls)
    shares, cls_shares = np.exp(logits - highest[windows]), np.exp(cls - highest)
    totals = np.add.reduceat(shares, begins) + cls_shares
    return shares / totals[windows], cls_shares / totals
