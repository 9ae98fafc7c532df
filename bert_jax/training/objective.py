"""Training objectives.

An objective computes sums and counts for a batch. Its loss is the sum of total / normalizer over `losses`. The normalizers are counted
over the full batch before it is divided into microbatches, so gradient accumulation does not change the loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from bert_jax.model.bert import Batch
from bert_jax.training.losses import Mean

Metrics = dict[str, Mean]


class Objective(Protocol):
    """The interface between a task and the training step."""

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the metrics whose means sum to the loss."""

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        """Change the examples of a training batch at random, before `prepare`; most objectives do not."""

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Prepare a batch for the model, for example by masking it; `key` is the only source of randomness."""

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """Return the count of each loss over a prepared batch."""

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Return sums and counts over a prepared batch; per-row keys [B, 2] enable dropout."""


@runtime_checkable
class SetObjective(Objective, Protocol):
    """An objective with metrics of all held-out examples together, such as a rank correlation, which no means over batches give."""

    def evaluated(self, params: Any, batch: Batch) -> tuple[Metrics, Any]:
        """Return the metrics of a held-out batch, and a tree of arrays that `together` needs of it."""

    def together(self, outputs: Sequence[Any]) -> dict[str, float]:
        """Return metrics of all held-out batches together, from the arrays of each as numpy arrays."""


def row_metrics(batch: Batch) -> Metrics:
    """Return `real_tokens` (a sum over one step) and `padding` (the fraction of padding tokens)."""
    slots = jnp.float32(batch["example_ids"].size)
    real = (batch["example_ids"] > 0).sum().astype(jnp.float32)
    return {"real_tokens": Mean(real, jnp.float32(1)), "padding": Mean(slots - real, slots)}


def example_weights(batch: Batch) -> jax.Array:
    """Return 1 for each slot that holds a labeled example, and 0 for others; float32 [B, E]."""
    return batch["example_weights"]


@dataclass(frozen=True)
class LabeledObjective:
    """What objectives over labeled batches have in common: one loss, and batches that need no preparation.

    Attributes:
        model: the model.
        augmentation: changes a training batch at random.
    """

    model: Any
    augmentation: Callable[[Batch, jax.Array], Batch] | None = field(default=None, kw_only=True)

    losses = ("loss",)

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        """Apply the augmentation, if there is one."""
        return self.augmentation(batch, key) if self.augmentation else batch

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return the batch unchanged."""
        del key
        return batch


@dataclass(frozen=True)
class ExampleObjective(LabeledObjective):
    """A loss over the labels of a batch, for models that output one prediction per example or per token, [B, E, ...] or [B, L, ...].

    Attributes:
        measure: (predictions, batch) -> the metric `loss` and any others, as sums and counts weighted by what `weights` returns.
        weights: the weight of each label of a batch, float32 [B, ...]; by default, those of the examples.
    """

    measure: Callable[[jax.Array, Batch], Metrics]
    weights: Callable[[Batch], jax.Array] = example_weights

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """Count the labels in the batch."""
        return {"loss": self.weights(batch).sum()}

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Return the metrics of `measure` and of `row_metrics`."""
        return {**self.measure(self.model.apply({"params": params}, batch, keys), batch), **row_metrics(batch)}
