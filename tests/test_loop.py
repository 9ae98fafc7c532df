"""The loop: stopped anywhere it goes on as if nothing had been, keeps what it should, and does not hide a failure."""

import dataclasses
import gc
import json
import logging
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from toy import LOOP, WIDTH, Batches, Before, lines, nothing, parameters, same_bits, steps_kept, toy, toy_parameters, wait_for

from bert_jax.config import LoopConfig
from bert_jax.errors import InputError, Interrupted
from bert_jax.metrics import read_metrics
from bert_jax.training import loop as loop_room
from bert_jax.training import manifest
from bert_jax.training.checkpoint import chosen
from bert_jax.training.loop import Job, Then, train
from bert_jax.training.verification import faults

# Killed.


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path) -> None:
    loop = {"log_every": 4, "evaluate_every": 8, "save_every": 3, "keep": 2}
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    children.train([{"directory": str(unbroken), "steps": 11}], loop)
    # Two steps of a log line are in the checkpoint, and two that were dispatched after it are lost.
    blow = {"directory": str(killed), "steps": 11, "signal": "SIGKILL", "at": 9, "after": 6}
    children.train([blow], loop, wanted=children.KILLED)
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


# Asked to stop.


class Undisturbed:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        compiled = []
        handler = logging.Handler()
        handler.emit = lambda record: compiled.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("jax")
        logger.addHandler(handler)
        job = toy(directory)
        try:
            with jax.log_compiles():
                self.real_tokens = train(job)
        finally:
            logger.removeHandler(handler)
            job.batches.close()
        self.compiled = [message for message in compiled if message.startswith("Finished XLA compilation")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A whole run of the toy task, and what was compiled in it."""
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_later(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int], number: signal.Signals
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def stop(step: int, batch: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="step 5 of 10 and saved it") as raised:
        run(toy(tmp_path, before=stop))
    assert raised.value.number == number
    assert steps_kept(tmp_path)[-1] == 5
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert run(toy(tmp_path)) == undisturbed.real_tokens
    assert lines(tmp_path) == lines(undisturbed.directory)
    shapes = toy_parameters()
    assert same_bits(parameters(tmp_path, 10, shapes), parameters(undisturbed.directory, 10, shapes))


class Struck(list[Any]):
    """Evaluation batches, before one of which the process gets a signal."""

    def __init__(self, batches: Any, before: int) -> None:
        super().__init__(batches)
        self.before, self.read = before, 0

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.read += 1
            if self.read == self.before:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


# In the first of two batches of step 4, in its second after which it is whole, and in the evaluation of the last step.
@pytest.mark.parametrize(("before", "step"), [(1, 4), (2, 4), (5, 10)])
def test_a_stop_does_not_wait_for_an_evaluation_which_is_done_later(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int], before: int, step: int
) -> None:
    job = toy(tmp_path)
    struck = Struck(job.evaluation_batches, before)
    with pytest.raises(Interrupted, match=f"step {step} of 10 and saved it") as raised:
        run(dataclasses.replace(job, evaluation_batches=struck))
    assert raised.value.number == signal.SIGTERM and struck.read == before
    assert (lines(tmp_path)[-1]["step"], lines(tmp_path)[-1]["split"]) == (step, "train")
    assert steps_kept(tmp_path)[-1] == step and manifest.read(tmp_path / "checkpoints" / str(step)).score is None
    again = Struck(job.evaluation_batches, before=1)
    with pytest.raises(Interrupted, match=f"step {step} of 10"):
        run(dataclasses.replace(toy(tmp_path), evaluation_batches=again))
    # A blow between the line of that evaluation and the score.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "split": "valid", "loss": 0}) + "\n")
    assert run(toy(tmp_path)) == undisturbed.real_tokens
    assert lines(tmp_path) == lines(undisturbed.directory)
    assert same_bits(parameters(tmp_path, 10, toy_parameters()), parameters(undisturbed.directory, 10, toy_parameters()))
    assert scores(tmp_path).items() >= scores(undisturbed.directory).items()
    assert not any(faults(tmp_path / "checkpoints" / str(kept)) for kept in steps_kept(tmp_path))
    assert best_and_newest(tmp_path) == best_and_newest(undisturbed.directory)


def scores(directory: Path) -> dict[int, float | None]:
    found = {step: manifest.read(directory / "checkpoints" / str(step)) for step in steps_kept(directory)}
    return {step: saved.score for step, saved in found.items() if saved}


def test_the_best_is_kept_also_where_its_score_is_known_later(tmp_path: Path, run: Callable[[Job], int]) -> None:
    loop = LoopConfig(log_every=5, evaluate_every=2, save_every=1, keep=1)
    values = {2: 0.1, 4: 0.9, 6: 0.2, 8: 0.3}
    step = 0

    def look(now: int, batch: Any) -> None:
        nonlocal step
        step = now

    def job(first: int = 0) -> Job:
        return toy(tmp_path, 8, loop, before=look, first=first, score=lambda metrics: values[step])

    first = job()
    with pytest.raises(Interrupted, match="step 4 of 8"):
        run(dataclasses.replace(first, evaluation_batches=Struck(first.evaluation_batches, before=3)))
    run(job(first=4))
    assert best_and_newest(tmp_path) == (4, 8)
    assert scores(tmp_path) == {4: 0.9, 8: 0.3}


def test_a_signal_during_the_last_save_is_not_lost(tmp_path: Path, run: Callable[[Job], int], monkeypatch: pytest.MonkeyPatch) -> None:
    save = loop_room.Checkpoints.save

    def struck(self: Any, step: int, *arguments: Any) -> None:
        save(self, step, *arguments)
        if step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop_room.Checkpoints, "save", struck)
    with pytest.raises(Interrupted, match="step 10 of 10"):
        run(toy(tmp_path))
    assert steps_kept(tmp_path)[-1] == 10 and lines(tmp_path)[-1]["split"] == "valid"


def test_a_second_interrupt_ends_at_once(tmp_path: Path, run: Callable[[Job], int]) -> None:
    def stop(step: int, batch: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(toy(tmp_path, before=stop))
    assert steps_kept(tmp_path)[-1] == 4


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
    run(toy(tmp_path / "known", loop=loop, flops=10**6))
    monkeypatch.setattr("bert_jax.training.loop.peak_flops", lambda: None)
    run(toy(tmp_path / "unknown", loop=loop, flops=10**6))
    first, second = (line for line in read_metrics(tmp_path / "known") if line["split"] == "train")
    for line, tokens in ((first, first["real_tokens"]), (second, second["real_tokens"] - first["real_tokens"])):
        seconds = tokens / line["real_tokens_per_second"]
        assert line["model_flops_per_second"] == pytest.approx(5 * 10**6 / seconds)
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
    return toy(directory, before=look, then=Then(6, 2, batches, other.evaluation_batches))  # type: ignore[arg-type]


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
    for batches in (job.batches, job.then and job.then.batches):
        batches.close()  # type: ignore[union-attr]
    assert shapes == {step: (8, 32) if step <= 6 else (4, 24) for step in range(1, 11)}
    assert [[step._cache_size() for step in steps] for steps in calls] == [[1, 1], [1, 1]]
    return directory


# Checkpoints.


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


def best_and_newest(directory: Path) -> tuple[int, int]:
    best, newest = (chosen(directory / "checkpoints", best)[0].name for best in (True, False))
    return int(best), int(newest)


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
        words = "it has 3 whole lines, the last of step 4, where 6 were written"
    elif damage == "file lost":
        file.unlink()
        words = "it has 0 whole lines, where 6 were written"
    elif damage == "a letter changed":
        file.write_text("".join(kept).replace('"loss"', '"lost"', 1))
        words = "it has a changed line"
    run(toy(directory))
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [f"{file} is not what was written before the checkpoint: {words}" in line for line in told] == [True] * (damage != "none")
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
            with pytest.raises(InputError, match=f"{file} is not what was written.*nothing has been saved.*same command again"):
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
