"""The loop: stopped anywhere it goes on as if nothing had been, keeps what it should, and does not hide a failure."""

import dataclasses
import gc
import json
import logging
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import children
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from bert_jax.config import LoopConfig
from bert_jax.errors import InputError, Interrupted, TrainingError
from bert_jax.metrics import TIMINGS, read_metrics
from bert_jax.objectives.losses import Mean
from bert_jax.objectives.tasks import Metrics, row_metrics
from bert_jax.training import loop as loop_room
from bert_jax.training.checkpoint import chosen, restore_parameters
from bert_jax.training.loop import Job, Then, evaluate, train
from bert_jax.training.steps import evaluation_step

WIDTH = 1 << 16  # the parameters fill 256 kB of a disk


@dataclass(frozen=True)
class ToyTask:
    """A line fitted to noise: a task that compiles in no time. Its loss is the root of a sum that the weights can make zero."""

    losses = ("loss",)

    def prepare(self, batch: Any, key: jax.Array) -> Any:
        return {**batch, "noise": jax.random.normal(key, batch["tokens"].shape[:1])}

    def normalisers(self, batch: Any) -> dict[str, jax.Array]:
        del batch
        return {"loss": jnp.float32(1)}

    def metrics(self, params: Any, batch: Any, key: jax.Array | None) -> Metrics:
        tokens, dense = batch["tokens"].astype(jnp.float32), params["dense"]
        scores = tokens @ dense["kernel"][: tokens.shape[1]] / 100 + dense["bias"][0]
        errors = jnp.square(scores - 0.1 * batch["noise"]) * batch["example_weights"][:, 0]
        return {"loss": Mean(jnp.sqrt(errors.sum()), jnp.float32(1)), **row_metrics(batch)}


def toy_parameters() -> Any:
    kernel = np.random.default_rng(0).standard_normal(WIDTH).astype(np.float32)
    return {"dense": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(3)}}


class Batches:
    """Batches that do something to the run, or to themselves, before each step."""

    def __init__(self, inner: Any, before: Callable[[int, dict[str, np.ndarray]], None]) -> None:
        self._inner, self._before, self.step = inner, before, 0
        self.get_state, self.close = inner.get_state, inner.close

    def set_state(self, state: Any) -> None:
        self._inner.set_state(state)

    def __next__(self) -> dict[str, np.ndarray]:
        batch = dict(next(self._inner))
        self.step += 1
        batch["example_weights"] = np.ones_like(batch["example_weights"])
        self._before(self.step, batch)
        return batch


def nothing(step: int, batch: dict[str, np.ndarray]) -> None:
    pass


LOOP = LoopConfig(log_every=2, evaluate_every=4, save_every=3, keep=2)
Before = Callable[[int, dict[str, np.ndarray]], None]


def toy(directory: Path, steps: int = 10, loop: LoopConfig = LOOP, before: Before = nothing, first: int = 0, **changes: Any) -> Job:
    """A job with the toy task; `first` is the step that the batches count from."""

    def wrap(batches: Any) -> Batches:
        wrapped = Batches(batches, before)
        wrapped.step = first
        return wrapped

    job = tiny.job(directory, steps, optimizer=optax.adam(1e-2), loop=loop, wrap=wrap)
    return dataclasses.replace(job, task=ToyTask(), init=toy_parameters, **changes)


@pytest.fixture
def run() -> Iterator[Callable[[Job], int]]:
    """`train`, after which the thread that works ahead has ended."""
    jobs = []

    def train_and_remember(job: Job) -> int:
        jobs.append(job)
        return train(job)

    yield train_and_remember
    for job in jobs:
        job.batches.close()
        if job.then:
            job.then.batches.close()


def lines(directory: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(directory)]


def steps_kept(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in (directory / "checkpoints").iterdir() if path.name.isdigit())


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


def parameters(directory: Path, step: int, shapes: Any) -> dict[str, np.ndarray]:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
    return tiny.flat(restore_parameters(directory / "checkpoints" / str(step), wanted))


def same_bits(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(one[path].tobytes() == other[path].tobytes() for path in one)


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


def spoil(*steps: int, weight: float = np.nan) -> Before:
    """Weights of these steps that spoil the loss: a NaN; or zeros, the slope of whose root is infinite, so that the gradient alone is."""

    def before(step: int, batch: dict[str, np.ndarray]) -> None:
        if step in steps:
            batch["example_weights"][:] = weight

    return before


def test_updates_that_are_not_finite_are_skipped_and_the_run_goes_on(tmp_path: Path, run: Callable[[Job], int]) -> None:
    places, kernels = {}, {}
    job = toy(tmp_path, loop=LoopConfig(log_every=1, evaluate_every=100, save_every=1, keep=20))
    job.batches._before = lambda step, batch: (places.setdefault(step, batch), spoil(4, 7, 8)(step, batch))  # type: ignore[attr-defined]
    run(job)
    for step in range(1, 11):
        kernels[step] = parameters(tmp_path, step, toy_parameters())["dense/kernel"]
        assert (step > 1 and (kernels[step] == kernels[step - 1]).all()) == (step in (4, 7, 8)), step
    training = [line for line in lines(tmp_path) if line["split"] == "train"]
    assert [line["skipped_updates"] for line in training] == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3]
    assert [line["step"] for line in training if line["loss"] is None] == [4, 7, 8], "nothing is known of the loss of these"
    assert training[-1]["learning_rate"] == pytest.approx(training[0]["learning_rate"] * 4 / 9), "the seventh of ten: the rest is to come"
    assert len(places) == 10 and len({batch["tokens"].tobytes() for batch in places.values()}) == 10, "the data goes on"


@pytest.mark.parametrize("weight", [np.nan, 0.0])
def test_too_many_skipped_updates_in_a_row_stop_the_run(tmp_path: Path, run: Callable[[Job], int], weight: float) -> None:
    states = []
    job = toy(tmp_path, loop=dataclasses.replace(LOOP, max_skipped=2), before=spoil(2, 6, 7, weight=weight))
    get_state = job.batches.get_state
    job.batches.get_state = lambda: states.append(get_state()) or states[-1]  # type: ignore[method-assign,func-returns-value]
    with pytest.raises(TrainingError, match=r"stopped at step 7.*2 updates in a row.*of step 6, is good.*skipped\.json"):
        run(job)
    assert steps_kept(tmp_path)[-1] == 6
    assert all(np.isfinite(leaf).all() for leaf in parameters(tmp_path, 6, toy_parameters()).values())
    report = json.loads((tmp_path / "skipped.json").read_text())
    assert [(skipped["step"], skipped["gradient_norm"]) for skipped in report["skipped"]] == [(6, None), (7, None)]
    assert [skipped["loss"] for skipped in report["skipped"]] == [None if np.isnan(weight) else 0.0] * 2
    assert all(skipped["batch"] in states for skipped in report["skipped"])


def test_skips_in_a_row_go_through_a_checkpoint(tmp_path: Path, run: Callable[[Job], int]) -> None:
    loop = dataclasses.replace(LOOP, log_every=4, max_skipped=4)
    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    with pytest.raises(TrainingError, match="at step 9"):
        run(toy(unbroken, loop=loop, before=spoil(3, 6, 7, 8, 9)))

    def stop(step: int, batch: dict[str, np.ndarray]) -> None:
        spoil(3, 6, 7, 8, 9)(step, batch)
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(toy(stopped, loop=loop, before=stop))
    with pytest.raises(TrainingError, match="at step 9"):
        run(toy(stopped, loop=loop, before=spoil(8, 9), first=7))
    assert lines(stopped) == lines(unbroken)
    assert (stopped / "skipped.json").read_text() == (unbroken / "skipped.json").read_text()


def test_a_loss_far_above_its_mean_is_skipped_also_after_a_resume(tmp_path: Path, run: Callable[[Job], int]) -> None:
    def leap(step: int, batch: dict[str, np.ndarray]) -> None:
        if step in (5, 8):
            batch["example_weights"][:] = 1e4

    def stop(step: int, batch: dict[str, np.ndarray]) -> None:
        leap(step, batch)
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    unbroken, stopped, lenient = (tmp_path / name for name in ("unbroken", "stopped", "lenient"))
    run(toy(unbroken, before=leap, skip_above=5.0))
    with pytest.raises(Interrupted):
        run(toy(stopped, before=stop, skip_above=5.0))
    run(toy(stopped, before=leap, first=7, skip_above=5.0))
    assert lines(stopped) == lines(unbroken)
    assert lines(unbroken)[-2]["skipped_updates"] == 2
    run(toy(lenient, before=leap))
    assert lines(lenient)[-2]["skipped_updates"] == 0


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
    assert position.keys() - {"skipped", "skipped_in_a_row"} == {"batches", "window", "real_tokens", "data"}
    path.write_text(json.dumps({name: value for name, value in position.items() if "skipped" not in name}))
    for manifest in directory.glob("checkpoints/*/manifest.json"):  # of an older version, all of them
        arrays = json.loads(manifest.read_text())["content"]["arrays"]
        assert arrays and not any(name.startswith(("optimizer/params", "optimizer/running")) for name in arrays)
        manifest.unlink()
    assert run(toy(directory)) == undisturbed.real_tokens
    assert lines(directory) == lines(undisturbed.directory)


def test_the_average_of_the_parameters_is_evaluated_and_saved_and_training_does_not_see_it(
    tmp_path: Path, run: Callable[[Job], int]
) -> None:
    loop = LoopConfig(log_every=1, evaluate_every=5, save_every=1, keep=20)
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    run(toy(plain, 10, loop, before=spoil(4)))
    run(toy(averaged, 10, loop, before=spoil(4), ema=0.5))
    found, wanted = lines(averaged), lines(plain)
    assert [line for line in found if line["split"] == "train"] == [line for line in wanted if line["split"] == "train"]
    mean = np.asarray(toy_parameters()["dense"]["kernel"])
    for step in range(1, 11):
        decay = min(0.5, step / (9 + step))
        if step != 4:
            mean = decay * mean + (1 - decay) * parameters(plain, step, toy_parameters())["dense/kernel"]
        np.testing.assert_allclose(parameters(averaged, step, toy_parameters())["dense/kernel"], mean, atol=1e-5)
    job = toy(averaged, 10, loop)
    job.batches.close()
    saved = {path.removeprefix("dense/"): jnp.asarray(leaf) for path, leaf in parameters(averaged, 10, toy_parameters()).items()}

    def step(params: Any, batch: Any, index: jax.Array) -> Metrics:
        return evaluation_step(params, batch, index, task=job.task, seed=job.seed)

    expected = evaluate({"dense": saved}, step, job.evaluation_batches, job)["loss"]
    assert found[-1]["loss"] == pytest.approx(expected, rel=1e-5) != pytest.approx(wanted[-1]["loss"], rel=1e-2)


def test_an_average_goes_through_a_checkpoint(tmp_path: Path, run: Callable[[Job], int]) -> None:
    def stop(step: int, batch: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    run(toy(unbroken, ema=0.9))
    with pytest.raises(Interrupted):
        run(toy(stopped, before=stop, ema=0.9))
    run(toy(stopped, ema=0.9))
    assert lines(stopped) == lines(unbroken)
    assert same_bits(parameters(stopped, 10, toy_parameters()), parameters(unbroken, 10, toy_parameters()))


def test_data_that_has_changed_is_not_continued_on(undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int]) -> None:
    directory = Path(shutil.copytree(undisturbed.directory, tmp_path / "copy"))
    with pytest.raises(InputError, match=r"made-up text.*other text"):
        run(toy(directory, data_fingerprint="other text"))


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
