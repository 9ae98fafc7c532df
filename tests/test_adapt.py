"""Task-adaptive pre-training: a stage on the texts of the training examples, between pre-training and fine-tuning."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_run import write_files

import bert_jax
from bert_jax.config import AdaptConfig, FinetuneConfig, LabelledConfig, PretrainConfig, RowsConfig, RunConfig, to_dict
from bert_jax.config.overrides import apply_overrides, differences, from_dict
from bert_jax.data.labelled import LabelledExamples, load_labelled
from bert_jax.data.pipeline import pretraining_batches
from bert_jax.errors import InputError
from bert_jax.modalities import find
from bert_jax.modalities.text.modality import Text
from bert_jax.serving.watching import Run
from bert_jax.stages.adapt import TrainingTexts
from bert_jax.stages.run import prepare_adaptation, run
from bert_jax.stages.skipped import describe_skipped
from bert_jax.storage.files import SEAL
from bert_jax.tasks import checked, configured
from bert_jax.tasks.classification import CLASSIFICATION, ClassificationOptions
from bert_jax.tasks.pretraining import ADAPTATION

TINY = (
    "encoder.layers=1", "encoder.width=16", "encoder.heads=2", "encoder.feed_forward=32", "encoder.max_positions=32",
    "vocabulary.kind=characters", "vocabulary.size=1500", "corpus.valid_fraction=0.2", "compute.cpu_devices=1",
    "pretrain.steps=2", "pretrain.batch_size=4", "pretrain.rows.length=32", "pretrain.blanks=房间很[MASK]。",
    "adapt.steps=3", "adapt.batch_size=4", "adapt.rows.length=32", "adapt.loop.log_every=1", "finetune.length=32",
    "finetune.batch_size=4", "finetune.epochs=1", "finetune.compare_from_scratch=false",
    # The classifier's encoder stays that of the model that it starts from.
    "finetune.optimizer.frozen_layers=1",
)  # fmt: skip


def texts_of(train: LabelledExamples) -> list[list[str]]:
    return [*TrainingTexts(train, Text()).documents()]


def examples(texts: list[str], pairs: list[str] | None = None) -> LabelledExamples:
    return LabelledExamples([*texts], pairs, np.zeros(len(texts), np.int32), np.arange(len(texts)))


def test_every_text_is_a_document_once() -> None:
    assert texts_of(examples(["a\n\n b", "c", "c"])) == [["a", "b"], ["c"]]
    assert texts_of(examples(["q", "r"], ["passage", "passage"])) == [["q"], ["r"], ["passage"]]


def test_records_are_told_apart_by_the_texts() -> None:
    one, same, other = (TrainingTexts(examples(texts), Text()).identity() for texts in (["a", "b"], ["a", "b"], ["ab"]))
    assert one == same != other


def test_texts_that_fine_tuning_leaves_out_are_left_out(tmp_path: Path) -> None:
    rows = [f"text {i}\t{'yes' if i % 2 else 'no'}" for i in range(20)]
    (tmp_path / "train.tsv").write_text("\n".join(["text\tlabel", *rows]), encoding="utf-8")
    (tmp_path / "test.tsv").write_text("\n".join(["text\tlabel", *rows[3:5], "new\tyes"]), encoding="utf-8")
    data = LabelledConfig(train=str(tmp_path / "train.tsv"), test=str(tmp_path / "test.tsv"), leaks="leave_out")
    labelled = load_labelled(data, CLASSIFICATION.labels(ClassificationOptions()), 0)
    found = {text for (text,) in texts_of(labelled.train)}
    assert found == {f"text {i}" for i in range(20)} - {"text 3", "text 4", *labelled.dev.texts}


def test_another_modality_is_refused() -> None:
    with pytest.raises(InputError, match=r"modality image: set --config\.adapt=none"):
        TrainingTexts(examples(["a.png"]), find("image"))


def test_one_value_adds_the_stage() -> None:
    without = RunConfig(finetune=FinetuneConfig())
    config = apply_overrides(without, ["adapt.steps=7"])
    assert config.adapt == AdaptConfig(steps=7) and config.adapt.rows.next_sentence == "none"
    assert from_dict(RunConfig, to_dict(config)) == config
    assert apply_overrides(config, ["adapt=none"]) == without
    assert differences(without, config) == ["adapt: none -> present"]
    with pytest.raises(InputError, match="has no pretrain stage"):
        apply_overrides(without, ["pretrain.steps=7"])


def test_the_files_of_runs_without_it_are_as_before() -> None:
    assert "adapt" not in to_dict(RunConfig(finetune=FinetuneConfig()))
    assert [*to_dict(RunConfig(pretrain=PretrainConfig()))][-2:] == ["pretrain", "finetune"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"finetune": None}, r"adapt\.steps=.*add that stage"),
        ({"adapt": AdaptConfig(checkpoint="x")}, r"adapt\.checkpoint='x'.*finetune\.checkpoint"),
        ({"adapt": AdaptConfig(blanks=("a [MASK]",))}, r"adapt\.blanks=.*pretrain\.blanks"),
        ({"finetune": FinetuneConfig(from_scratch=True)}, r"finetune\.from_scratch=.*compare_from_scratch"),
        ({"finetune": FinetuneConfig(data=LabelledConfig(folds=3))}, r"finetune\.data\.folds=3.*drop the folds"),
        ({"adapt": AdaptConfig(rows=RowsConfig(length=1024))}, r"adapt\.rows\.length=1024"),
    ],
)
def test_what_cannot_be_combined_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        RunConfig(**{"adapt": AdaptConfig(), "finetune": FinetuneConfig(), **values})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    """configs/hour_zh.py with a tiny encoder and few steps."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, 60, 40, "", "")
    return checked(configured("hour_zh", [f"corpus.source={folder / 'text'}", f"finetune.data.train={folder / 'reviews.tsv'}", *TINY]))


@pytest.fixture(scope="module")
def workdir(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("adapted") / "run"
    run(config, workdir)
    return workdir


def test_it_continues_pretraining_and_fine_tuning_starts_from_it(workdir: Path) -> None:
    summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
    assert [*summary] == ["pretrain", "adapt", "finetune"] and summary["adapt"]["steps"] == 3
    assert "linear_accuracy" in summary["finetune"]
    pretrained, adapted, tuned = (
        np.asarray(bert_jax.load(workdir / stage).params["embeddings"]["tokens"]) for stage in summary
    )
    assert np.array_equal(adapted, tuned) and not np.array_equal(adapted, pretrained)
    # A few steps at a low rate: it began where pre-training ended.
    assert np.abs(adapted - pretrained).max() < 0.01 < pretrained.std()


def test_it_is_shown(workdir: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    report = (workdir / "report.html").read_text(encoding="utf-8")
    assert report.index("<h2>Pre-training") < report.index("<h2>Adaptation") < report.index("<h2>Fine-tuning")
    assert report.count("Filled-in blanks") == 1
    assert [stage["name"] for stage in Run(workdir).describe()["stages"]] == ["pretrain", "adapt", "finetune"]
    run(config, workdir)
    shown = capsys.readouterr().out
    assert "is done" in shown and "Adaptation          3 steps" in shown and f"{workdir / 'adapt' / 'checkpoints'}" in shown


def test_held_out_texts_without_a_token_to_predict_are_no_error() -> None:
    unmeasured = {"mlm_accuracy": None, "mlm_accuracy_floor": 0.0, "nsp_accuracy": None}
    result = {"steps": 1, "real_tokens": 9, "real_tokens_per_second": 3.0, **unmeasured}
    assert ADAPTATION.summary_lines(result)[1] == "Masked tokens       not measured: there is no token to predict in the held-out texts"


def test_it_trained_on_the_training_texts(workdir: Path, config: RunConfig) -> None:
    """The batches of a skipped update are read again."""
    assert config.finetune is not None
    labelled = load_labelled(config.finetune.data, CLASSIFICATION.labels(config.finetune.task), config.seed)  # type: ignore[arg-type]
    texts = TrainingTexts(labelled.train, Text())
    adapting, reader, prepared = prepare_adaptation(config, workdir, Text(), texts)
    assert len(prepared.train) + len(prepared.valid) == len([*texts.documents()]) == len(labelled.train)
    assert adapting.pretrain is not None
    batches = pretraining_batches(prepared.train, reader, adapting.pretrain.rows, adapting.pretrain.batch_size, config.seed)
    skipped = {"step": 1, "loss": None, "batch": batches.get_state()}
    batch = next(batches)
    batches.close()
    try:
        (workdir / "adapt" / "skipped.json").write_text(json.dumps({"skipped": [skipped]}), encoding="utf-8")
        lines = [*describe_skipped(workdir / "adapt" / "skipped.json")]
    finally:
        (workdir / "adapt" / "skipped.json").unlink()
    assert lines[0].startswith("step 1") and len(lines) == 1 + int(batch["example_ids"].max(1).sum())


def test_a_finished_stage_is_kept_and_other_values_are_refused(workdir: Path, config: RunConfig) -> None:
    before = (workdir / "adapt" / "result.json").stat().st_mtime_ns
    (workdir / "summary.json").unlink()
    (workdir / SEAL).unlink()
    run(config, workdir)
    assert (workdir / "adapt" / "result.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"adapt\.steps: 3 -> 4"):
        run(apply_overrides(config, ["adapt.steps=4"]), workdir)
    run(apply_overrides(config, ["adapt.loop.log_every=2"]), workdir)
