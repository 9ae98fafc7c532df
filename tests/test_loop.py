"""The loop: killed it goes on as if nothing had been; it logs what it does, and does not hide a failure."""

import dataclasses
import gc
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import jax
import numpy as np
import pytest
import tiny
from toy import (
    LOOP,
    WIDTH,
    Batches,
    Before,
    Undisturbed,
    lines,
    nothing,
    parameters,
    same_bits,
    steps_kept,
    toy,
    toy_parameters,
    wait_for,
)

from bert_jax.errors import Interrupted
from bert_jax.model.flops import StepFlops
from bert_jax.runtime.metrics import read_metrics
from bert_jax.training import loop as loop_room
from bert_jax.training.loop import Job, Phase, train

# Killed.


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path) -> None:
    loop = {"log_every": 4, "evaluate_every": 8, "save_every": 3, "keep": 2}
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    # Two steps of a log line are in the checkpoint, and two that were dispatched after it are lost.
    blow = {"directory": str(killed), "steps": 11, "signal": "SIGKILL", "at": 9, "after": 6}
    children.train([{"directory": str(unbroken), "steps": 11}, blow], loop, wanted=children.KILLED)
    assert 6 in steps_kept(killed) and 11 not in steps_kept(killed)
    junk = killed / "checkpoints" / "9.orbax-checkpoint-tmp" / "params"
    junk.mkdir(parents=True, exist_ok=True)  # what a blow in the midst of saving leaves
    (junk / "half").write_bytes(b"\x00" * 100)
    children.train([{"directory": str(killed), "steps": 11}], loop)
    assert lines(killed) == lines(unbroken)
    assert [(line["step"], line["split"]) for line in lines(unbroken)] == [
        (4, "train"), (8, "train"), (8, "valid"), (11, "train"), (11, "valid")
    ]  # fmt: skip
    shapes = tiny.initial_parameters(tiny.IN_JOBS)
    assert same_bits(parameters(killed, 11, shapes), parameters(unbroken, 11, shapes))
    assert not same_bits(parameters(unbroken, 11, shapes), tiny.flat(shapes))
    assert sorted(path.name for path in (killed / "checkpoints").glob("*tmp*")) == []


def test_a_finished_run_has_nothing_to_do(undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int]) -> None:
    again = Path(shutil.copytree(undisturbed.directory, tmp_path / "again"))

    def never(step: int, batch: Any) -> None:
        raise AssertionError("another step")

    assert run(toy(again, before=never)) == undisturbed.real_tokens
    assert lines(again) == lines(undisturbed.directory)


# Failures.


# What Orbax's threads held of the failed save may be collected, with a warning, while pytest looks.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_last_save_that_fails_fails_the_run(tmp_path: Path, run: Callable[[Job], int]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(step: int, batch: Any) -> None:
        if step == 10:
            wait_for(tmp_path / "checkpoints" / "8")
            resource.setrlimit(resource.RLIMIT_FSIZE, (WIDTH, limits[1]))  # a quarter of the parameters

    loop = dataclasses.replace(LOOP, save_every=4)
    try:
        with pytest.raises(Exception, match="File too large"):
            run(toy(tmp_path, loop=loop, before=fill_the_disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert steps_kept(tmp_path)[-1] == 8
    assert run(toy(tmp_path, loop=loop)) > 0, "with room again the run ends as it should"
    assert steps_kept(tmp_path)[-1] == 10


# Watched.


def test_each_program_is_compiled_once(undisturbed: Undisturbed) -> None:
    for name in ("jit(step)", "jit(evaluate)"):
        assert sum(name in message for message in undisturbed.compiled) == 1, name


def test_the_metrics_of_a_run(undisturbed: Undisturbed) -> None:
    found = read_metrics(undisturbed.directory)
    assert [(line["step"], line["split"]) for line in found] == [
        (2, "train"), (4, "train"), (4, "valid"), (6, "train"), (8, "train"), (8, "valid"), (10, "train"), (10, "valid")
    ]  # fmt: skip
    training = [line for line in found if line["split"] == "train"]
    assert training[-1]["real_tokens"] == undisturbed.real_tokens > training[0]["real_tokens"] > 0
    rates = [line["learning_rate"] for line in training]
    assert rates[0] == pytest.approx(3e-3) and rates[-1] == pytest.approx(3e-3 / 9), "the rates of steps 1 and 9, the last"
    assert all(0 <= line["data_wait"] <= 1 and line["real_tokens_per_second"] > 0 and 0 < line["padding"] < 1 for line in training)
    assert not {"real_tokens", "gradient_norm"} & found[2].keys(), "evaluation does not train"


def test_chosen_steps_are_traced(tmp_path: Path, run: Callable[[Job], int], monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    calls = []
    begin, end = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: (calls.append(("begin", len(steps))), begin(path)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (calls.append(("end", len(steps))), end()))
    run(toy(tmp_path, loop=dataclasses.replace(LOOP, profile="4:6"), before=lambda step, batch: steps.append(step)))
    assert calls == [("begin", 3), ("end", 6)]
    assert [path.stat().st_size > 0 for path in (tmp_path / "profile").rglob("*.xplane.pb")] == [True]


def test_a_trace_of_the_last_steps_is_written_too(tmp_path: Path, run: Callable[[Job], int]) -> None:
    run(toy(tmp_path, loop=dataclasses.replace(LOOP, profile="10:99")))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_the_models_operations_and_their_share_of_the_peak_are_logged(
    tmp_path: Path, run: Callable[[Job], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = dataclasses.replace(LOOP, log_every=5)
    monkeypatch.setattr("bert_jax.training.loop.peak_flops", lambda: 4e9)
    seen: list[tuple[int, int]] = []

    def count(step: int, batch: Any) -> None:
        lengths = [int(n) for row in batch["example_ids"] for n in np.bincount(row)[1:]]
        seen.append((sum(lengths), sum(n * n for n in lengths)))

    flops = StepFlops(per_token=10**3, per_pair=10, fixed=10**5)
    run(toy(tmp_path / "known", loop=loop, flops=flops, before=count))
    monkeypatch.setattr("bert_jax.training.loop.peak_flops", lambda: None)
    run(toy(tmp_path / "unknown", loop=loop, flops=flops))
    first, second = (line for line in read_metrics(tmp_path / "known") if line["split"] == "train")
    for line, steps in ((first, seen[:5]), (second, seen[5:10])):
        tokens, pairs = map(sum, zip(*steps, strict=True))
        seconds = tokens / line["real_tokens_per_second"]
        assert line["model_flops_per_second"] == pytest.approx((10**3 * tokens + 10 * pairs + 5 * 10**5) / seconds)
        assert "attended_pairs" not in line
        assert line["mfu"] == pytest.approx(line["model_flops_per_second"] / 4e9)
    line = read_metrics(tmp_path / "unknown")[-2]
    assert line["model_flops_per_second"] > 0 and "mfu" not in line


# Long rows at the end.


def two_shapes(directory: Path, before: Before = nothing, shapes: dict[int, tuple[int, ...]] | None = None) -> Job:
    """Six steps on 8 rows of 32 tokens, and four on 4 rows of 24."""

    def look(step: int, batch: dict[str, np.ndarray]) -> None:
        before(step, batch)
        if shapes is not None:
            shapes[step] = batch["tokens"].shape

    other = tiny.job(directory, 10, rows=dataclasses.replace(tiny.ROWS, length=24), batch_size=4)
    batches = Batches(other.batches, look)
    batches.step = 6
    return toy(directory, before=look, next_phase=Phase(6, 2, batches, other.evaluation_batches))  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [5, 6, 7, 9])
def test_a_run_with_two_shapes_goes_on_from_anywhere(two_shaped: Path, tmp_path: Path, run: Callable[[Job], int], at: int) -> None:
    def stop(step: int, batch: Any) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"step {at} of 10"):
        run(two_shapes(tmp_path, before=stop))
    run(two_shapes(tmp_path))
    assert lines(tmp_path) == lines(two_shaped)
    assert same_bits(parameters(tmp_path, 10, toy_parameters()), parameters(two_shaped, 10, toy_parameters()))


@pytest.fixture(scope="module")
def two_shaped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with two shapes: each is compiled once, before its first step, and evaluated on held-out rows of its own."""
    directory = tmp_path_factory.mktemp("two shapes")
    shapes: dict[int, tuple[int, ...]] = {}
    job = two_shapes(directory, shapes=shapes)
    calls: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        compile_once = loop_room.compile_steps
        patch.setattr(loop_room, "compile_steps", lambda *arguments: calls.append(compile_once(*arguments)) or calls[-1])  # type: ignore[func-returns-value]
        train(job)
    for batches in (job.batches, job.next_phase and job.next_phase.batches):
        batches.close()  # type: ignore[union-attr]
    assert shapes == {step: (8, 32) if step <= 6 else (4, 24) for step in range(1, 11)}
    assert [[step._cache_size() for step in steps] for steps in calls] == [[1, 1], [1, 1]]
    return directory
