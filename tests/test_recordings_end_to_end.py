"""Recordings from files to answers, by what a user runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
from command_line import failure, json_lines, ok
from numpy.typing import NDArray

import bert_jax
from bert_jax.config import (
    EncoderConfig,
    FinetuneConfig,
    LabelledConfig,
    LoopConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
)
from bert_jax.convert.exports import export_model
from bert_jax.errors import InputError, TextError
from bert_jax.modalities.audio.modality import AudioConfig
from bert_jax.modalities.media.items import Masked
from bert_jax.modalities.media.options import CodebookConfig
from bert_jax.stages.run import run
from bert_jax.stages.verify import verify
from bert_jax.tasks.classification import ClassificationOptions

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

ENCODER = EncoderConfig(
    layers=1, width=32, heads=2, feed_forward=64, max_positions=48, dropout=0.0, attention_dropout=0.0,
    initializer_range=0.1, position_initializer="sinusoidal",
)  # fmt: skip
LOOP = LoopConfig(log_every=10, evaluate_every=40, save_every=20)
SHORT = PretrainConfig(
    steps=2, batch_size=8, evaluation_batches=1, rows=RowsConfig(length=48, next_sentence="none", examples_per_row=2), loop=LOOP
)


def recording(label: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A low or a high tone, of different lengths."""
    time = np.arange(rng.integers(4_000, 9_000)) / 8_000
    return 0.4 * np.sin(2 * np.pi * (300, 1500)[label] * time) + rng.normal(0, 0.02, len(time))


def write_recordings(folder: Path, per_class: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(2 * per_class):
        path = folder / "ab"[index % 2] / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, recording(index % 2, rng), 8_000)


def config(corpus: Any, source: Path, next_sentence: Any, per_row: int) -> RunConfig:
    rows = RowsConfig(length=48, next_sentence=next_sentence, examples_per_row=per_row)
    return RunConfig(
        encoder=ENCODER,
        vocabulary=CodebookConfig(size=16),
        corpus=corpus(str(source)),
        pretrain=PretrainConfig(
            steps=120, batch_size=16, evaluation_batches=1, rows=rows, masking=MaskingConfig(rate=0.4, whole_words=True),
            optimizer=OptimizerConfig(learning_rate=5e-3), loop=LOOP,
        ),
        finetune=FinetuneConfig(
            data=LabelledConfig(train=str(source), dev_fraction=0.2), length=48, examples_per_row=per_row, batch_size=4, epochs=8,
            compare_linear=True, task=ClassificationOptions(pooling="mean"), optimizer=OptimizerConfig(learning_rate=3e-3), loop=LOOP,
        ),
    )  # fmt: skip


def of_recordings(source: str, **changes: Any) -> AudioConfig:
    return AudioConfig(source=source, rate=8_000, bands=16, frames=5, span=2, part_seconds=0.25, valid_fraction=0.3, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    write_recordings(folder / "files", 20)
    run(config(of_recordings, folder / "files", "none", 4), folder / "run")
    return folder / "files", folder / "run"


def files(folder: Path, count: int = 9) -> list[Path]:
    return sorted(path for path in folder.rglob("*.*"))[:count]


def test_it_learns(made: tuple[Path, Path]) -> None:
    summary = json.loads((made[1] / "summary.json").read_text())
    assert summary["pretrain"]["mlm_accuracy"] > summary["pretrain"]["mlm_accuracy_floor"]
    assert summary["finetune"]["accuracy"] > 0.9 and summary["finetune"]["linear_accuracy"] > 0.9
    assert verify(made[1])[0] == []


def test_the_report_shows_pictures(made: tuple[Path, Path]) -> None:
    report, examples = (made[1] / "report.html").read_text(), json.loads((made[1] / "examples.json").read_text())
    shown = examples["fill_mask"][0]
    assert shown["captions"] == ["original", "masked", "completed"] and len({*shown["pictures"]}) == 3
    for one in (*shown["pictures"], *examples["vocabulary"][0]["pictures"], *examples["classify"][0]["pictures"]):
        assert one.startswith("data:image/png;base64,") and one in report


def test_paths_bytes_and_arrays_have_one_answer(made: tuple[Path, Path]) -> None:
    clf = bert_jax.load(made[1] / "finetune")
    paths = files(made[0])
    content = [path.read_bytes() for path in paths]
    arrays = [soundfile.read(path)[0].astype(np.float32) for path in paths]
    together = clf.classify(paths)
    assert [answer.label for answer in together] == [path.parent.name for path in paths]
    for several in ([*map(str, paths)], content, arrays):
        for one, other in zip(clf.classify(several), together, strict=True):
            assert one.probability == pytest.approx(other.probability, abs=2e-3)
    for each in (paths[0], str(paths[0]), content[0], arrays[0]):
        assert clf.classify(each).probability == pytest.approx(together[0].probability, abs=2e-3)


def test_neighbors_in_a_row_change_nothing(made: tuple[Path, Path]) -> None:
    bert = bert_jax.load(made[1] / "pretrain")
    paths = files(made[0], 12)
    np.testing.assert_allclose(bert.embed(paths), [bert.embed(path) for path in paths], atol=2e-6)


def test_masks_are_filled(made: tuple[Path, Path]) -> None:
    bert = bert_jax.load(made[1] / "pretrain")
    path, fragment = files(made[0])[0], "t=0.1,0.2"
    masks = bert.fill_mask(f"{path}#{fragment}", top_k=3)
    assert len(masks) >= 2 and all(len(mask) == 3 for mask in masks)
    assert bert.fill_mask(Masked(path.read_bytes(), fragment), top_k=3) == masks
    assert bert.fill_mask(f"{path}#{fragment}", top_k=1, words=["3"])[0][0].token == "3"
    assert bert.score(path) < 0
    with pytest.raises(TextError, match=r"has no \[MASK\]: say what to mask at the end of its path"):
        bert.fill_mask(path)
    with pytest.raises(InputError, match="There is no code '99'"):
        bert.fill_mask(f"{path}#{fragment}", words=["99"])


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("nothing.png", "does not exist"),
        (b"hello", "is not"),
        (5, "is not a path, bytes or an array but int"),
        (np.zeros((30, 3), np.complex64), "complex64"),
    ],
)
def test_bad_inputs_are_named(made: tuple[Path, Path], query: Any, problem: str) -> None:
    clf = bert_jax.load(made[1] / "finetune")
    with pytest.raises(TextError, match=rf"Recording 1 \(counted from 0\) .*{problem}"):
        clf.classify([files(made[0])[0], query])


def test_what_it_cannot_do_is_said(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="units, which other libraries have no equivalent for"):
        export_model(made[1] / "pretrain", tmp_path / "out")
    with pytest.raises(InputError, match="A prompt is text, but this model reads"):
        bert_jax.load(made[1] / "pretrain").embed(files(made[0])[0], prompt="query: ")


def test_a_list_of_files_in_the_shell(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, workdir = made
    good = [str(path.relative_to(folder)) for path in files(folder, 3)]
    (folder / "broken.bin").write_bytes(b"no file of any medium")
    (folder / "list.txt").write_text("\n".join([*good, "missing.png", "broken.bin", "../run/summary.json", "/etc/hostname"]) + "\n")
    model = os.path.relpath(workdir / "finetune", folder)
    command = [sys.executable, "-m", "bert_jax", "classify", model, "list.txt", "--output", "out.jsonl"]
    done = subprocess.run(command, cwd=folder, env=children.environment(1), capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    for name in ("list.txt", "out.jsonl", "broken.bin"):
        (folder / name).unlink()
    assert done.returncode == 0 and "3 answers, 4 invalid lines in out.jsonl" in done.stderr
    assert [line["text"] for line in lines[:3]] == good and all(line["label"] in "ab" for line in lines[:3])
    errors = [line["error"] for line in lines[3:]]
    assert "does not exist" in errors[0] and "leads out of" in errors[2]
    assert errors[3].startswith(f"is absolute: write it relative to {folder}, the folder of the table or list")
    monkeypatch.chdir(folder)
    capsys.readouterr()
    ok("classify", model, good[0], "--json")
    assert json_lines(capsys.readouterr().out)[0]["label"] == lines[0]["label"]
    assert "'missing.png' does not exist" in failure(capsys, "classify", model, "missing.png")


