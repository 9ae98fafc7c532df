"""The figures of a classifier: by hand, beside scikit-learn, and with very many classes."""

import json

import numpy as np
import pytest

from bert_jax.tasks.classification.scores import FEW_CLASSES, KEPT_CLASSES, confusions_of_matrix, score_classes, top_classes


def classes(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("labels", "predicted", "accuracy", "macro_f1", "confusion"),
    [
        ([0, 0, 1], [0, 1, 1], 2 / 3, 2 / 3, [[1, 1, 0], [0, 1, 0], [0, 0, 0]]),  # class 2 nowhere: it counts neither for nor against
        ([0, 1, 1], [0, 1, 1], 1, 1, [[1, 0, 0], [0, 2, 0], [0, 0, 0]]),
        ([0, 0], [0, 2], 1 / 2, 1 / 3, [[1, 0, 1], [0, 0, 0], [0, 0, 0]]),  # class 2 is predicted though no text has it: F1 of 2/3 and 0
        ([0, 1, 2], [0, 1, 1], 2 / 3, 5 / 9, [[1, 0, 0], [0, 1, 0], [0, 1, 0]]),  # class 2 is never predicted: 1, 2/3 and 0
        ([2], [2], 1, 1, [[0, 0, 0], [0, 0, 0], [0, 0, 1]]),
    ],
)
def test_figures_by_hand(labels: list[int], predicted: list[int], accuracy: float, macro_f1: float, confusion: list[list[int]]) -> None:
    figures = score_classes(classes(*labels), classes(*predicted), "abc")
    assert figures["accuracy"] == pytest.approx(accuracy) and figures["macro_f1"] == pytest.approx(macro_f1)
    assert figures["confusion"] == confusion and figures["labels"] == ["a", "b", "c"] and "largest_confusions" not in figures


@pytest.mark.parametrize("count", [2, FEW_CLASSES, FEW_CLASSES + 1, 300])
def test_figures_beside_scikit_learn(count: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(count)
    labels, predicted = (rng.integers(0, count, 200).astype(np.int32) for _ in range(2))
    names = [f"class {i}" for i in range(count)]
    figures = json.loads(json.dumps(score_classes(labels, predicted, names)))
    report = metrics.classification_report(labels, predicted, output_dict=True, zero_division=0)
    assert figures["accuracy"] == pytest.approx(report["accuracy"])
    assert figures["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert [row["class"] for row in figures["classes"]] == [f"class {i}" for i in range(count) if str(i) in report]
    for row in figures["classes"]:
        expected = report[row["class"].removeprefix("class ")]
        found = [row[name] for name in ("precision", "recall", "f1", "examples")]
        assert found == pytest.approx([expected[name] for name in ("precision", "recall", "f1-score", "support")])
    whole = metrics.confusion_matrix(labels, predicted, labels=range(count))
    if count <= FEW_CLASSES:
        assert figures["confusion"] == whole.tolist()
    else:
        assert "confusion" not in figures and figures["largest_confusions"] == confusions_of_matrix(whole, names)
    wrong = whole * (1 - np.eye(count, dtype=np.int64))
    found = confusions_of_matrix(whole, names)
    assert [confusion["count"] for confusion in found] == sorted(wrong[wrong > 0].tolist(), reverse=True)[:50]
    for confusion in found:
        true, other = (names.index(confusion[key]) for key in ("label", "predicted"))
        assert whole[true, other] == confusion["count"] and whole[true].sum() == confusion["of"]


def test_a_hundred_thousand_classes() -> None:
    """Their matrix would take 80 GB."""
    labels = np.arange(100_000, dtype=np.int32)
    predicted = labels.copy()
    predicted[:3] = 99_999
    figures = score_classes(labels, predicted, [str(i) for i in labels])
    assert figures["accuracy"] == pytest.approx(0.99997)
    assert figures["largest_confusions"] == [{"label": str(i), "predicted": "99999", "count": 1, "of": 1} for i in range(3)]
    assert len(figures["classes"]) == 1000


def test_the_classes_worth_keeping() -> None:
    few = np.array([[0.1, 0.7, 0.2]], np.float32)
    assert top_classes(few).tolist() == [[0, 1, 2]]
    many = np.random.default_rng(0).dirichlet(np.ones(FEW_CLASSES + 1), 5).astype(np.float32)
    kept = top_classes(many)
    assert kept.shape == (5, KEPT_CLASSES) and (kept[:, 0] == many.argmax(-1)).all()
    assert [set(row) for row in kept] == [set(np.argpartition(-row, KEPT_CLASSES)[:KEPT_CLASSES]) for row in many]
    assert (np.diff(np.take_along_axis(many, kept, -1)) <= 0).all()
