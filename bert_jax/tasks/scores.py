"""The outputs of a model, compiled once per architecture and batch shape, for any parameters."""

from functools import partial
from typing import Any

import jax


@partial(jax.jit, static_argnames="model")
def outputs(model: Any, params: Any, batch: Any) -> jax.Array:
    """Return what the model computes for a batch, float32 [B, E, C]."""
    return model.apply({"params": params}, batch)


@partial(jax.jit, static_argnames="model")
def probabilities(model: Any, params: Any, batch: Any) -> jax.Array:
    """Return an independent probability for each output, float32 [B, E, C]."""
    return jax.nn.sigmoid(model.apply({"params": params}, batch))
