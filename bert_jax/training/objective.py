"""What a training step computes.

An objective turns a batch into sums and counts. Its loss is the sum over `losses` of total / normalizer, where the normalizers
are counted over the whole batch before it is divided into microbatches, so accumulating gradients changes none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bert_jax.model.bert import Batch
from bert_jax.training.losses import Mean

Metrics = dict[str, Mean]


class Objective(Protocol):
    """What the training step needs to know of a task."""

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the metrics whose means are added up to the loss."""

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch as the model sees it (corrupted, for instance), drawn from `key`."""

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """The count of each loss over a prepared batch."""

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Sums and counts over a prepared batch; keys of its rows [B] turn dropout on."""


def row_metrics(batch: Batch) -> Metrics:
    """How full the rows are: `real_tokens` (a sum over one step) and `padding` (a share)."""
    slots = jnp.float32(batch["example_ids"].size)
    real = (batch["example_ids"] > 0).sum().astype(jnp.float32)
    return {"real_tokens": Mean(real, jnp.float32(1)), "padding": Mean(slots - real, slots)}


@dataclass(frozen=True)
class ExampleObjective:
    """One loss over the labelled examples of a batch: that of a model whose output is a prediction for each of them.

    Attributes:
        model: gives [B, E, ...] for a batch.
        measure: the metric `loss`, and others, of predictions and their batch, as sums and counts weighted by `example_weights`.
    """

    model: Any
    measure: Callable[[jax.Array, Batch], Metrics]

    losses = ("loss",)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch as it is."""
        del key
        return batch

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """Labelled examples in the batch."""
        return {"loss": batch["example_weights"].sum()}

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """What `measure` says, and how full the rows are."""
        return {**self.measure(self.model.apply({"params": params}, batch, keys), batch), **row_metrics(batch)}
