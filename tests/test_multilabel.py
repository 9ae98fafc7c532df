"""Several labels per text: from files to answers, scores, the report, and transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import write_files

import bert_jax
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model
from bert_jax.data.labelled import LabelledExamples, Parsed
from bert_jax.errors import InputError
from bert_jax.stages.run import run
from bert_jax.tasks import configured
from bert_jax.tasks.multilabel import MULTILABEL, LabelSets, MultilabelOptions, best_threshold

MARKS = {"房": "room", "早餐": "breakfast", "不": "negated", "服务": "service"}


def labels_of(text: str) -> list[str]:
    return [label for mark, label in MARKS.items() if mark in text]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of what reviews mention, trained on a table with a list per text."""
    folder = tmp_path_factory.mktemp("multilabel")
    loop = "loop=LoopConfig(log_every=10, evaluate_every=40, save_every=40)"
    finetune = f"{loop}, from_scratch=True, optimizer=OptimizerConfig(learning_rate=5e-3)"
    config = write_files(folder, 100, 400, "steps=2", finetune)
    texts = [line.split("\t")[1][:30] for line in (folder / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    rows = [json.dumps({"text": text, "labels": labels_of(text)}, ensure_ascii=False) for text in dict.fromkeys(texts)]
    (folder / "mentions.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    overrides = ["pretrain=none", "finetune.task=multilabel", "finetune.task.unlabeled=keep", "finetune.task.pooling=cls"]
    overrides += [f"finetune.data.train={folder / 'mentions.jsonl'}", "finetune.data.dev_fraction=0.2", "finetune.epochs=8"]
    run(configured(str(config), overrides), folder / "run")
    return folder / "run"


def predictions(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_learns_and_its_scores_are_those_of_its_predictions(workdir: Path) -> None:
    summary = json.loads((workdir / "summary.json").read_text())["finetune"]
    lines = predictions(workdir)
    assert all(sorted(line["labels"]) == sorted(labels_of(line["text"])) for line in lines)
    hits = sum(len({*line["labels"]} & {*line["predicted"]}) for line in lines)
    total = sum(len(line["labels"]) + len(line["predicted"]) for line in lines)
    assert summary["micro_f1"] == pytest.approx(2 * hits / total)
    assert summary["micro_f1"] > 0.6, summary
    exact = np.mean([{*line["labels"]} == {*line["predicted"]} for line in lines])
    assert summary["subset_accuracy"] == pytest.approx(exact)
    assert all((line["probabilities"][label] >= summary["threshold"]) for line in lines for label in line["predicted"])
    report = (workdir / "report.html").read_text(encoding="utf-8")
    assert "F1 of each label" in report and "Labeled texts" in report and "Test micro F1" in report


def test_a_loaded_model_uses_the_tuned_threshold_or_the_given_one(workdir: Path) -> None:
    model = bert_jax.load(workdir / "finetune")
    lines = predictions(workdir)
    found = model.classify([line["text"] for line in lines])
    assert [{*one.labels} for one in found] == [{*line["predicted"]} for line in lines]
    assert all(list(one.labels) == sorted(one.labels, key=lambda label: -one.probabilities[label]) for one in found)
    one = model.classify(lines[0]["text"], threshold=0.0)
    assert set(one.labels) == set(MARKS.values()) and set(one.probabilities) == set(MARKS.values())
    assert model.classify(lines[0]["text"], threshold=1.0).labels == ()
    with pytest.raises(InputError, match=r"threshold=1\.5 is not a probability"):
        model.classify("好", threshold=1.5)


def test_the_command_takes_the_threshold(workdir: Path, capsys: pytest.CaptureFixture[str], tiny_classifier: Path) -> None:
    from bert_jax.cli import main

    assert main(["classify", str(workdir / "finetune"), "房间很好", "--threshold", "0", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["labels"]) == set(MARKS.values())
    assert main(["classify", str(workdir / "finetune"), "房间很好"]) == 0
    assert "房间很好" in capsys.readouterr().out
    assert main(["classify", str(tiny_classifier), "好", "--threshold", "0.5"]) == 2
    assert "has no option 'threshold' with this model, a classifier" in capsys.readouterr().err


def test_transformers_computes_the_same_probabilities(workdir: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    assert export_model(workdir / "finetune", tmp_path / "out") == "BertForSequenceClassification"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert model.config.problem_type == "multi_label_classification"
    assert '"text-classification", "PATH TO THIS DIRECTORY", top_k=None)' in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    texts = [line["text"] for line in predictions(workdir)[:8]]
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = model(**tokens).logits.sigmoid().numpy()
    names = [model.config.id2label[index] for index in range(len(MARKS))]
    import_model(tmp_path / "out", tmp_path / "back")
    for path in (workdir / "finetune", tmp_path / "back"):
        ours = bert_jax.load(path).classify(texts)
        np.testing.assert_allclose([[one.probabilities[name] for name in names] for one in ours], theirs, atol=1e-5)


def test_training_starts_with_the_frequency_of_each_label() -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]], np.int8)
    given = {"classifier": {"dense": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}, "encoder": {}}
    found = MULTILABEL.initialized(given, LabelledExamples(["a"] * 4, None, targets, np.arange(4)))
    probabilities = 1 / (1 + np.exp(-found["classifier"]["dense"]["bias"]))
    np.testing.assert_allclose(probabilities, (targets.sum(0) + 1) / 6, rtol=1e-6)
    assert found["classifier"]["dense"]["kernel"] is given["classifier"]["dense"]["kernel"] and found["encoder"] == {}


def test_loss_and_f1_are_those_of_torch_and_scikit_learn() -> None:
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 5)).astype(np.float32), rng.integers(0, 2, (2, 3, 5)).astype(np.int8)
    weights = np.array([[1, 1, 0], [1, 1, 1]], np.float32)
    found = MULTILABEL.measure(logits, {"labels": targets, "example_weights": weights})
    kept = weights > 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(logits[kept]), torch.tensor(targets[kept]).float())
    assert float(found["loss"].total / found["loss"].count) == pytest.approx(float(expected), rel=1e-6)
    f1 = metrics.f1_score(targets[kept], logits[kept] >= 0, average="micro")
    assert float(found["micro_f1"].total / found["micro_f1"].count) == pytest.approx(f1, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_tuned_threshold_is_the_best_of_all(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    targets = rng.random((40, 3)) < 0.3
    # Few distinct values, so that there are ties.
    found = np.round(np.clip(0.3 * targets + rng.random((40, 3)) * 0.7, 0, 1), 1).astype(np.float32)
    best = best_threshold(targets, found)
    every = [metrics.f1_score(targets, found >= level, average="micro", zero_division=0) for level in np.linspace(0.01, 1, 100)]
    assert metrics.f1_score(targets, found >= best, average="micro") == pytest.approx(max(every))


READER = LabelSets(MultilabelOptions())


@pytest.mark.parametrize(
    ("text", "labels"),
    [("a", ("a",)), ("a,b", ("a", "b")), (" a , b c ", ("a", "b c")), ('["a, b", "c"]', ("a, b", "c")), ("[1, 2]", ("1", "2"))],
)
def test_labels_are_read_from_text_and_lists(text: str, labels: tuple[str, ...]) -> None:
    assert READER.parse((text,), "file line 2") == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no label.*unlabeled=keep"), ("[]", "has no label"), ("a,,b", "one of which is empty"), ("a,a", "names a label twice"),
     ('["a"', "not JSON"), ("[" * 100_000, "not JSON"), ('[["a"]]', "not text"), ('["a", null]', "not text")],
)  # fmt: skip
def test_malformed_lists_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"^file line 2 .*{message}"):
        READER.parse((text,), "file line 2")


def test_unknown_and_too_few_labels_are_refused() -> None:
    train, dev = Parsed("train.tsv", [("a",), ("b", "a")], [2, 3]), Parsed("dev.tsv", [("a",), ("c",)], [2, 3])
    targets, names = READER.targets({"train": train})
    assert names == ("a", "b") and targets["train"].tolist() == [[1, 0], [1, 1]]
    with pytest.raises(InputError, match=r"dev.tsv line 3 has the label 'c'.*train.tsv does not have"):
        READER.targets({"train": train, "dev": dev})
    with pytest.raises(InputError, match="1 different labels, too few"):
        READER.targets({"train": Parsed("train.tsv", [("a",)], [2])})
