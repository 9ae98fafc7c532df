"""Paths as users type them: relative, from the home directory, through links, with odd names, while the working directory changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import children
import numpy as np
import pytest
import tiny
from command_line import failure
from small_run import write_files

import bert_jax
from bert_jax.config import CorpusConfig, LabelledConfig, RunConfig, VocabularyConfig
from bert_jax.config.overrides import load_config
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model
from bert_jax.data.labelled import load_labelled
from bert_jax.errors import InputError, as_typed
from bert_jax.modalities.text.files import list_files
from bert_jax.modalities.text.sources import open_source
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.runtime.metrics import read_metrics
from bert_jax.stages.run import run
from bert_jax.storage.files import on_disk, resolve_path
from bert_jax.tasks.classification.labels import ClassLabels
from bert_jax.training.checkpoints.saving import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
ODD = ("a b/a#b", "50%/%2F", "what?/a*", "酒店/caf\u00e9", "~me", "-x")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, which is the home directory's neighbor."""
    (tmp_path / "here").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "here"


def test_a_path_is_resolved_where_it_comes_in(here: Path) -> None:
    home = here.parent / "home"
    assert resolve_path("runs/demo") == resolve_path("./runs//demo/") == resolve_path("runs/x/../demo") == here / "runs" / "demo"
    assert resolve_path(Path("runs/demo")) == resolve_path(resolve_path("runs/demo")) == here / "runs" / "demo"
    assert resolve_path("~/runs") == resolve_path(Path("~/runs")) == home / "runs" and resolve_path("../home") == home
    assert resolve_path(".") == here
    assert resolve_path("..") == here.parent and resolve_path("/") == Path("/")


def test_links_are_followed_on_the_way_and_a_last_one_keeps_its_name(here: Path) -> None:
    blob = here / "far" / "blobs" / "5891b5b5"
    blob.parent.mkdir(parents=True)
    blob.write_text("label\ttext\n")
    (here / "reviews.tsv").symlink_to(blob)
    (here / "link").symlink_to(blob.parent)
    assert resolve_path("reviews.tsv").suffix == ".tsv", "the name says what it holds"
    assert resolve_path("link/5891b5b5") == blob and resolve_path("link/..") == resolve_path("link/../") == here / "far", "as in a shell"
    (here / "round").symlink_to("round")
    with pytest.raises((InputError, OSError), match=r"round"):  # Python 3.13 finds out when the file is opened
        resolve_path("round/x").stat()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("", "The path is empty"),
        ("  ", "The path is empty"),
        ("a\0b", "NUL character"),
        ("file:///home/me/x", "such as /home/me/x"),
        ("file:x", "is a URL"),
        ("s3://bucket/x", "neither on disk nor in Google Cloud Storage"),
        ("C:\\Users\\me", "Windows path"),
        ("d:/data", "Windows path"),
        ("\\\\server\\share", "Windows path"),
    ],
)
def test_what_is_no_path_here_is_refused(typed: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=told):
        resolve_path(typed)
    with pytest.raises(InputError, match=told):
        on_disk(typed, "The corpus")
    with pytest.raises(SystemExit, match="2"):
        failure(capsys, "verify", typed)
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_user_without_a_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is run under a number."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(InputError, match=r"~/runs is in a home directory, and this user has none"):
        resolve_path("~/runs")
    assert resolve_path("./~/runs") == here / "~" / "runs"


def test_a_working_directory_that_is_gone(here: Path) -> None:
    here.rmdir()
    with pytest.raises(InputError, match="The path runs/demo cannot be resolved"):
        resolve_path("runs/demo")


def test_a_file_where_a_directory_belongs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("x")
    (here / "gone").symlink_to("nowhere")
    train = ("train", "--config=demo", "--config.compute.cpu_devices=1")
    for workdir, way in (("file", "file"), ("file/x/y", "file"), ("gone", "gone")):
        words = f"The directory {workdir} cannot be created, since {way} is not a directory"
        assert words in failure(capsys, *train, f"--workdir={workdir}")
    assert "The directory file/vocab cannot be created" in failure(capsys, "train-vocab", "demo", "file/vocab")
    command = ("compile", "--config=demo", "--topology=v5e:2x2", "--json=nowhere/plan.json")
    assert "the directory nowhere does not exist" in failure(capsys, *command)
    assert (here / "file").read_text() == "x"


def test_messages_show_paths_as_they_were_typed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs" / "demo").mkdir(parents=True)
    assert "in runs/demo. Name" in failure(capsys, "verify", "runs/demo/")
    assert "in ../here/runs/demo. Name" in failure(capsys, "verify", "../here/runs/demo")
    with pytest.raises(InputError, match=r"There is no model in \./runs/demo: it has no model\.json"):
        bert_jax.load("./runs/demo")
    resolve_path("runs/demo")
    resolve_path("out/answers.jsonl")
    below, beside = here / "runs" / "demo" / "pretrain", here / "runs" / "demo2"
    assert as_typed(f"{below}: {beside}, {here / 'out'}") == "runs/demo/pretrain: runs/demo2, out"
    assert as_typed(f"{here.parent}.") == f"{here.parent}.", "which nobody has named"
    assert f"in {here}/runs/demo. Name" in failure(capsys, "verify", f"{here}/runs/demo"), "the last words count"
    assert resolve_path(below.parent) and as_typed(f"{below}") == f"{below}"


@pytest.mark.parametrize("name", ODD)
def test_a_model_under_an_odd_name(name: str, here: Path, tiny_pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded by a relative path, saved again, exported and imported, while the working directory changes."""
    (here / name / "x").mkdir(parents=True)
    typed = f"./{name}/pretrain" if name[0] in "~-" else f"{name}/pretrain/"
    shutil.copytree(tiny_pretrained, here / name / "pretrain")
    expected = bert_jax.load(tiny_pretrained).embed("房间很好")
    bert = bert_jax.load(typed)
    export_model(typed, f"./{name}/exported")
    import_model(here / name / "exported", f"./{name}/imported")
    imported = bert_jax.load(f"./{name}/imported")
    monkeypatch.chdir(here.parent)
    np.testing.assert_array_equal(bert.embed("房间很好"), expected)
    np.testing.assert_array_equal(imported.embed("房间很好"), expected)
    np.testing.assert_array_equal(bert_jax.load(f"~/../here/{name}/exported").embed("房间很好"), expected)


def test_brackets_are_read_and_never_written_to(here: Path, tiny_pretrained: Path) -> None:
    """Orbax takes them for a pattern: it would save without an error what it cannot restore."""
    (here / "x[1]").mkdir()
    shutil.copytree(tiny_pretrained, here / "x[1]" / "pretrain")
    np.testing.assert_array_equal(bert_jax.load("x[1]/pretrain").embed("房间"), bert_jax.load(tiny_pretrained).embed("房间"))
    export_model("x[1]/pretrain", "x[1]/exported")
    with pytest.raises(InputError, match=r"No checkpoint can be written below x\[1\]/imported, since Orbax interprets the brackets"):
        import_model("x[1]/exported", "x[1]/imported")
    assert not (here / "x[1]" / "imported").exists()
    with pytest.raises(InputError, match=r"No checkpoint can be written below x\[1\]/run"):
        run(RunConfig(), "x[1]/run")


def test_checkpoints_through_a_link(here: Path, tiny_pretrained: Path) -> None:
    shutil.copytree(tiny_pretrained, here / "disk2" / "pretrain")
    (here / "runs").symlink_to("disk2")
    (here / "latest").symlink_to("disk2/pretrain")
    expected = bert_jax.load(tiny_pretrained).embed("房间很好")
    for typed in ("runs/pretrain", "latest", "latest/", "latest/../pretrain"):
        np.testing.assert_array_equal(bert_jax.load(typed).embed("房间很好"), expected)
    checkpoints = Checkpoints(resolve_path("latest") / "checkpoints", keep=1)
    assert checkpoints.latest == 1
    checkpoints.close()


def test_data_is_found_after_the_working_directory_has_changed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "text [v1]").mkdir()
    (here / "text [v1]" / "a.txt").write_text("one\n\ntwo\n")
    (here / "train.tsv").write_text("label\ttext\na\tone\nb\ttwo\na\tthree\nb\tfour\n")
    sources = [open_source(name, CorpusConfig()) for name in ("text [v1]", "text [v1]/*.txt", "./text [v1]/a.txt", "**/*.txt")]
    identities = [source.identity() for source in sources]
    Tokenizer.train(["one two three four"], VocabularyConfig(min_frequency=1), show_progress=False).save("../home/vocab")
    before = Tokenizer.load("~/vocab/")
    assert len(load_labelled(LabelledConfig(train="train.tsv"), ClassLabels("label", ()), seed=0).train) == 3
    monkeypatch.chdir(here.parent)
    assert [list(source.documents()) for source in sources] == [[["one"], ["two"]]] * 4
    assert [source.identity() for source in sources] == identities
    assert Tokenizer.load("home/vocab").fingerprint == before.fingerprint
    assert list_files("here/text [v1]/*.txt") == [here / "text [v1]" / "a.txt"]
    assert read_metrics("here") == []


def test_shipped_configurations_are_found_from_anywhere(here: Path) -> None:
    shipped = load_config(ROOT / "configs" / "demo.py")
    assert shipped == load_config("configs/demo.py") == load_config("demo.py") == load_config("demo")
    (here / "configs").mkdir()
    (here / "configs" / "demo.py").write_text("from bert_jax.config import RunConfig\ndef get_config(): return RunConfig(seed=7)\n")
    assert load_config("configs/demo.py").seed == 7, "one of one's own comes first"
    with pytest.raises(InputError, match=r"no configuration file configs/dmo\.py\. Did you mean configs/demo\.py"):
        load_config("configs/dmo.py")
    with pytest.raises(InputError, match=r"no configuration file elsewhere/demo\.py"):
        load_config("elsewhere/demo.py")


@tiny.long
@pytest.mark.slow
def test_a_run_from_an_unkind_shell(tmp_path: Path) -> None:
    """No home, the C locale, a strict umask, no assertions, a checkout behind a link, relative paths below an odd name."""
    folder = tmp_path / "my files #1"
    folder.mkdir()
    (tmp_path / "checkout").symlink_to(ROOT)
    loop = "loop=LoopConfig(log_every=2, evaluate_every=2, save_every=2)"
    write_files(folder, 120, 60, f"steps=2, evaluation_batches=1, {loop}", loop)
    config = (folder / "config.py").read_text(encoding="utf-8").replace(f"{folder}/", "")
    (folder / "config.py").write_text(config, encoding="utf-8")
    kept = {name: value for name, value in children.environment(1).items() if name.startswith(("JAX", "XLA", "NPROC"))}
    environment = kept | {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONPATH": "../checkout"}

    def typed(*words: str, status: int = 0) -> str:
        command = [sys.executable, "-O", *words]
        done = subprocess.run(command, cwd=folder, env=environment, umask=0o077, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == status, done.stderr[-4000:]
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    train = ("../checkout/train.py", "--config=config.py", "--workdir=runs/first")
    assert "runs/first/report.html" in typed(*train) and "The run in runs/first is done" in typed(*train)
    assert "Wrote a BertForPreTraining and its model card to out" in typed("-m", "bert_jax", "export", "runs/first/pretrain", "out")
    assert (folder / "out" / "model.safetensors").is_file()
    assert "runs/first is intact" in typed("-m", "bert_jax", "verify", "runs/first")
    typed("-m", "bert_jax", "classify", "runs/first/finetune", "reviews.tsv", "--output", "answers.jsonl")
    assert (folder / "answers.jsonl").read_text(encoding="utf-8").count("\n") == 60
    assert "belongs to another configuration" in typed(*train, "--config.seed=1", status=2)
    assert not (folder / "runs" / "first" / "pretrain").stat().st_mode & 0o077
