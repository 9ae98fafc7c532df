"""The heads of a pre-trained model at chosen positions, compiled once for each architecture and shape, whatever the parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames=("model", "top_k"))
def top_tokens(
    model: Any, params: Any, hidden: jax.Array, rows: jax.Array, columns: jax.Array, allowed: jax.Array, top_k: int
) -> tuple[jax.Array, jax.Array]:
    """Probabilities float32 [S, top_k] and ids int32 [S, top_k] of allowed tokens [V] at S positions of [B, L, D]."""
    scores = model.apply({"params": params}, hidden[rows, columns], method="masked_token_logits")
    return jax.lax.top_k(jnp.where(allowed, jax.nn.softmax(scores, axis=-1), -1.0), top_k)


@partial(jax.jit, static_argnames="model")
def log_probabilities(model: Any, params: Any, hidden: jax.Array, rows: jax.Array, columns: jax.Array, tokens: jax.Array) -> jax.Array:
    """The natural logarithms float32 [S] of the probabilities of tokens [S] at S positions of [B, L, D]."""
    scores = model.apply({"params": params}, hidden[rows, columns], method="masked_token_logits")
    return jnp.take_along_axis(jax.nn.log_softmax(scores, axis=-1), tokens[:, None], axis=1)[:, 0]


@partial(jax.jit, static_argnames="model")
def follows(model: Any, params: Any, hidden: jax.Array, cls_positions: jax.Array) -> jax.Array:
    """The probability float32 [B, E] that B follows A."""
    scores = model.apply({"params": params}, hidden, cls_positions, method="next_sentence_logits")
    return jax.nn.softmax(scores, axis=-1)[:, :, 1]
