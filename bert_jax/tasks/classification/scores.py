"""The test scores of a classifier: accuracy, macro F1, the scores of each class, and confusions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FEW_CLASSES = 40
"""With more classes than this, only the largest confusions and the most probable classes of each text are kept."""
KEPT_CLASSES = 10
_MAX_CONFUSIONS = 50
_MAX_SCORED = 1000
"""Classes whose own scores are kept."""


def score_classes(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Compute the scores of a classifier with scikit-learn, as JSON values.

    Args:
        labels: int32 [n], the true classes.
        predicted: int32 [n], the predicted classes.
        names: the names of all C classes.

    Returns:
        `accuracy`; `macro_f1`, the mean over the classes that occur in `labels` or `predicted`; `labels`, the names; `classes`, the result
        of `class_scores`; and either `confusion` [C, C], whose rows are the true classes, or, with more than 40 classes, the result of
        `largest_confusions`.
    """
    # Importing it takes a second, and most commands compute no scores.
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    scores: dict[str, Any] = {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "labels": list(names),
        "classes": class_scores(labels, predicted, names),
    }
    if len(names) > FEW_CLASSES:
        return scores | {"largest_confusions": largest_confusions(labels, predicted, names)}
    return scores | {"confusion": confusion_matrix(labels, predicted, labels=np.arange(len(names))).tolist()}


def class_scores(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the `class`, `precision`, `recall`, `f1` and number of true `examples` of each class that occurs in either array.

    Of more than 1000 classes, those with the most examples are kept. They are in class order.
    """
    from sklearn.metrics import precision_recall_fscore_support

    counts = np.bincount(labels, minlength=len(names))
    found = np.union1d(labels, predicted)
    found = np.sort(found[np.argsort(-counts[found], kind="stable")][:_MAX_SCORED])
    each = precision_recall_fscore_support(labels, predicted, labels=found, average=None, zero_division=0)
    rows = zip(found.tolist(), *(values.tolist() for values in each), strict=True)
    return [
        {"class": names[kind], "precision": precision, "recall": recall, "f1": f1, "examples": count}
        for kind, precision, recall, f1, count in rows
    ]


def largest_confusions(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true class and a different predicted class: at most 50, largest count first.

    Each has `label`, `predicted`, their `count`, and `of`, the number of examples of the true class. Memory and time grow with the
    number of examples, not with the number of pairs of classes.
    """
    examples = np.bincount(labels, minlength=len(names))
    wrong = labels != predicted
    pairs, counts = np.unique(labels[wrong].astype(np.int64) * len(names) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MAX_CONFUSIONS]
    return [
        {"label": names[true], "predicted": names[other], "count": count, "of": int(examples[true])}
        for (true, other), count in zip((divmod(pair, len(names)) for pair in pairs[order].tolist()), counts[order].tolist(), strict=True)
    ]


def confusions_of_matrix(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the largest confusions of a complete confusion matrix [C, C]."""
    confusion = np.array(matrix, np.int64)
    labels, predicted = np.nonzero(confusion)
    counts = confusion[labels, predicted]
    return largest_confusions(np.repeat(labels, counts), np.repeat(predicted, counts), names)


def top_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return the classes to keep for each text, given probabilities float32 [n, C].

    Returns:
        int [n, C], all classes in order, or, with more than 40 classes, int [n, 10], the most probable first.
    """
    classes = probabilities.shape[-1]
    if classes > FEW_CLASSES:
        return np.argsort(-probabilities, axis=-1, kind="stable")[:, :KEPT_CLASSES]
    return np.broadcast_to(np.arange(classes), probabilities.shape)


class ClassScorer:
    """Compares predicted with true classes. If there are many classes, only the most probable ones of each example are kept.

    Args:
        labels: int32 [n], the true classes.
        names: the names of all C classes.
    """

    def __init__(self, labels: np.ndarray, names: Sequence[str]) -> None:
        self._labels, self._names = labels, names
        kept = KEPT_CLASSES if len(names) > FEW_CLASSES else len(names)
        self._classes, self._probabilities = np.zeros((len(labels), kept), np.int32), np.zeros((len(labels), kept), np.float32)

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Add the class probabilities `found`, float32 [k, C], of the examples with indices `examples`, int64 [k]."""
        self._classes[examples] = top_classes(found)
        self._probabilities[examples] = np.take_along_axis(found, self._classes[examples], -1)

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each example, int32 [n]."""
        return np.take_along_axis(self._classes, self._probabilities.argmax(-1, keepdims=True), -1)[:, 0]

    def result(self) -> dict[str, Any]:
        """Return the scores; see `score_classes`."""
        return score_classes(self._labels, self.predicted, self._names)

    def line(self, example: int) -> dict[str, Any]:
        """Return the true class, the predicted class and the probabilities of the kept classes of an example."""
        shares = zip(self._classes[example].tolist(), self._probabilities[example].tolist(), strict=True)
        best = self._classes[example, self._probabilities[example].argmax()]
        return {
            "label": self._names[self._labels[example]],
            "predicted": self._names[best],
            "probabilities": {self._names[kind]: round(share, 6) for kind, share in shares},
        }
