"""Means of metrics over windows of steps and over held-out batches, and when to stop for want of progress."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bert_jax.training.losses import Mean
from bert_jax.training.objective import Objective, SetObjective
from bert_jax.training.sharding import place_batch
from bert_jax.training.steps import EvaluationStep


class Window:
    """Sums of the metrics since the last log line. Saved in checkpoints, so that a resumed run logs the same lines."""

    def __init__(self, saved: Mapping[str, Sequence[float]] | None = None) -> None:
        self.sums: dict[str, list[float]] = {name: list(pair) for name, pair in (saved or {}).items()}

    def add(self, metrics: Mapping[str, Mean]) -> None:
        """Add the metrics of a step."""
        for name, mean in metrics.items():
            pair = self.sums.setdefault(name, [0.0, 0.0])
            pair[0] += float(mean.total)
            pair[1] += float(mean.count)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric that has been counted."""
        return {name: total / count for name, (total, count) in self.sums.items() if count}


class HeldOut(Protocol):
    """The part of a job that evaluation uses."""

    @property
    def evaluation_batches(self) -> Sequence[Mapping[str, np.ndarray]]: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def mesh(self) -> Mesh: ...


def total_loss(means: Mapping[str, float], objective: Objective) -> float:
    """Return the loss that a training step minimizes, given the means of its parts."""
    return sum(means.get(name, 0.0) for name in objective.losses)


def evaluate(params: Any, step: EvaluationStep, job: HeldOut, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
    """Return the means over fixed held-out batches, without dropout and with the same masks at every call; None if stopped.

    A `SetObjective` adds its metrics of all batches together.
    """
    window, outputs = Window(), []
    for index, batch in enumerate(job.evaluation_batches):
        if stop():
            return None
        found = jax.device_get(step(params, place_batch(batch, job.mesh), jnp.int32(index)))
        if isinstance(job.objective, SetObjective):
            found, output = found
            outputs.append(output)
        window.add(found)
    means = window.means()
    means.pop("real_tokens", None)
    together = job.objective.together(outputs) if isinstance(job.objective, SetObjective) else {}
    return {"loss": total_loss(means, job.objective), **means, **together}


class Patience:
    """Counts the evaluations since the best one (early stopping, Prechelt 1998).

    Args:
        limit: how many evaluations without a better score end training; 0 for any number.
        saved: `position` of the run that goes on.
    """

    def __init__(self, limit: int, saved: Mapping[str, Any] | None = None) -> None:
        self._limit, self._state = limit, dict(saved or {"best": None, "since": 0, "step": -1})

    def add(self, step: int, score: float) -> None:
        """Count an evaluation, unless it has been counted."""
        if step > self._state["step"]:
            former = self._state["best"]
            # NaN is no better than anything.
            better = score > (-math.inf if former is None else former)
            best, since = (score, 0) if better else (former, self._state["since"] + 1)
            self._state = {"best": best, "since": since, "step": step}

    @property
    def exhausted(self) -> bool:
        """Whether training should end."""
        return bool(self._limit) and self._state["since"] >= self._limit

    def position(self) -> dict[str, Any]:
        """Return the state as JSON values, for a checkpoint; empty if nothing is counted."""
        return {"patience": dict(self._state)} if self._limit and self._state["step"] >= 0 else {}
