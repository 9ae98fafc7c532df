"""Losses and counts. A metric is always a sum and a count, so it adds up over batches, microbatches and devices."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean:
    """A weighted mean that is not divided yet: scalars `total` and `count`, float32."""

    total: jax.Array
    count: jax.Array

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)


def weighted_mean(values: jax.Array, weights: jax.Array) -> Mean:
    """The weighted sum of `values` and the sum of `weights`, both of any one shape."""
    return Mean((values * weights).sum(), weights.sum())


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(scores)[label]: float32 [..., C], int32 [...] -> float32 [...]."""
    chosen = jnp.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(scores, axis=-1) - chosen


def classification_metrics(name: str, scores: jax.Array, labels: jax.Array, weights: jax.Array) -> dict[str, Mean]:
    """`<name>_loss` and `<name>_accuracy` of scores [..., C] against int32 labels [...] with weights [...]."""
    right = (scores.argmax(-1).astype(jnp.int32) == labels).astype(jnp.float32)
    return {
        f"{name}_loss": weighted_mean(cross_entropy(scores, labels), weights),
        f"{name}_accuracy": weighted_mean(right, weights),
    }
