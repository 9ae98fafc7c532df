"""The outputs of a model, compiled once per architecture and batch shape, for any parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames="model")
def outputs(model: Any, params: Any, batch: Any) -> jax.Array:
    """Return what the model computes for a batch, float32 [B, E, C]."""
    return model.apply({"params": params}, batch)


@partial(jax.jit, static_argnames="model")
def probabilities(model: Any, params: Any, batch: Any) -> jax.Array:
    """Return an independent probability for each output, float32 [B, E, C]."""
    return jax.nn.sigmoid(model.apply({"params": params}, batch))


@partial(jax.jit, static_argnames="model")
def gradient_times_input(model: Any, params: Any, batch: Any) -> jax.Array:
    """Return, for each token, its vector times the gradient of its example's greatest output by that vector, float32 [B, L]."""
    vectors = model.apply({"params": params}, batch, method="embed")
    slots = jnp.arange(1, 1 + batch["cls_positions"].shape[1], dtype=jnp.int32)
    filled = (batch["example_ids"][:, None] == slots[:, None]).any(-1)  # an empty slot points at another example's token

    def greatest(vectors: jax.Array) -> jax.Array:
        found = model.apply({"params": params}, {**batch, "vectors": vectors})
        # Examples do not see each other, so the gradient of the sum is that of each example.
        return jnp.where(filled, found.max(-1), 0).sum()

    return (jax.grad(greatest)(vectors) * vectors).astype(jnp.float32).sum(-1)
