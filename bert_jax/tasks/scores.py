"""How right a classifier's answers are: accuracy, macro F1 and what it confuses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FEW_CLASSES = 40
"""With more classes than these, the largest confusions stand for the whole matrix, and the likeliest classes of a text for all."""
LIKELIEST = 10
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


def confusions_of_matrix(confusion: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The same of a whole matrix, int64 [C, C]."""
    labels, predicted = np.nonzero(confusion)
    counts = confusion[labels, predicted]
    return largest_confusions(np.repeat(labels, counts), np.repeat(predicted, counts), names)


def likeliest_classes(probabilities: np.ndarray) -> np.ndarray:
    """The classes of each text whose probabilities are worth keeping, of float32 [n, C]: int [n, C], all of them in their order, or with
    more than 40 classes int [n, 10], the likeliest first."""
    classes = probabilities.shape[-1]
    if classes > FEW_CLASSES:
        return np.argsort(-probabilities, axis=-1, kind="stable")[:, :LIKELIEST]
    return np.broadcast_to(np.arange(classes), probabilities.shape)
