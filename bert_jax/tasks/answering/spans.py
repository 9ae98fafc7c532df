"""The best answers from the logits of the windows of passages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class WindowLogits(NamedTuple):
    """The start and end logits of w windows, which hold t tokens of passages.

    Attributes:
        tokens: float32 [t, 2], of the tokens of the passage in each window, one window after another.
        sizes: int64 [w], the number of these tokens in each window.
        cls: float32 [w, 2], of each window's [CLS].
        questions: int64 [w], the question of each window, from 0, in ascending order; each question has a window.
    """

    tokens: np.ndarray
    sizes: np.ndarray
    cls: np.ndarray
    questions: np.ndarray


class Spans(NamedTuple):
    """The best answers to q questions.

    Attributes:
        first, last: int64 [q], the first and last token of the answer, as indices into `WindowLogits.tokens`; -1 if the passage has no
            tokens.
        scores: float32 [q], the sum of the start logit of the first token and the end logit of the last one; -inf without an answer.
        none_scores: float32 [q], the sum of both logits of [CLS], the lowest among the windows.
        probabilities: float32 [q], the probability that the answer starts and ends at these tokens.
        none_probabilities: float32 [q], that it starts and ends at [CLS], the lowest among the windows.
    """

    first: np.ndarray
    last: np.ndarray
    scores: np.ndarray
    none_scores: np.ndarray
    probabilities: np.ndarray
    none_probabilities: np.ndarray


def best_spans(logits: WindowLogits, max_tokens: int) -> Spans:
    """Return the span with the highest score of each question, and how its score compares with that of no answer.

    Both are defined by Devlin et al. 2019, sections 4.2 and 4.3. Of equal spans, the first in the passage and then the shortest is chosen.
    Probabilities are relative to all tokens of a window's passage and [CLS], as in the `question-answering` pipeline of `transformers`.

    Args:
        logits: the logits of all windows.
        max_tokens: the maximum number of tokens in an answer.
    """
    import numpy as np

    windows = np.repeat(np.arange(len(logits.sizes)), logits.sizes)
    begins = np.flatnonzero(np.diff(logits.questions, prepend=-1))
    last, scores = _best_ends(logits.tokens, windows, max_tokens)
    # Every token is the start of some span, and the best of a question's starts is its answer.
    owners = logits.questions[windows]
    first, found = np.full(len(begins), -1), np.unique(owners)
    order = np.lexsort((-scores, owners))
    first[found] = order[np.searchsorted(owners[order], found)]
    answered = first >= 0
    chosen = np.where(answered, first, 0)
    shares, cls_shares = _shares(logits, windows)

    def of_answers(values: np.ndarray, otherwise: float) -> np.ndarray:
        return np.where(answered, values[chosen] if len(values) else 0, otherwise)

    return Spans(
        first,
        of_answers(last, -1),
        of_answers(scores, -np.inf),
        np.minimum.reduceat(logits.cls.sum(1), begins),
        of_answers(shares[:, 0], 0) * of_answers(shares[last, 1], 0),
        np.minimum.reduceat(cls_shares.prod(1), begins),
    )


def _best_ends(tokens: np.ndarray, windows: np.ndarray, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the last token of the best span from each token, int64 [t], and the span's score, float32 [t]."""
    import numpy as np

    starts, ends = tokens.T
    last, scores = np.arange(len(tokens)), starts + ends
    for length in range(1, min(max_tokens, len(tokens))):
        longer = np.where(windows[length:] == windows[:-length], starts[:-length] + ends[length:], -np.inf)
        better = np.flatnonzero(longer > scores[:-length])
        last[better], scores[better] = better + length, longer[better]
    return last, scores


def _shares(logits: WindowLogits, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the softmax over the tokens of a window and its [CLS]: float32 [t, 2] and [w, 2]."""
    import numpy as np

    highest = logits.cls.copy()
    np.maximum.at(highest, windows, logits.tokens)
    tokens, cls = np.exp(logits.tokens - highest[windows]), np.exp(logits.cls - highest)
    totals = cls.copy()
    np.add.at(totals, windows, tokens)
    return tokens / totals[windows], cls / totals
