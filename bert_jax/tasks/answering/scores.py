"""Compares the answers of a model with the true ones."""

from typing import Any

import numpy as np

from bert_jax.data.labelled import Labelled, LabelledExamples
from bert_jax.tasks.answering.metrics import Matches, best_threshold, match_all, scoring_of
from bert_jax.tasks.answering.options import AnsweringOptions
from bert_jax.tasks.answering.passages import EncodedQuestions
from bert_jax.tasks.answering.questions import MAX_ANSWER_TOKENS, THRESHOLD, answers
from bert_jax.tasks.answering.spans import best_spans

_START, _END, _PROBABILITY, _MARGIN, _EXACT, _F1, _ANSWERABLE = range(7)
"""What is known of each answer: its place in the passage, in characters, and its probability; by how much the score of no answer exceeds
its own; how well it matches; and whether there is an answer."""


def judged(
    options: AnsweringOptions, examples: LabelledExamples, encoded: EncodedQuestions, items: np.ndarray, found: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each question, int64 [n], and what is known of its best answer, float64 [n, 7].

    Args:
        options: how answers are chosen and compared.
        examples: n questions.
        encoded: their windows.
        items: int64 [k], the tokens that the logits are of; all of `encoded.items`.
        found: float32 [k, 4], see `best_spans`.
    """
    logits = np.zeros((len(encoded.offsets), 4), np.float32)
    logits[items] = found
    best = best_spans(logits, encoded.sizes, encoded.questions, options.max_answer_tokens)
    given = answers(examples.pairs or [], best, encoded.offsets)
    true = [[answer.text for answer in own] for own in examples.targets]
    matches = match_all([answer.text for answer in given], true, _scoring(options, examples))
    places = np.array([(answer.start, answer.end) for answer in given])
    rows = (*places.T, best.probabilities, best.none_margins, matches.exact, matches.f1, matches.answerable)
    return np.arange(len(given)), np.stack([np.asarray(row, np.float64) for row in rows], 1)


class AnswerScorer:
    """Scores answers by exact match and F1. If some training questions have no answer, a threshold for no answer is tuned on dev.

    Args:
        labelled: the questions.
        options: how they are scored.
    """

    def __init__(self, labelled: Labelled, options: AnsweringOptions) -> None:
        self._test, self._options = labelled.test, options
        self._learns_none = not all(labelled.train.targets)
        self._rows = np.zeros((len(self._test), 7))
        self._given = np.ones(len(self._test), np.bool_)
        self._threshold: float | None = None
        self._used: set[float | None] = set()

    def tune(self, targets: np.ndarray | None, found: np.ndarray) -> None:
        """Choose the threshold for no answer by what is known of the answers to dev questions, float64 [m, 7]."""
        del targets
        if self._learns_none:
            self._threshold = best_threshold(_matches(found), found[:, _MARGIN])

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Add what is known of the answers to the questions with indices `examples`, int64 [k]: float64 [k, 7]."""
        self._rows[examples] = found
        if self._threshold is not None:
            self._given[examples] = found[:, _MARGIN] <= self._threshold
        self._used.add(self._threshold)

    def result(self) -> dict[str, Any]:
        """Return exact match and F1, also of questions with and without answers if there are both, and how the model gives answers."""
        matches = _matches(self._rows)
        scores: dict[str, Any] = matches.of(self._given)
        scores |= {"scoring": _scoring(self._options, self._test), MAX_ANSWER_TOKENS: self._options.max_answer_tokens}
        scores["answerable_test_examples"] = int(matches.answerable.sum())
        return scores if self._threshold is None or len(self._used) > 1 else scores | {THRESHOLD: self._threshold}

    def line(self, example: int) -> dict[str, Any]:
        """Return the true answers to a question, the model's with its probability (`predicted` is None for none), and how they match."""
        row, given = self._rows[example], bool(self._given[example])
        line: dict[str, Any] = {"answers": [answer.text for answer in self._test.targets[example]], "predicted": None}
        if given:
            start, end = int(row[_START]), int(row[_END])
            predicted = (self._test.pairs or [])[example][start:end]
            line |= {"predicted": predicted, "start": start, "end": end, "probability": round(row[_PROBABILITY], 6)}
        exact, f1 = (row[column] if given else 1 - row[_ANSWERABLE] for column in (_EXACT, _F1))
        return line | {"exact_match": float(exact), "f1": round(float(f1), 6)}


def _matches(rows: np.ndarray) -> Matches:
    return Matches(rows[:, _EXACT], rows[:, _F1], rows[:, _ANSWERABLE] > 0)


def _scoring(options: AnsweringOptions, examples: LabelledExamples) -> str:
    return scoring_of(examples.pairs or ()) if options.scoring == "auto" else options.scoring
