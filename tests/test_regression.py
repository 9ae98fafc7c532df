"""Numbers for texts and pairs: from files to answers, scores, the report, and transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import failure
from small_run import write_files

import bert_jax
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model
from bert_jax.data.labelled import Labelled, LabelledExamples
from bert_jax.errors import InputError
from bert_jax.stages.run import run
from bert_jax.tasks import configured
from bert_jax.tasks.numbers import Numbers
from bert_jax.tasks.regression import REGRESSION, correlations


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of how long texts are, in tens of characters, trained on a table with a number per text."""
    folder = tmp_path_factory.mktemp("regression")
    loop = "loop=LoopConfig(log_every=5, evaluate_every=20, save_every=20)"
    finetune = f"{loop}, from_scratch=True, compare_linear=True, optimizer=OptimizerConfig(learning_rate=5e-3)"
    config = write_files(folder, 100, 200, "steps=2", finetune)
    texts = [line.split("\t")[1] for line in (folder / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    texts = list(dict.fromkeys(text[: 2 + index % 24] for index, text in enumerate(texts)))
    rows = ["text\tscore", *(f"{text}\t{len(text) / 10}" for text in texts)]
    (folder / "lengths.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    overrides = ["pretrain=none", "finetune.task=regress", f"finetune.data.train={folder / 'lengths.tsv'}"]
    overrides += ["finetune.data.dev_fraction=0.2", "finetune.epochs=12"]
    run(configured(str(config), overrides), folder / "run")
    return folder / "run"


def predictions(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_it_learns_and_its_scores_are_those_of_scipy(workdir: Path) -> None:
    stats = pytest.importorskip("scipy.stats")
    summary = json.loads((workdir / "summary.json").read_text())["finetune"]
    lines = predictions(workdir)
    true, found = ([line[name] for line in lines] for name in ("value", "predicted"))
    assert summary["spearman"] > 0.8 and summary["pearson"] > 0.8
    assert summary["spearman"] == pytest.approx(stats.spearmanr(true, found).statistic, abs=1e-4)
    assert summary["pearson"] == pytest.approx(stats.pearsonr(true, found).statistic, abs=1e-5)
    assert summary["mae"] == pytest.approx(np.abs(np.subtract(true, found)).mean(), abs=1e-5)
    assert -1 <= summary["linear_spearman"] <= 1
    report = (workdir / "report.html").read_text(encoding="utf-8")
    assert "Test Spearman correlation" in report and report.count('class="point"') == len(lines)


def test_training_starts_at_the_mean() -> None:
    given = {"classifier": {"dense": {"kernel": np.ones((2, 1), np.float32), "bias": np.zeros(1, np.float32)}}}
    found = REGRESSION.initialized(given, LabelledExamples(["a"] * 3, None, np.array([998.5, 1000, 1001], np.float32), np.arange(3)))
    np.testing.assert_allclose(found["classifier"]["dense"]["bias"], [999.8333], rtol=1e-6)


def test_a_run_that_learns_nothing_predicts_the_mean(workdir: Path, tmp_path: Path) -> None:
    table = workdir.parent / "lengths.tsv"
    options = ["finetune.epochs=1", "finetune.optimizer.learning_rate=1e-12", "finetune.data.dev_fraction=0.2"]
    overrides = ["pretrain=none", "finetune.task=regress", f"finetune.data.train={table}", "finetune.compare_linear=false", *options]
    run(configured(str(workdir.parent / "config.py"), overrides), tmp_path / "run")
    mean = np.mean([float(line.split("\t")[1]) for line in table.read_text(encoding="utf-8").splitlines()[1:]])
    assert all(line["predicted"] == pytest.approx(mean, abs=0.2) for line in predictions(tmp_path / "run")), mean


def test_the_loss_is_that_of_torch_whose_targets_have_the_shape_of_the_outputs() -> None:
    """Outputs [B, E, 1] and targets [B, E] would broadcast to [B, E, E]."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    outputs, targets = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 8, 1), (2, 8)))
    weights = (rng.random((2, 8)) < 0.7).astype(np.float32)
    found = REGRESSION.measure(outputs, {"labels": targets, "example_weights": weights})
    kept = weights > 0
    expected = torch.nn.functional.mse_loss(torch.tensor(outputs[kept][:, 0]), torch.tensor(targets[kept]))
    assert float(found["loss"].total / found["loss"].count) == pytest.approx(float(expected), rel=1e-6)
    assert float(found["mae"].total / found["mae"].count) == pytest.approx(np.abs(outputs[..., 0] - targets)[kept].mean(), rel=1e-6)


def test_a_loaded_model_gives_the_stored_predictions(workdir: Path) -> None:
    model = bert_jax.load(workdir / "finetune")
    lines = predictions(workdir)
    found = model.regress([line["text"] for line in lines])
    np.testing.assert_allclose(found, [line["predicted"] for line in lines], atol=1e-4)
    assert model.regress(lines[0]["text"]) == pytest.approx(found[0], abs=1e-5)
    with pytest.raises(InputError, match=r"classify requires a classifier.*supports regress, influence, embed"):
        model.classify("好")


def test_the_command_answers_a_file(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bert_jax.cli import main

    lines = predictions(workdir)[:5]
    (tmp_path / "texts.txt").write_text("\n".join(line["text"] for line in lines) + "\n", encoding="utf-8")
    assert main(["regress", str(workdir / "finetune"), str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out.jsonl")]) == 0
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [answer["value"] for answer in answers] == pytest.approx([line["predicted"] for line in lines], abs=1e-4)
    assert main(["regress", str(workdir / "finetune"), "好", "很好"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_transformers_computes_the_same_number(workdir: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    assert export_model(workdir / "finetune", tmp_path / "out") == "BertForSequenceClassification"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert model.config.problem_type == "regression" and model.config.num_labels == 1
    texts = [line["text"] for line in predictions(workdir)[:8]]
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        theirs = model(**tokens).logits[:, 0].numpy()
    np.testing.assert_allclose(bert_jax.load(workdir / "finetune").regress(texts), theirs, atol=1e-5)
    import_model(tmp_path / "out", tmp_path / "back")
    for path in (tmp_path / "back", tmp_path / "out"):
        np.testing.assert_allclose(bert_jax.load(path).regress(texts), theirs, atol=1e-5)


@pytest.mark.parametrize("value", ["", " ", "nan", "inf", "-inf", "five", "1,5", "1_000", "٣", "1e40", "0x10"])
def test_what_is_not_a_finite_number_is_refused_with_its_line(value: str) -> None:
    with pytest.raises(InputError, match=r"^file.tsv line 7 .* in the column 'score', which must be a finite number"):
        Numbers("score").parse((value,), "file.tsv line 7")


@pytest.mark.parametrize(("text", "value"), [("3", 3.0), (" -2.5 ", -2.5), ("1e3", 1000.0), (".5", 0.5)])
def test_numbers_are_read(text: str, value: float) -> None:
    assert Numbers("score").parse((text,), "file.tsv line 7") == value


def test_equal_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], workdir: Path) -> None:
    (tmp_path / "same.tsv").write_text("text\tscore\n" + "".join(f"好{index}\t2\n" for index in range(10)), encoding="utf-8")
    config = workdir.parent / "config.py"
    arguments = ["train", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--config.pretrain=none", "--config.finetune.task=regress"]
    error = failure(capsys, *arguments, f"--config.finetune.data.train={tmp_path / 'same.tsv'}")
    assert "has the number 2: there is nothing to learn" in error


def test_constant_predictions_have_no_correlation() -> None:
    found = correlations(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
    assert found == {"spearman": None, "pearson": None, "mae": pytest.approx(2 / 3)}


def test_a_linear_model_of_two_examples_is_not_cross_validated() -> None:
    part = LabelledExamples(["a", "b"], None, np.array([0, 1], np.float32), np.arange(2))
    found = REGRESSION.linear_scores(Labelled(part, part, part, (), 0, {}), lambda: (np.eye(2), np.eye(2)))
    assert found["pearson"] == pytest.approx(1) and 0 < found["mae"] < 0.5
