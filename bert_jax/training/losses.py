"""Losses and metrics. A metric is a sum and a count, so it can be added up over batches, microbatches and devices."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean:
    """A weighted mean before the division: float32 scalars `total` and `count`."""

    total: jax.Array
    count: jax.Array

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)


def weighted_mean(values: jax.Array, weights: jax.Array) -> Mean:
    """Return the weighted sum of `values` and the sum of `weights`, which have the same shape."""
    return Mean((values * weights).sum(), weights.sum())


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Return -log softmax(scores)[label] for logits `scores`: float32 [..., C], int32 [...] -> float32 [...]."""
    return jax.nn.logsumexp(scores, axis=-1) - _chosen(scores, labels)[..., 0]


def classification_metrics(name: str, scores: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, Mean]:
    """Return `<name>_loss` and `<name>_accuracy` of logits `scores` [..., C] against int32 labels [...] with weights [...].

    A prediction is correct if no other class has as high a score. Counting those that have is several times faster on CPUs than argmax.
    """
    correct = ((scores >= _chosen(scores, labels)).sum(-1) == 1).astype(jnp.float32)
    return {
        f"{name}_loss": weighted_mean(cross_entropy(scores, labels), weights),
        f"{name}_accuracy": weighted_mean(correct, weights),
    }


def _chosen(scores: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(scores, labels[..., None], axis=-1)
