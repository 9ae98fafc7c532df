"""Attention within packed rows, with one interface for all implementations."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from bert_jax.config.compute import AttentionKernel
from bert_jax.model.dropout import dropout

Attend = Callable[..., jax.Array]
"""Attention among the tokens of one batch, called with (query, key, value, rate=0.0, dropout_keys=None) as in `attention`."""


def attend_within(example_ids: jax.Array, kernel: AttentionKernel) -> Attend:
    """Return the attention function for all layers of a batch, restricted to tokens of the same example: int32 [B, L] -> Attend."""
    if kernel in ("auto", "dense"):
        return partial(attention, bias=attention_bias(example_ids))
    fused = _fused(kernel)

    def attend(query: jax.Array, key: jax.Array, value: jax.Array, rate: float = 0.0, dropout_keys: jax.Array | None = None) -> jax.Array:
        assert rate == 0.0 or dropout_keys is None, "fused kernels have no attention dropout; the configuration rules it out"
        return fused(query, key, value, example_ids)

    return attend


def _fused(kernel: str) -> Callable[..., jax.Array]:
    # Imported here because importing Pallas takes a second.
    if kernel == "flash":
        from bert_jax.model.kernels.flash_attention import flash_attention

        return flash_attention
    from bert_jax.model.fused_attention import library_attention, splash_attention

    return splash_attention if kernel == "splash" else library_attention


def attention_bias(example_ids: jax.Array) -> jax.Array:
    """Additive bias that restricts attention to tokens with the same example id: int32 [B, L] -> float32 [B, 1, L, L].

    Examples that share a row never see each other, and padding (id 0) sees only padding. The bias is the same for every layer and
    head, so it is computed once. Adding it is exact: the lowest float32 absorbs any score, and 0 leaves a score unchanged. A select
    (`jnp.where` on the scores) would prevent XLA from vectorizing the CPU code and make attention take twice as long.
    """
    same_example = example_ids[:, None, :, None] == example_ids[:, None, None, :]
    return jnp.where(same_example, jnp.float32(0), jnp.finfo(jnp.float32).min)


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, rate: float = 0.0, dropout_keys: jax.Array | None = None, *, bias: jax.Array
) -> jax.Array:
    """Softmax attention (Vaswani et al. 2017, section 3.2.1).

    Scores and their sums are float32 regardless of the input dtype. The output, not the weights, is divided by the sum of the weights,
    as in FlashAttention (Dao et al. 2022, section 3.1), which saves a pass over all weights. Arrays are transposed to [B, H, L, K],
    so that the matmuls of each head read contiguous memory.

    Args:
        query, key, value: [B, L, H, K].
        rate: dropout rate of the attention weights, applied when `dropout_keys` [B, 2] are given.
        bias: float32 [B, 1, L, L], added to the scores.

    Returns:
        [B, L, H, K], in the dtype of `value`.
    """
    scale = jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    query, key, value = (x.transpose(0, 2, 1, 3) for x in (query * scale, key, value))
    scores = jnp.einsum("bhlk,bhmk->bhlm", query, key, preferred_element_type=jnp.float32) + bias
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    kept = dropout(weights.astype(value.dtype), rate, dropout_keys)
    mixed = jnp.einsum("bhlm,bhmk->bhlk", kept, value, preferred_element_type=jnp.float32) / weights.sum(-1, keepdims=True)
    return mixed.astype(value.dtype).transpose(0, 2, 1, 3)
