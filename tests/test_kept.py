"""Which checkpoints a run keeps, what it refuses to go on from, and what it makes of those that it finds."""

import dataclasses
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from toy import (
    LOOP,
    WIDTH,
    Undisturbed,
    best_and_newest,
    lines,
    parameters,
    same_bits,
    steps_kept,
    toy,
    toy_parameters,
)

from bert_jax.config import LoopConfig
from bert_jax.errors import InputError, Interrupted, TrainingError
from bert_jax.training.checkpoints import manifest
from bert_jax.training.loop import Job


def test_the_newest_and_the_best_are_kept(tmp_path: Path, run: Callable[[Job], int]) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.3, 0.25])
    loop = LoopConfig(log_every=5, evaluate_every=2, save_every=1, keep=2)
    run(toy(tmp_path, 5, loop, score=lambda metrics: next(scores)))
    assert steps_kept(tmp_path) == [4, 5]
    assert best_and_newest(tmp_path) == (4, 5)
    # The best of before is remembered by the run that goes on.
    run(toy(tmp_path, 8, loop, score=lambda metrics: next(scores)))
    assert steps_kept(tmp_path) == [4, 7, 8]
    assert best_and_newest(tmp_path) == (4, 8)


def test_of_equal_scores_the_later_is_the_best(tmp_path: Path, run: Callable[[Job], int]) -> None:
    loop = LoopConfig(log_every=5, evaluate_every=1, save_every=1, keep=1)
    scores = iter([0.5, 0.7, 0.7, 0.2])
    run(toy(tmp_path, 4, loop, score=lambda metrics: next(scores)))
    assert steps_kept(tmp_path) == [3, 4]
    assert best_and_newest(tmp_path) == (3, 4)


def test_an_empty_directory_has_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no committed checkpoint in .*checkpoints"):
        best_and_newest(tmp_path)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (jnp.zeros(WIDTH + 1), rf"dense/kernel: it is \({WIDTH},\) in the checkpoint and \({WIDTH + 1},\) in the model"),
        (jnp.zeros(WIDTH, jnp.bfloat16), "dense/kernel: it is float32 in the checkpoint and bfloat16 in the model"),
    ],
)
def test_a_checkpoint_of_another_model_is_named_with_its_parameter(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int], kernel: jax.Array, message: str
) -> None:
    directory = Path(shutil.copytree(undisturbed.directory, tmp_path / "copy"))
    before = lines(directory)
    with pytest.raises(InputError, match=message):
        run(dataclasses.replace(toy(directory), init=lambda: {"dense": {"kernel": kernel, "bias": jnp.zeros(3)}}))
    with pytest.raises(InputError, match="dense/other: it is missing"):
        run(dataclasses.replace(toy(directory), init=lambda: {"dense": {"other": kernel}}))
    assert lines(directory) == before and steps_kept(directory) == steps_kept(undisturbed.directory), "nothing was lost"


def test_a_checkpoint_from_before_updates_were_skipped_is_continued(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int]
) -> None:
    directory = Path(shutil.copytree(undisturbed.directory, tmp_path / "copy"))
    shutil.rmtree(directory / "checkpoints" / "10")
    path = directory / "checkpoints" / "9" / "position" / "metadata"
    position = json.loads(path.read_text())
    later = {"skipped", "skipped_in_a_row", "metrics"}
    assert position.keys() - later == {"batches", "window", "real_tokens", "data"}
    path.write_text(json.dumps({name: value for name, value in position.items() if name not in later}))
    for file in directory.glob("checkpoints/*/manifest.json"):  # of an older version, all of them
        arrays = json.loads(file.read_text())["content"]["arrays"]
        assert arrays and not any(name.startswith(("optimizer/params", "optimizer/running")) for name in arrays)
        file.unlink()
    assert run(toy(directory)) == undisturbed.real_tokens
    assert lines(directory) == lines(undisturbed.directory)


def test_data_that_has_changed_is_not_continued_on(undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int]) -> None:
    directory = Path(shutil.copytree(undisturbed.directory, tmp_path / "copy"))
    with pytest.raises(InputError, match=r"made-up text.*other text"):
        run(toy(directory, data_fingerprint="other text"))
    # An earlier version may have given the same data another name.
    assert run(toy(directory, data_fingerprint="other text", former_fingerprints=("made-up text",))) == undisturbed.real_tokens


@pytest.mark.parametrize("damage", ["none", "lines lost", "file lost", "a letter changed"])
def test_metrics_that_are_not_what_was_written_are_told(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    directory = Path(shutil.copytree(undisturbed.directory, tmp_path / "copy"))
    shutil.rmtree(directory / "checkpoints" / "10")
    file = directory / "metrics.jsonl"
    kept, words = file.read_text().splitlines(keepends=True), ""
    if damage == "lines lost":
        file.write_text("".join(kept[:3]) + kept[3][:20])
        words = "it has 3 intact lines, the last at step 4, but 6 were written"
    elif damage == "file lost":
        file.unlink()
        words = "it has 0 intact lines, but 6 were written"
    elif damage == "a letter changed":
        file.write_text("".join(kept).replace('"loss"', '"lost"', 1))
        words = "it has a changed line"
    run(toy(directory))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning")]
    assert [f"{file} has changed since the checkpoint was saved: {words}" in line for line in told] == [True] * (damage != "none")
    assert [line["step"] for line in lines(directory)][-2:] == [10, 10]


@pytest.mark.parametrize("damaged", [False, True])
def test_checkpoints_are_verified_while_the_first_steps_run(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int], monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    loop, six = dataclasses.replace(LOOP, verify="background"), threading.Event()

    def interrupted(step: int, batch: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(toy(tmp_path, before=interrupted))
    file = max((tmp_path / "checkpoints" / "5" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    if damaged:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    sha256 = manifest.sha256

    def slow(path: Path) -> str:
        assert path.parent.name == "position" or six.wait(60)
        return sha256(path)

    def look(step: int, batch: Any) -> None:
        if step == 7:  # the sixth has been dispatched, and its checkpoint is still to be written
            six.set()

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "sha256", slow)
        go_on = toy(tmp_path, loop=dataclasses.replace(loop, save_every=100), before=look, first=5)
        if damaged:
            with pytest.raises(TrainingError, match=f"{file} has changed since it was written.*nothing has been saved.*same command again"):
                run(go_on)
            assert steps_kept(tmp_path) == [4] and (tmp_path / "checkpoints" / "5.damaged").exists()
            assert run(toy(tmp_path, loop=loop)) == undisturbed.real_tokens
        else:
            assert run(go_on) == undisturbed.real_tokens
    assert lines(tmp_path) == lines(undisturbed.directory)
    assert same_bits(parameters(tmp_path, 10, toy_parameters()), parameters(undisturbed.directory, 10, toy_parameters()))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_warm_start_is_for_the_first_start_alone(tmp_path: Path, run: Callable[[Job], int], ema: float) -> None:
    calls = []

    def warm(params: Any) -> Any:
        calls.append(params)
        return {"dense": {"kernel": params["dense"]["kernel"], "bias": params["dense"]["bias"] + 5}}

    loop = LoopConfig(log_every=1, evaluate_every=2, save_every=1, keep=9)
    run(toy(tmp_path, 2, loop, warm_start=warm, ema=ema))
    assert parameters(tmp_path, 1, toy_parameters())["dense/bias"][1] == 5, "nothing learns the second bias"
    run(toy(tmp_path, 3, loop, warm_start=warm, ema=ema))
    assert len(calls) == 1
    assert parameters(tmp_path, 3, toy_parameters())["dense/bias"][1] == 5


def test_saved_sums_are_those_of_the_step(tmp_path: Path, run: Callable[[Job], int]) -> None:
    """The window of a log line is written to disk while later steps are added to it."""
    loop = LoopConfig(log_every=1000, evaluate_every=1000, save_every=20, keep=1000)
    run(toy(tmp_path, 101, loop))
    saved = [json.loads((tmp_path / "checkpoints" / str(step) / "position" / "metadata").read_text()) for step in range(20, 101, 20)]
    assert [position["window"]["loss"][1] for position in saved] == list(range(20, 101, 20))
