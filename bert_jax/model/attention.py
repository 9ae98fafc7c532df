"""Attention inside packed rows: one function, whatever computes it."""

import jax
import jax.numpy as jnp

from bert_jax.model.dropout import dropout


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array, rate: float = 0.0, dropout_key: jax.Array | None = None
) -> jax.Array:
    """Softmax attention among the tokens of one example (Vaswani et al. 2017, section 3.2.1).

    A token attends to the tokens with its own example id, so examples that share a row never see each other, and
    padding (id 0) sees padding only. Scores and softmax are float32 whatever the type of the inputs.

    Args:
        query, key, value: [B, L, H, K].
        example_ids: [B, L].
        rate: dropout on the attention weights, applied when `dropout_key` is given.

    Returns:
        [B, L, H, K], in the type of `value`.
    """
    scale = query.shape[-1] ** -0.5
    scores = jnp.einsum("blhk,bmhk->bhlm", query * jnp.asarray(scale, query.dtype), key, preferred_element_type=jnp.float32)
    same_example = example_ids[:, None, :, None] == example_ids[:, None, None, :]
    scores = jnp.where(same_example, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    weights = dropout(weights, rate, dropout_key)
    return jnp.einsum("bhlm,bmhk->blhk", weights, value)
