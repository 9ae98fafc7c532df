"""How right a classifier's answers are: accuracy, macro F1 and what it confuses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FEW_CLASSES = 40
"""With more classes than these, the largest confusions stand for the whole matrix, and the most probable classes of a text for all."""
KEPT_CLASSES = 10
_CONFUSIONS = 50


def score_classes(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """The figures of a classifier, as JSON values, by scikit-learn.

    Args:
        labels: int32 [n], the true classes.
        predicted: int32 [n], the classes that were predicted.
        names: those of all C classes.

    Returns:
        `accuracy`; `macro_f1`, the mean over the classes that occur in `labels` or `predicted`; `labels`, the names; and `confusion`
        [C, C], whose rows are the true classes, or with more than 40 classes `largest_confusions`, see `largest_confusions`.
    """
    # It takes a second to import, and most commands score nothing.
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    figures: dict[str, Any] = {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "labels": list(names),
    }
    if len(names) > FEW_CLASSES:
        return figures | {"largest_confusions": largest_confusions(labels, predicted, names)}
    return figures | {"confusion": confusion_matrix(labels, predicted, labels=np.arange(len(names))).tolist()}


def largest_confusions(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of a class and another that was predicted for most of its examples, 50 at most, the largest first.

    Each has `label` and `predicted`, their `count`, and `of`, the examples of the class. Memory and time grow with the examples, not
    with the pairs of classes.
    """
    examples = np.bincount(labels, minlength=len(names))
    wrong = labels != predicted
    pairs, counts = np.unique(labels[wrong].astype(np.int64) * len(names) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_CONFUSIONS]
    return [
        {"label": names[true], "predicted": names[found], "count": count, "of": int(examples[true])}
        for (true, found), count in zip((divmod(pair, len(names)) for pair in pairs[order].tolist()), counts[order].tolist(), strict=True)
    ]


def confusions_of_matrix(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The same of a whole matrix [C, C]."""
    confusion = np.array(matrix, np.int64)
    labels, predicted = np.nonzero(confusion)
    counts = confusion[labels, predicted]
    return largest_confusions(np.repeat(labels, counts), np.repeat(predicted, counts), names)


def top_classes(probabilities: np.ndarray) -> np.ndarray:
    """The classes of each text whose probabilities are worth keeping, of float32 [n, C]: int [n, C], all of them in their order, or with
    more than 40 classes int [n, 10], the most probable first."""
    classes = probabilities.shape[-1]
    if classes > FEW_CLASSES:
        return np.argsort(-probabilities, axis=-1, kind="stable")[:, :KEPT_CLASSES]
    return np.broadcast_to(np.arange(classes), probabilities.shape)


class ClassScorer:
    """Compares predicted with true classes; of many classes only the most probable of each example are kept.

    Args:
        labels: int32 [n], the true classes.
        names: those of all C classes.
    """

    def __init__(self, labels: np.ndarray, names: Sequence[str]) -> None:
        self._labels, self._names = labels, names
        kept = KEPT_CLASSES if len(names) > FEW_CLASSES else len(names)
        self._classes, self._probabilities = np.zeros((len(labels), kept), np.int32), np.zeros((len(labels), kept), np.float32)

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """The probabilities of the classes, float32 [k, C], of some examples, int64 [k]."""
        self._classes[examples] = top_classes(found)
        self._probabilities[examples] = np.take_along_axis(found, self._classes[examples], -1)

    @property
    def predicted(self) -> np.ndarray:
        """int32 [n]: the most probable class of each example."""
        return np.take_along_axis(self._classes, self._probabilities.argmax(-1, keepdims=True), -1)[:, 0]

    def result(self) -> dict[str, Any]:
        """See `score_classes`."""
        return score_classes(self._labels, self.predicted, self._names)

    def line(self, example: int) -> dict[str, Any]:
        """The true class, the predicted one, and the probability of every class, or of the most probable where there are many."""
        shares = zip(self._classes[example].tolist(), self._probabilities[example].tolist(), strict=True)
        best = self._classes[example, self._probabilities[example].argmax()]
        return {
            "label": self._names[self._labels[example]],
            "predicted": self._names[best],
            "probabilities": {self._names[kind]: round(share, 6) for kind, share in shares},
        }
