"""The whole run as a user starts it: train.py on files, its end, its second start, and its refusals."""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import toy
from small_run import write_files
from test_foreign_vocabularies import with_rows

import bert_jax
import bert_jax.cli
from bert_jax.convert.imports import import_model
from bert_jax.runtime.metrics import read_metrics
from bert_jax.storage.files import only_writer
from bert_jax.training import loop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import train  # noqa: E402

PRETRAIN = "steps=8, evaluation_batches=2, loop=LoopConfig(log_every=2, evaluate_every=4, save_every=4)"
FINETUNE = "compare_from_scratch=True, loop=LoopConfig(log_every=2, evaluate_every=5, save_every=5)"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, labelled reviews and a configuration for them."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, 300, 200, PRETRAIN, FINETUNE)
    return folder


LONG_ROWS = ("long_rows.length=32", "long_rows.batch_size=4", "long_rows.gradient_accumulation_steps=2")


@pytest.fixture(scope="module")
def finished(files: Path) -> Path:
    """The workdir of a run that has ended."""
    with contextlib.chdir(files):  # as it is typed: relative paths
        assert train.main(["--config=config.py", "--workdir=run"]) == 0
    return files / "run"


def test_a_run_that_stops_for_skipped_updates_shows_their_batches(files: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = files / "diverged"
    fast = [f"--config.pretrain.{value}" for value in ("rows.length=16", "long_rows.share=0.9", *LONG_ROWS)]
    fast += ["--config.pretrain.optimizer.learning_rate=1e30", "--config.pretrain.loop.max_skipped=2", "--config.finetune=none"]
    fast += [f"--config.corpus.data_dir={finished / 'data'}", f"--config.vocabulary.path={finished / 'vocabulary'}"]
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={workdir}", *fast]) == 1
    report = workdir / "pretrain" / "skipped.json"
    assert [skipped["step"] for skipped in json.loads(report.read_text())["skipped"]] == [2, 3], "on long rows"
    assert str(report) in capsys.readouterr().err
    assert bert_jax.cli.main(["inspect", str(report)]) == 0
    shown = capsys.readouterr().out.splitlines()
    steps = [skipped["step"] for skipped in json.loads(report.read_text())["skipped"]]
    assert [line[:6] for line in shown if line.startswith("step")] == [f"step {step}" for step in steps]
    assert {int(line.split()[1]) for line in shown if line.startswith("  row")} == set(range(4))
    assert all("[CLS]" in line and "[SEP]" in line and "[PAD]" not in line for line in shown if line.startswith("  row"))


def test_fine_tuning_that_stops_for_skipped_updates_shows_their_texts(
    files: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = ["pretrain=none", f"finetune.checkpoint={finished / 'pretrain'}", "finetune.optimizer.learning_rate=1e30"]
    values += ["finetune.loop.max_skipped=2", "finetune.compare_from_scratch=false"]
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={tmp_path}", *(f"--config.{value}" for value in values)]) == 1
    report = tmp_path / "finetune" / "skipped.json"
    assert f"inspect {report}" in capsys.readouterr().err.splitlines()[-1]
    steps = [skipped["step"] for skipped in json.loads(report.read_text())["skipped"]]
    assert bert_jax.cli.main(["inspect", str(report)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(steps) == 2 and [line for line in shown if line.startswith("step")] == [line for line in shown if "not finite" in line]
    assert [int(line.split()[1]) for line in shown if line.startswith("step")] == steps
    reviews = {line.split("\t")[1] for line in (files / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]}
    texts = [line.split("[CLS]")[1].split("[SEP]")[0].replace(" ", "") for line in shown if line.startswith("  row")]
    starts = {"".join(review.split())[:8] for review in reviews}
    assert len(texts) >= 16 and sum(text[:8] in starts for text in texts) > 0.7 * len(texts), "those of the file"


@pytest.mark.slow
def test_rows_that_grow_within_a_run(files: Path, finished: Path, tmp_path: Path) -> None:
    values = [f"pretrain.{value}" for value in ("rows.length=16", "steps=4", "loop.evaluate_every=2", "long_rows.share=0.5", *LONG_ROWS)]
    values += [f"corpus.data_dir={finished / 'data'}", f"vocabulary.path={finished / 'vocabulary'}", "finetune=none"]
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={tmp_path}", *(f"--config.{value}" for value in values)]) == 0
    assert json.loads((tmp_path / "pretrain" / "model.json").read_text())["length"] == 32
    short, held_out, long, _ = read_metrics(tmp_path / "pretrain")
    assert (short["step"], held_out["step"], long["step"]) == (2, 2, 4)
    assert 0.8 * 2 * 8 * 16 < short["real_tokens"] <= 2 * 8 * 16
    assert 0.8 * 2 * 4 * 32 < long["real_tokens"] - short["real_tokens"] <= 2 * 4 * 32


def test_debugging_looks_for_nans_and_leaks(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = ("jax_debug_nans", "jax_check_tracer_leaks")
    seen: list[tuple[bool, ...]] = []
    monkeypatch.setattr("bert_jax.stages.run.run", lambda *_, **__: seen.append(tuple(getattr(jax.config, check) for check in checks)))
    arguments = [f"--config={files / 'config.py'}", f"--workdir={tmp_path}"]
    assert train.main(arguments) == train.main([*arguments, "--debug"]) == 0
    assert seen == [(False, False), (True, True)]


def test_debugging_names_what_makes_a_nan(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(step: int, batch: dict[str, np.ndarray]) -> None:
        if step == 3:
            batch["example_weights"][:] = -1  # the loss is the root of a sum

    def run(*_: object, **__: object) -> None:
        jax.scipy.special.logsumexp(jnp.zeros(2))  # looks away from NaNs for a moment, as every cross entropy does
        loop.train(job)

    job = toy.toy(tmp_path, 4, before=spoil)
    monkeypatch.setattr("bert_jax.stages.run.run", run)
    with pytest.raises(FloatingPointError, match=r"invalid value \(nan\) encountered in sqrt") as raised:
        train.main([f"--config={files / 'config.py'}", f"--workdir={tmp_path}", "--debug"])
    job.batches.close()
    assert ("metrics", toy.__file__) in [(frame.name, str(frame.path)) for frame in raised.traceback], "the line of the task"


@tiny.long
@pytest.mark.slow
def test_the_two_commands_of_a_large_batch_recipe(files: Path, tmp_path: Path) -> None:
    """Short rows, then long ones from the first command's encoder, vocabulary and records: both configurations, made small."""
    first, second = tmp_path / "first", tmp_path / "second"
    small = [f"--config.corpus.source={files / 'text'}", "--config.corpus.segmenter=characters", "--config.corpus.sentence_ends=clauses"]
    small += ["--config.corpus.valid_fraction=0.1", "--config.pretrain.steps=2", "--config.pretrain.batch_size=8"]
    small += ["--config.pretrain.gradient_accumulation_steps=2", "--config.compute.dtype=float32", "--config.compute.remat=none"]
    encoder = ["layers=1", "width=32", "heads=2", "feed_forward=64", "max_positions=32"]
    made = [f"--config.encoder.{value}" for value in encoder] + ["--config.vocabulary.kind=characters", "--config.vocabulary.size=1500"]
    config = ROOT / "configs" / "pretrain_large_lamb_en.py"
    assert train.main([f"--config={config}", f"--workdir={first}", *small, *made, "--config.pretrain.rows.length=16"]) == 0
    places = [f"--config.corpus.data_dir={first / 'data'}", f"--config.pretrain.checkpoint={first / 'pretrain'}"]
    config = ROOT / "configs" / "pretrain_large_lamb_en_512.py"
    assert train.main([f"--config={config}", f"--workdir={second}", *small, *places, "--config.pretrain.rows.length=32"]) == 0
    assert not (second / "data").exists() and len(list((first / "data" / "documents").iterdir())) == 1, "the records of the first"
    short, long = (json.loads((path / "pretrain" / "model.json").read_text()) for path in (first, second))
    assert (short["length"], long["length"]) == (16, 32) and short["encoder"] == long["encoder"]
    before, after = (next(line for line in read_metrics(path / "pretrain") if line["split"] == "train") for path in (first, second))
    assert 0 < after["real_tokens"] / before["real_tokens"] - 1.5 < 1, "rows of twice the length"
    assert all(line["model_flops_per_second"] > 0 and 0 < line["mfu"] < 2 for line in (before, after))


def test_the_summary_holds_every_figure(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    pretrain, finetune = summary["pretrain"], summary["finetune"]
    assert pretrain["steps"] == 8
    assert pretrain["real_tokens"] > 0.8 * 8 * 8 * 32
    assert pretrain["real_tokens_per_second"] > 0
    assert 0 < pretrain["mlm_accuracy_floor"] < 0.5
    assert 0 <= pretrain["mlm_accuracy"] <= 1 and 0 <= pretrain["nsp_accuracy"] <= 1 and pretrain["mlm_loss"] > 0
    assert finetune["train_examples"] + finetune["test_examples"] == 200
    assert {"accuracy", "from_scratch_accuracy", "macro_f1", "confusion"} <= set(finetune)
    assert sum(map(sum, finetune["confusion"])) == finetune["test_examples"]


def test_every_test_row_has_a_prediction(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    figures = json.loads((finished / "summary.json").read_text())["finetune"]
    assert len(lines) == figures["test_examples"]
    assert sum(line["label"] == line["predicted"] for line in lines) / len(lines) == pytest.approx(figures["accuracy"])
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in lines)


@pytest.mark.slow
def test_of_many_classes_the_likeliest_and_the_largest_confusions(
    files: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written grows with the classes and with the rows, not with their product or the square."""
    texts = [(f"话{i}很好", f"class {i % 60}") for i in range(120)]
    (tmp_path / "train.tsv").write_text("review\tstars\n" + "".join(f"{text}\t{label}\n" for text, label in texts[:119]), "utf-8")
    (tmp_path / "dev.tsv").write_text("review\tstars\n" + "".join(f"{text}\t{label}\n" for text, label in texts[:20]), "utf-8")
    values = ["pretrain=none", f"finetune.checkpoint={finished / 'pretrain'}", "finetune.compare_from_scratch=false", "finetune.epochs=1"]
    values += ["finetune.data.text=review", "finetune.task.label=stars"]
    values += [f"finetune.data.{name}={tmp_path / name}.tsv" for name in ("train", "dev")]
    values += ["finetune.data.max_train_examples=59"]
    workdir = tmp_path / "run"
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={workdir}", *(f"--config.{value}" for value in values)]) == 0
    told = capsys.readouterr().out
    assert "Warning: 1 of the 60 classes has no training example" in told and "1 of 60 classes had no training example" in told
    assert "Warning: 40 of the 60 classes have no test example" in told and "and 20 more." in told
    figures = json.loads((workdir / "summary.json").read_text())["finetune"]
    assert "confusion" not in figures and len(figures["labels"]) == 60 and len(figures["untrained_classes"]) == 1
    lines = [json.loads(line) for line in (workdir / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 20
    for line in lines:
        assert len(line["probabilities"]) == 10 and next(iter(line["probabilities"])) == line["predicted"]
        assert 0.1 < sum(line["probabilities"].values()) < 1
    wrong = sum(line["label"] != line["predicted"] for line in lines)
    assert figures["accuracy"] == pytest.approx(1 - wrong / 20)
    assert sum(confusion["count"] for confusion in figures["largest_confusions"]) == wrong > 0
    assert "Largest confusions of 60 classes" in (workdir / "report.html").read_text(encoding="utf-8")


def test_metrics_and_report_are_there(finished: Path) -> None:
    lines = read_metrics(finished / "pretrain")
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if line["split"] == "valid"] == [4, 8]
    assert list((finished / "pretrain" / "tensorboard").iterdir())
    report = (finished / "report.html").read_text(encoding="utf-8")
    assert "<svg" in report and "http://" not in report.replace("http://www.w3.org", "")


def test_a_second_start_says_that_it_is_done(finished: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={finished}"]) == 0
    assert "is done" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_a_second_process_is_refused(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_writer(tmp_path / "run"):
        assert train.main([f"--config={files / 'config.py'}", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "Another process is writing" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"lock"}


def test_a_figure_that_was_edited_is_not_shown(finished: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    summary = (copy / "summary.json").read_text()
    (copy / "summary.json").write_text(summary.replace('"steps": 8', '"steps": 9'))
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={copy}"]) == 2
    assert "summary.json has changed since it was written" in capsys.readouterr().err


def test_a_stage_that_is_done_is_not_run_again(finished: Path, files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "summary.json").unlink()
    shutil.rmtree(copy / "finetune")
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={copy}"]) == 0
    assert (copy / "finetune" / "predictions.jsonl").read_bytes() == (finished / "finetune" / "predictions.jsonl").read_bytes()
    figures = [json.loads((run / "summary.json").read_text()) for run in (finished, copy)]
    assert figures[0] == figures[1]


def test_a_stage_that_was_struck_down_before_its_seal_gets_it(finished: Path, files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for name in ("summary.json", "finetune/SHA256SUMS"):
        (copy / name).unlink()
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={copy}"]) == 0
    for name in ("summary.json", "finetune/metrics.jsonl", "finetune/result.json"):
        assert (copy / name).read_bytes() == (finished / name).read_bytes()
    sealed = [{line.split("  ")[1] for line in (run / "finetune/SHA256SUMS").read_text().splitlines()} for run in (finished, copy)]
    assert sealed[0] <= sealed[1]  # and another file of TensorBoard's events


def test_a_stage_is_scored_without_its_metrics(finished: Path, files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They are for people, and whoever loses them is told that training does not need them."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for name in ("summary.json", "finetune/SHA256SUMS", "finetune/metrics.jsonl"):
        (copy / name).unlink()
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={copy}"]) == 0
    assert "Training does not need it and continues" in capfd.readouterr().err
    assert (copy / "finetune/result.json").read_bytes() == (finished / "finetune/result.json").read_bytes()


def test_a_corpus_that_has_changed_is_not_continued_on(
    finished: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, text = tmp_path / "run", files / "text" / "reviews.txt"
    shutil.copytree(finished, copy)
    for name in ("summary.json", "pretrain/result.json", "pretrain/SHA256SUMS"):
        (copy / name).unlink()
    before = text.read_bytes()
    try:
        text.write_text(before.decode().replace("好", "坏", 1), encoding="utf-8")
        assert train.main([f"--config={files / 'config.py'}", f"--workdir={copy}"]) == 2
    finally:
        text.write_bytes(before)
    assert "its files, vocabulary or settings have changed" in capsys.readouterr().err


REFUSALS = {
    "unknown key": (["--config.pretrain.optimizer.learning_rat=1"], ["learning_rat", "learning_rate"]),
    "wrong value": (["--config.pretrain.steps=many"], ["pretrain.steps", "many"]),
    "missing corpus": (["--config.corpus.source=/nowhere/at/all"], ["/nowhere/at/all"]),
    "row too long": (["--config.pretrain.rows.length=64"], ["pretrain.rows.length", "32"]),
    "batch and devices": (["--config.mesh.fsdp=3"], ["mesh", "fsdp=3"]),
    "missing column": (["--config.finetune.task.label=star"], ["reviews.tsv", "'star'", "label"]),
    "label twice": (["--config.finetune.task.labels=good,bad,bad"], ["labels='bad'", "once"]),
    "unknown label": (["--config.finetune.task.labels=good,bad"], ["reviews.tsv", "good", "line"]),
    "missing configuration": (["--config=configs/none.py"], ["configs/none.py"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_in_one_paragraph(name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = REFUSALS[name]
    status = train.main([f"--config={files / 'config.py'}", f"--workdir={tmp_path / 'run'}", *arguments])
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert message.startswith("error: ") and "Traceback" not in message
    assert all(word in message for word in words), message


def test_a_corpus_of_single_sentences_has_no_next_sentence(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "single.txt").write_text("\n\n".join(f"第{i}句话没有下一句" for i in range(60)), encoding="utf-8")
    overrides = [f"--config.corpus.source={tmp_path / 'single.txt'}"]
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={tmp_path / 'run'}", *overrides]) == 2
    assert "two sentences" in capsys.readouterr().err


def test_a_vocabulary_without_special_tokens_is_refused(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n的\n了\n", encoding="utf-8")
    overrides = [f"--config.vocabulary.path={tmp_path / 'vocab.txt'}"]
    assert train.main([f"--config={files / 'config.py'}", f"--workdir={tmp_path / 'run'}", *overrides]) == 2
    message = capsys.readouterr().err
    assert "vocab.txt" in message and "[MASK]" in message


def test_a_workdir_of_another_configuration_is_refused(finished: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--config={files / 'config.py'}", f"--workdir={finished}", "--config.seed=1", "--config.encoder.width=64"]
    assert train.main(arguments) == 2
    message = capsys.readouterr().err
    assert "seed" in message and "encoder.width" in message and "32 -> 64" in message


def test_how_a_run_is_computed_may_change(finished: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--config={files / 'config.py'}", f"--workdir={finished}", "--config.compute.scan_layers=true"]
    assert train.main([*arguments, "--config.pretrain.loop.log_every=7"]) == 0
    assert "is done" in capsys.readouterr().out


def test_a_checkpoint_of_another_shape_is_refused_by_parameter(
    finished: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "pretrain"
    shutil.copytree(finished / "pretrain", other)
    model = json.loads((other / "model.json").read_text())
    model["encoder"]["feed_forward"] = 128
    (other / "model.json").write_text(json.dumps(model))
    arguments = [f"--config={files / 'config.py'}", f"--workdir={tmp_path / 'run'}", "--config.pretrain=none"]
    assert train.main([*arguments, f"--config.finetune.checkpoint={other}"]) == 2
    message = capsys.readouterr().err
    assert "encoder/layers/feed_forward/bias" in message and "(1, 64)" in message and "(1, 128)" in message, message


def test_pre_training_goes_on_from_a_checkpoint(finished: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--config={files / 'config.py'}", "--config.finetune=none", "--config.pretrain.steps=2"]
    still = ["--config.pretrain.optimizer.learning_rate=1e-30", "--config.encoder.width=64"]  # the checkpoint's width counts
    further = [*arguments, f"--config.pretrain.checkpoint={finished / 'pretrain'}", *still, f"--workdir={tmp_path / 'further'}"]
    assert train.main(further) == 0
    before, after = (bert_jax.load(run / "pretrain") for run in (finished, tmp_path / "further"))
    assert before.tokenizer.fingerprint == after.tokenizer.fingerprint and after.config.width == 32
    # Where a parameter was zero, the smallest of steps shows.
    tiny.assert_close(jax.device_get(after.params), jax.device_get(before.params), 1e-20)
    assert "--config.pretrain.checkpoint=" in (tmp_path / "further" / "command.txt").read_text()

    foreign.write(tmp_path / "hf", "BertForMaskedLM")
    with_rows(tmp_path / "hf", 3)
    import_model(tmp_path / "hf", tmp_path / "imported")
    imported = [*arguments, f"--config.pretrain.checkpoint={tmp_path / 'imported'}", f"--workdir={tmp_path / 'domain'}"]
    capsys.readouterr()
    assert train.main(imported) == 2
    message = capsys.readouterr().err
    assert "no pooler and no next_sentence" in message and "--initialize-missing" in message and "next_sentence=none" in message
    imported[-1] = f"--workdir={tmp_path / 'adapted'}"
    assert train.main([*imported, "--config.pretrain.rows.next_sentence=none", *still[:1]]) == 0
    adapted = jax.device_get(bert_jax.load(tmp_path / "adapted" / "pretrain").params)
    source = jax.device_get(bert_jax.load(tmp_path / "imported").params)
    tiny.assert_close({part: adapted[part] for part in source}, source, 1e-20)
    classifier = [*arguments, f"--config.pretrain.checkpoint={finished / 'finetune'}", f"--workdir={tmp_path / 'wrong'}"]
    assert train.main(classifier) == 2
    assert "needs a pre-trained one" in capsys.readouterr().err
