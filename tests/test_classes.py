"""Labels in two spellings, draws that keep every class, and what is said of classes without examples."""

import time

import numpy as np
import pytest

from bert_jax.errors import InputError
from bert_jax.tasks.classification.labels import class_names, keep_every_class, remarks
from bert_jax.tasks.classification.linear import linear_accuracy
from bert_jax.tasks.classification.objective import balanced, measure


def names(*labels: str) -> tuple[str, ...]:
    return class_names(labels, range(2, 2 + len(labels)), "a.tsv")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("0", "-0.0"),
        ("1", "01"),
        ("0.5", ".5"),
        ("1000", "1e3"),
        ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
        ("good", "\ufeffgood"),  # the byte order mark of a file that was joined
        ("good", "go\u200bod"),  # a space of no width
        ("very good", "very  good"),
        ("very good", "very\u00a0good"),
    ],
)
def test_a_label_in_two_spellings_is_refused(one: str, other: str) -> None:
    with pytest.raises(InputError) as error:
        names("x", one, one, other)
    message = str(error.value)
    assert f"{one!a} in line 3 and {other!a} in line 5" in message and "finetune.task.labels" in message


def test_labels_that_are_two_classes() -> None:
    different = ["1", "2", "10", "12345678901234567890", "12345678901234567891", "1.5", "v1", "v1.0", "nan", "NaN", "inf", "good", "Good"]
    different += ["\u65e5\u672c", "\u65e5", "\u4e00", "2\u00b2", "22", "1_0", "\u0661"]
    assert names(*different, *different) == tuple(sorted(different))


def test_a_draw_with_every_class_stays() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60).astype(np.int32)
    order = rng.permutation(60)
    kept, rest = keep_every_class(order[:30], order[30:], labels)
    assert kept.tolist() == order[:30].tolist() and rest.tolist() == order[30:].tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 7, 20, 40, 159])
def test_a_draw_keeps_as_many_classes_as_it_can(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.zeros(100, np.int32), np.arange(20, dtype=np.int32).repeat(3)])
    order = rng.permutation(160)
    kept, rest = keep_every_class(order[:count], order[count:], labels)
    assert sorted([*kept, *rest]) == list(range(160)) and len(kept) == count
    assert len(set(labels[kept])) == min(count, 20)
    moved = np.flatnonzero(kept != order[:count])
    assert len(moved) == len(set(labels[kept])) - len(set(labels[order[:count]])), "no more than is needed"


def test_a_repair_costs_no_more_than_a_look_at_every_example() -> None:
    labels = np.concatenate([np.arange(200_000), np.zeros(200_000, np.int64)]).astype(np.int32)
    began = time.monotonic()
    kept, _ = keep_every_class(np.arange(200_000, 400_000), np.arange(200_000), labels)
    assert len(set(labels[kept])) == 200_000 and time.monotonic() - began < 20


def test_remarks() -> None:
    counts = {"train": np.array([3, 0, 2]), "test": np.array([1, 1, 0])}
    assert remarks("abc", counts) == (
        "1 of the 3 classes has no training example, so the classifier cannot learn to predict them: 'b'.",
        "1 of the 3 classes has no test example, so the scores say nothing about them: 'c'.",
    )
    full = np.full(3, 9)
    assert remarks("abc", {"train": full, "test": full}) == ()
    assert remarks(("No", "no", "yes"), {"train": full, "test": full}) == (
        "the labels 'No', 'no' differ only in case but are treated as different classes.",
    )
    many = [f"class {i}" for i in range(1500)]
    (message, _) = remarks(many, dict.fromkeys(("train", "test"), np.zeros(1500, np.int64)))
    assert "1,500 of the 1,500 classes have" in message and message.endswith("'class 19' and 1,480 more.") and len(message) < 500


def test_a_column_of_texts_or_numbers_is_no_column_of_classes() -> None:
    """scikit-learn warns at the same share."""
    told = "training examples have {} labels; finetune.task.label may name a column that does not contain classes."
    for classes, wanted in ((30, [f"30 {told.format(30)}"]), (16, [f"30 {told.format(16)}"]), (15, [])):
        counts = np.bincount(np.arange(30) % classes)
        assert list(remarks([str(i) for i in range(classes)], {"train": counts, "test": counts})) == wanted


@pytest.mark.parametrize(("weights", "smoothing"), [((), 0.0), ((0.5, 2.0, 1.0), 0.0), ((), 0.2), ((0.5, 2.0, 1.0), 0.1)])
def test_the_loss_is_that_of_torch(weights: tuple[float, ...], smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.integers(0, 3, (2, 4)).astype(np.int32)
    present = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], np.float32)
    found = measure(scores, {"labels": labels, "example_weights": present}, weights, smoothing)
    kept = present > 0
    loss = torch.nn.CrossEntropyLoss(torch.tensor(weights) if weights else None, label_smoothing=smoothing, reduction="sum")
    expected = loss(torch.tensor(scores[kept]), torch.tensor(labels[kept]).long())
    assert float(found["loss"].total) == pytest.approx(float(expected), rel=1e-6)
    assert float(found["loss"].count) == kept.sum()
    assert float(found["accuracy"].total) == (scores[kept].argmax(-1) == labels[kept]).sum()


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    weights = pytest.importorskip("sklearn.utils.class_weight")
    classes = np.array([0] * 7 + [1] * 2 + [3], np.int32)
    expected = weights.compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=classes)
    found = balanced(classes, 4)
    np.testing.assert_allclose([found[0], found[1], found[3]], expected)
    assert found[2] == 1 and np.mean([found[kind] for kind in classes]) == pytest.approx(1)


def test_a_linear_model_of_one_class_predicts_it() -> None:
    one, test = np.ones(4, np.int32), np.array([0, 1, 1, 1], np.int32)
    assert linear_accuracy(np.eye(4), one, np.eye(4), test) == 0.75
