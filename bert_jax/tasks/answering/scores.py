"""Compares the answers of a model with the true ones."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from bert_jax.data.labelled import Labelled, LabelledExamples
from bert_jax.tasks.answering.metrics import Matches, best_threshold, match, match_all, scoring_of
from bert_jax.tasks.answering.options import AnsweringOptions
from bert_jax.tasks.answering.passages import EncodedQuestions
from bert_jax.tasks.answering.questions import MAX_ANSWER_TOKENS, THRESHOLD, Answer, answers
from bert_jax.tasks.answering.spans import Spans, best_spans


class AnswerScorer:
    """Scores answers by exact match and F1. If some training questions have no answer, a threshold for no answer is tuned on dev.

    Args:
        labelled: the questions.
        options: how they are scored.
    """

    def __init__(self, labelled: Labelled, options: AnsweringOptions) -> None:
        self._labelled, self._longest = labelled, options.max_answer_tokens
        self._scoring = scoring_of(labelled.test.pairs or ()) if options.scoring == "auto" else options.scoring
        self._threshold: float | None = None

    def read(self, dev: EncodedQuestions, test: EncodedQuestions) -> None:
        """Take the tokens that predictions are about."""
        self._dev, self._test = dev, test
        self._logits = np.zeros((len(test.offsets), 4), np.float32)

    def tune(self, items: np.ndarray, found: np.ndarray) -> None:
        """Choose the threshold for no answer by the logits `found`, float32 [k, 4], of the tokens `items` of dev, int64 [k]."""
        if all(self._labelled.train.targets):
            return
        logits = np.zeros((len(self._dev.offsets), 4), np.float32)
        logits[items] = found
        best, found_answers = self._best(self._labelled.dev, self._dev, logits)
        self._threshold = best_threshold(self._matches(self._labelled.dev, found_answers), best.none_margins)

    def add(self, items: np.ndarray, found: np.ndarray) -> None:
        """Add the logits `found`, float32 [k, 4], of the tokens `items` of the test passages, int64 [k]."""
        self._logits[items] = found

    def _best(self, examples: LabelledExamples, encoded: EncodedQuestions, logits: np.ndarray) -> tuple[Spans, list[Answer]]:
        best = best_spans(logits, encoded.sizes, encoded.questions, self._longest)
        return best, answers(examples.pairs or [], best, encoded.offsets)

    def _matches(self, examples: LabelledExamples, found: Sequence[Answer]) -> Matches:
        true = [[answer.text for answer in own] for own in examples.targets]
        return match_all([answer.text for answer in found], true, self._scoring)

    @cached_property
    def _of_test(self) -> tuple[Spans, list[Answer]]:
        return self._best(self._labelled.test, self._test, self._logits)

    def result(self) -> dict[str, Any]:
        """Return exact match and F1, also of questions with and without answers if there are both, and how the model gives answers."""
        best, found = self._of_test
        matches = self._matches(self._labelled.test, found)
        scores: dict[str, Any] = matches.at(best.none_margins, self._threshold)
        scores |= {"scoring": self._scoring, MAX_ANSWER_TOKENS: self._longest, "answerable_test_examples": int(matches.answerable.sum())}
        return scores if self._threshold is None else scores | {THRESHOLD: self._threshold}

    def line(self, example: int) -> dict[str, Any]:
        """Return the true answers to a question, the model's with its probability (`predicted` is None for none), and how they match."""
        best, found = self._of_test
        true, own = [answer.text for answer in self._labelled.test.targets[example]], found[example]
        given: dict[str, Any] = {"predicted": None}
        if self._threshold is None or best.none_margins[example] <= self._threshold:
            given = {"predicted": own.text, "start": own.start, "end": own.end, "probability": round(own.probability, 6)}
        exact, f1 = match(given["predicted"] or "", true, self._scoring)
        return {"answers": true, **given, "exact_match": exact, "f1": round(f1, 6)}
