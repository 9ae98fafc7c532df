"""A job that compiles in no time and can be spoilt at any step, and what its directory is asked afterwards."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny

from bert_jax.config import LoopConfig
from bert_jax.runtime.metrics import TIMINGS, read_metrics
from bert_jax.training.checkpoints import manifest
from bert_jax.training.checkpoints.loading import chosen, restore_parameters
from bert_jax.training.loop import Job, train
from bert_jax.training.losses import Mean
from bert_jax.training.objective import Metrics, row_metrics
from bert_jax.training.optimizer import unless_skipped

WIDTH = 1 << 16  # the parameters fill 256 kB of a disk


@dataclass(frozen=True)
class ToyTask:
    """A line fitted to noise: a task that compiles in no time. Its loss is the root of a sum that the weights can make zero."""

    losses = ("loss",)

    def augment(self, batch: Any, key: jax.Array) -> Any:
        del key
        return batch

    def prepare(self, batch: Any, key: jax.Array) -> Any:
        return {**batch, "noise": jax.random.normal(key, batch["tokens"].shape[:1])}

    def normalizers(self, batch: Any) -> dict[str, jax.Array]:
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

    job = tiny.job(directory, steps, optimizer=unless_skipped(optax.adam(1e-2)), loop=loop, wrap=wrap)
    return dataclasses.replace(job, objective=ToyTask(), init=toy_parameters, **changes)


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


def scores(directory: Path) -> dict[int, float | None]:
    found = {step: manifest.read(directory / "checkpoints" / str(step)) for step in steps_kept(directory)}
    return {step: saved.score for step, saved in found.items() if saved}


def best_and_newest(directory: Path) -> tuple[int, int]:
    best, newest = (chosen(directory / "checkpoints", best)[0].name for best in (True, False))
    return int(best), int(newest)


class Undisturbed:
    """A whole run of the toy task, and what was compiled in it."""

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
