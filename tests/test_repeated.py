"""Several fine-tunings in one command: with several seeds, and cross-validation over one file."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_run import write_files

import bert_jax
from bert_jax.cli import main
from bert_jax.config import FinetuneConfig, LabelledConfig, RunConfig
from bert_jax.data.folds import assign_folds, load_folds
from bert_jax.data.labelled import LabelledExamples, load_labelled
from bert_jax.errors import InputError, Interrupted
from bert_jax.stages import outputs
from bert_jax.stages.repeated import Repeated, compared_with_scratch
from bert_jax.stages.run import run
from bert_jax.tasks import configured, spread
from bert_jax.tasks.classification.labels import ClassLabels
from bert_jax.tasks.classification.scores import score_classes
from bert_jax.tasks.multilabel import LabelSetScorer

FOLDS = ("finetune.data.folds=2", "finetune.compare_linear=true")


def examples(texts: Sequence[str], targets: Any) -> LabelledExamples:
    return LabelledExamples([*texts], None, np.asarray(targets), np.arange(2, len(texts) + 2))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "summary.json").read_text(encoding="utf-8"))["finetune"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and 60 reviews, the last of which repeats the first."""
    folder = tmp_path_factory.mktemp("repeated")
    loop = "loop=LoopConfig(log_every=4, evaluate_every=20, save_every=20)"
    write_files(folder, 100, 60, "steps=2", f"from_scratch=True, {loop}, packing=False")
    rows = (folder / "reviews.tsv").read_text(encoding="utf-8").splitlines()
    rows = [row[:36] for row in rows]
    (folder / "reviews.tsv").write_text("\n".join([*rows[:-1], rows[1]]) + "\n", encoding="utf-8")
    return folder


def start(folder: Path, name: str, *overrides: str) -> Path:
    run(configured(str(folder / "config.py"), ["pretrain=none", f"vocabulary.path={vocabulary(folder)}", *overrides]), folder / name)
    return folder / name


def vocabulary(folder: Path) -> Path:
    """A vocabulary of the reviews, learned once."""
    from bert_jax.config import VocabularyConfig
    from bert_jax.modalities.text.tokenizer import Tokenizer

    if not (folder / "vocabulary").exists():
        texts = [line.split("\t")[1] for line in (folder / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]]
        Tokenizer.train(texts, VocabularyConfig(kind="characters", size=500), show_progress=False).save(folder / "vocabulary")
    return folder / "vocabulary"


@pytest.fixture(scope="module")
def seeds(folder: Path) -> Path:
    return start(folder, "seeds", "finetune.seeds=3,1")


@pytest.fixture(scope="module")
def folds(folder: Path) -> Path:
    return start(folder, "folds", *FOLDS)


# --- Seeds ---
def test_every_seed_has_a_model_and_the_summary_their_mean_and_deviation(seeds: Path) -> None:
    found, each = summary(seeds), [json.loads((seeds / name / "result.json").read_text()) for name in ("finetune", "finetune_seed_1")]
    assert found["repeats"]["over"] == "seeds" and found["repeats"]["names"] == ["3", "1"]
    for score in ("accuracy", "macro_f1"):
        values = [one[score] for one in each]
        assert found["repeats"]["scores"][score]["values"] == values
        assert found[score] == found["repeats"]["scores"][score]["mean"] == pytest.approx(np.mean(values))
        assert found["repeats"]["scores"][score]["std"] == pytest.approx(np.std(values, ddof=1))
    first, second = (bert_jax.load(seeds / name) for name in ("finetune", "finetune_seed_1"))
    probabilities = [model.classify("房间很干净").probability for model in (first, second)]
    assert probabilities[0] != probabilities[1]
    assert [line["text"] for line in lines(seeds / "finetune" / "predictions.jsonl")] == [
        line["text"] for line in lines(seeds / "finetune_seed_1" / "predictions.jsonl")
    ], "the same dev set"
    assert main(["verify", str(seeds)]) == 0


def test_the_first_seed_trains_the_model_of_a_run_with_that_seed(seeds: Path, folder: Path) -> None:
    alone = start(folder, "alone", "seed=3")
    assert (alone / "finetune" / "predictions.jsonl").read_bytes() == (seeds / "finetune" / "predictions.jsonl").read_bytes()
    assert "repeats" not in summary(alone) and not list(alone.glob("finetune_*"))


def test_the_terminal_and_the_report_show_the_deviation(seeds: Path, folds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for workdir, count, column in ((seeds, "2 seeds", "seed 3"), (folds, "2 folds", "fold 1")):
        start(workdir.parent, workdir.name, *(FOLDS if workdir == folds else ("finetune.seeds=3,1",)))
        found = summary(workdir)["repeats"]["scores"]["accuracy"]
        told = capsys.readouterr().out
        assert f"accuracy            {found['mean']:.3f} ± {found['std']:.3f} ({count})" in told
        report = (workdir / "report.html").read_text(encoding="utf-8")
        assert f"Scores of {count}" in report and f"<th scope='col'>{column}</th>" in report and f"<td>{found['std']:.3f}</td>" in report


def test_interrupted_between_two_seeds_it_goes_on_with_the_next(tmp_path: Path) -> None:
    finetune = FinetuneConfig(seeds=(0, 5, 7))
    task: Any = SimpleNamespace(scores=("accuracy",))
    trained: list[tuple[int, str]] = []

    def train(config: RunConfig, directory: Path, labelled: Any) -> dict[str, Any]:
        if config.seed == 7 and len(trained) < 3:
            trained.append((7, "interrupted"))
            raise Interrupted("stopped", 2)
        trained.append((config.seed, directory.name))
        return {"accuracy": config.seed / 10, "steps": config.seed}

    repeated = Repeated(RunConfig(seed=9, finetune=finetune), task, labelled=None)  # type: ignore[arg-type]
    with pytest.raises(Interrupted):
        repeated.finetune(tmp_path / "finetune", train)
    found = repeated.finetune(tmp_path / "finetune", train)
    assert trained[3:] == [(0, "finetune"), (5, "finetune_seed_5"), (7, "finetune_seed_7")]
    assert found["accuracy"] == pytest.approx(0.4) and found["steps"] == 0, "other results are those of the first"
    scratch = {"accuracy": 0.1, "repeats": {"scores": {"accuracy": {"mean": 0.1, "std": 0.05, "values": [0.1] * 3}}}}
    both = compared_with_scratch(found, scratch, task.scores)
    assert both["from_scratch_accuracy"] == 0.1 and [*both["repeats"]["scores"]] == ["accuracy", "from_scratch_accuracy"]
    assert "from scratch accuracy  0.100 ± 0.050 (3 seeds)" in spread.lines(both)


def test_a_score_that_a_model_lacks_has_no_mean() -> None:
    found = spread.spread(("pearson",), [{"pearson": None}, {"pearson": 0.5}])
    assert found == {"pearson": {"mean": None, "std": None, "values": [None, 0.5]}}
    repeats = {"repeats": {"over": "seeds", "names": ["0", "1"], "scores": found}}
    assert spread.lines(repeats) == [] and spread.tables(repeats)[0].rows == [("pearson", "", "", "", "0.500")]
    assert spread.lines({}) == [] and spread.tables({}) == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("finetune.seeds=1", "two or more different seeds"),
        ("finetune.seeds=1,1", "two or more different seeds"),
        ("finetune.seeds=0,-1", "two or more different seeds"),
        ("finetune.seeds=0,x", "must be integers"),
        ("finetune.data.folds=1", "at least 2"),
        ("finetune.data.folds=-2", "at least 2"),
        ("finetune.data.folds=5 finetune.data.dev=a.tsv", "leave dev empty"),
        ("finetune.data.folds=5 finetune.data.test=a.tsv finetune.data.dev=b.tsv", "leave dev and test empty"),
        ("finetune.data.folds=5 finetune.seeds=0,1", "cannot be combined with finetune.data.folds"),
    ],
)
def test_values_that_make_no_sense_are_refused(folder: Path, value: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        configured(str(folder / "config.py"), value.split())


# --- Folds ---
def test_every_example_is_predicted_by_a_model_that_was_not_trained_on_it(folds: Path, folder: Path) -> None:
    found, rows = summary(folds), (folder / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]
    predicted = lines(folds / "predictions.jsonl")
    assert [f"{line['label']}\t{line['text']}" for line in predicted] == rows, "in the order of the file"
    by_fold = [lines(folds / f"finetune_fold_{number}" / "predictions.jsonl") for number in (1, 2)]
    assert sum(map(len, by_fold)) == found["test_examples"] == 60
    for fold in by_fold:
        assert all(line in predicted for line in fold)
        model = bert_jax.load(folds / f"finetune_fold_{1 + by_fold.index(fold)}")
        answers = model.classify([line["text"] for line in fold[:4]])
        assert [answer.probabilities["negative"] for answer in answers] == pytest.approx(
            [line["probabilities"]["negative"] for line in fold[:4]], abs=1e-4
        )
    names = ("negative", "positive")
    classes = [np.array([names.index(line[name]) for line in predicted]) for name in ("label", "predicted")]
    assert {name: found[name] for name in ("accuracy", "macro_f1", "confusion", "classes")} == {
        name: value for name, value in score_classes(*classes, names).items() if name != "labels"
    }
    values = [sum(line["label"] == line["predicted"] for line in fold) / len(fold) for fold in by_fold]
    assert found["repeats"]["scores"]["accuracy"]["values"] == pytest.approx(values)
    assert 0 <= found["linear_accuracy"] <= 1


def test_the_model_to_use_is_trained_on_all_folds(folds: Path) -> None:
    own = json.loads((folds / "finetune" / "result.json").read_text())
    assert own["train_examples"] == summary(folds)["train_examples"] == 53, "59 distinct texts, 6 of which are held out"
    parts = [json.loads((folds / f"finetune_fold_{number}" / "result.json").read_text()) for number in (1, 2)]
    assert all(part["train_examples"] < 30 and part["test_examples"] >= 29 for part in parts)
    assert not (folds / "finetune" / outputs.FILE).exists()
    assert bert_jax.load(folds / "finetune").classify("好").label in ("negative", "positive")


def test_a_fold_that_is_missing_is_trained_again_to_the_same_end(folds: Path, folder: Path) -> None:
    copy = Path(shutil.copytree(folds, folder / "copy"))
    shutil.rmtree(copy / "finetune_fold_2")
    (copy / "summary.json").unlink()
    start(folder, "copy", *FOLDS)
    assert summary(copy) == summary(folds)
    assert (copy / "predictions.jsonl").read_bytes() == (folds / "predictions.jsonl").read_bytes()


def test_folds_are_stratified_and_keep_equal_texts_together() -> None:
    rng = np.random.default_rng(1)
    targets = rng.permutation(np.repeat([0, 1, 2], [50, 30, 7])).astype(np.int32)
    texts = [f"text {i}" for i in range(87)]
    fold_of = assign_folds(examples(texts, targets), 5)
    for kind in range(3):
        counts = np.bincount(fold_of[targets == kind], minlength=5)
        assert counts.max() - counts.min() <= 1
    repeated = assign_folds(examples([*texts, *(f"text  {i}" for i in range(20))], np.concatenate([targets, 2 - targets[:20]])), 5)
    assert (repeated[:20] == repeated[87:]).all(), "also if they differ in spaces or in their labels"
    assert not (fold_of == assign_folds(examples(texts, np.roll(targets, 1)), 5)).all()
    pairs = dataclasses.replace(examples([text for text in texts for _ in range(2)], np.tile([0, 1], 87)), pairs=["yes", "no"] * 87)
    assert (np.diff(assign_folds(pairs, 5).reshape(87, 2)) == 0).all(), "a premise with two hypotheses"
    numbers = rng.normal(size=100).astype(np.float32)
    means = [numbers[assign_folds(examples([str(i) for i in range(100)], numbers), 4) == fold].mean() for fold in range(4)]
    assert np.ptp(means) < 0.2
    sets = rng.integers(0, 2, (64, 2)).astype(np.int8)
    fold_of = assign_folds(examples([str(i) for i in range(64)], sets), 4)
    assert all(np.ptp(np.bincount(fold_of[(sets == one).all(1)], minlength=4)) <= 1 for one in ([0, 0], [0, 1], [1, 0], [1, 1]))


def test_a_fold_is_tested_as_it_is_and_trained_on_without_repeats_or_contradictions(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(30)] + [("text 0", "a"), ("text 1", "a")]
    (tmp_path / "file.tsv").write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    config = LabelledConfig(train=str(tmp_path / "file.tsv"), folds=3, leaks="refuse")
    found = load_folds(config, ClassLabels("label", ()), 0)
    assert sorted(np.concatenate([fold.places for fold in found.parts]).tolist()) == [*range(32)]
    for fold in found.parts:
        train, dev, test = (set(part.texts) for part in (fold.labelled.train, fold.labelled.dev, fold.labelled.test))
        assert not (train & dev or train & test or dev & test)
        assert train | dev | test | {"text 1"} == {text for text, _ in rows}, "text 1 has two labels"
        assert fold.labelled.test.texts == [rows[place][0] for place in fold.places]
    alone = load_labelled(LabelledConfig(train=config.train), ClassLabels("label", ()), 0)
    assert found.whole.fingerprint == alone.fingerprint


def test_fewer_texts_than_folds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file.tsv").write_text("text\tlabel\nx\ta\ny\tb\nx\ta\n", encoding="utf-8")
    config = LabelledConfig(train=str(tmp_path / "file.tsv"), folds=3)
    with pytest.raises(InputError, match=r"has 2 distinct texts, too few for finetune\.data\.folds=3"):
        load_folds(config, ClassLabels("label", ()), 0)


def test_outputs_of_folds_are_scored_together_each_with_its_own_threshold(tmp_path: Path) -> None:
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.int8)
    places = [np.array([0, 3]), np.array([2, 1])]
    found = [np.array([[0.9, 0.2], [0.3, 0.1]], np.float32), np.array([[0.3, 0.4], [0.1, 0.3]], np.float32)]
    scorer = LabelSetScorer(targets, ("a", "b"))
    for number, place in enumerate(places):
        (tmp_path / str(number)).mkdir()
        tested = np.array([1, 0]), found[number][::-1]
        outputs.keep(tmp_path / str(number), tested, (targets[place], found[number]))
    for number, place in enumerate(places):
        outputs.score(tmp_path / str(number), scorer, place)
    assert scorer.result()["subset_accuracy"] == 1, "0.3 is a label of the second model and none of the first"
    assert "threshold" not in scorer.result(), "each has its own"
    assert [scorer.line(i)["predicted"] for i in range(4)] == [["a"], ["b"], ["a", "b"], []]
