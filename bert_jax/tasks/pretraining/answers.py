"""Applies the heads of a pre-trained model at given positions; compiled once per architecture and shape, for any parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames=("model", "top_k"))
def top_tokens(
    model: Any, params: Any, hidden: jax.Array, rows: jax.Array, columns: jax.Array, allowed: jax.Array, top_k: int
) -> tuple[jax.Array, jax.Array]:
    """Return the probabilities, float32 [S, top_k], and ids, int32 [S, top_k], of the most probable allowed tokens.

    Args:
        hidden: hidden states [B, L, D].
        rows, columns: the S positions in `hidden`.
        allowed: which tokens may be predicted, bool [V].
    """
    logits = model.apply({"params": params}, hidden[rows, columns], method="masked_token_logits")
    return jax.lax.top_k(jnp.where(allowed, jax.nn.softmax(logits, axis=-1), -1.0), top_k)


@partial(jax.jit, static_argnames="model")
def log_probabilities(model: Any, params: Any, hidden: jax.Array, rows: jax.Array, columns: jax.Array, tokens: jax.Array) -> jax.Array:
    """Return the log probabilities, float32 [S], of `tokens` [S] at S positions of `hidden` [B, L, D]."""
    logits = model.apply({"params": params}, hidden[rows, columns], method="masked_token_logits")
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), tokens[:, None], axis=1)[:, 0]


@partial(jax.jit, static_argnames="model")
def follows(model: Any, params: Any, hidden: jax.Array, cls_positions: jax.Array) -> jax.Array:
    """Return the probability, float32 [B, E], that sentence B follows sentence A."""
    logits = model.apply({"params": params}, hidden, cls_positions, method="next_sentence_logits")
    return jax.nn.softmax(logits, axis=-1)[:, :, 1]
