"""Pooling of token vectors into one vector per text, with the modes and names of `sentence-transformers`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bert_jax.errors import InputError
from bert_jax.model.heads import example_max, example_sum, gather_positions

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""The [CLS] vector; the maximum of each feature; the sum over the tokens divided by their number, or by its square root; the mean weighted
by position, counted from 1; the vector of the last token, which is [SEP]."""


def pooling_modes(pooling: str) -> tuple[str, ...]:
    """Parse modes such as `mean` or `cls+max`, whose vectors are concatenated.

    Raises:
        InputError: a mode does not exist.
    """
    modes = tuple(pooling.split("+")) if isinstance(pooling, str) else ()
    if not modes or not set(modes) <= set(MODES):
        raise InputError(f"pooling={pooling!r} is invalid: use one of {', '.join(MODES)}, or several of them joined with +.")
    return modes


def pool(
    hidden: jax.Array, example_ids: jax.Array, positions: jax.Array, cls_positions: jax.Array, modes: Sequence[str], skipped: jax.Array
) -> jax.Array:
    """Return the pooled vectors of the examples in packed rows.

    Args:
        hidden: [B, L, D].
        example_ids, positions, cls_positions: as in a batch, int32 [B, L], [B, L] and [B, E].
        modes: elements of `MODES`.
        skipped: int32 scalar, the number of tokens at the start of every example, from [CLS] on, that are excluded from pooling.

    Returns:
        float32 [B, E, D * modes].
    """
    hidden = hidden.astype(jnp.float32)
    examples = cls_positions.shape[1]
    ids = jnp.where(positions >= skipped, example_ids, 0)
    ones = jnp.ones((*example_ids.shape, 1), jnp.float32)
    length, counted = example_sum(ones, example_ids, examples), example_sum(ones, ids, examples)
    at_least_one = jnp.maximum(counted, 1.0)

    def vectors_at(indices: jax.Array) -> jax.Array:
        return gather_positions(hidden, jnp.clip(indices, 0, hidden.shape[1] - 1))

    def vectors(mode: str) -> jax.Array:
        if mode == "cls":
            return vectors_at(cls_positions + jnp.where(counted[:, :, 0] > 0, skipped, 0))
        if mode == "lasttoken":
            return jnp.where(counted > 0, vectors_at(cls_positions + length[:, :, 0].astype(jnp.int32) - 1), 0.0)
        if mode == "max":
            return example_max(hidden, ids, examples)
        if mode == "weightedmean":
            weights = ones * (positions + 1)[:, :, None].astype(jnp.float32)
            return example_sum(hidden * weights, ids, examples) / jnp.maximum(example_sum(weights, ids, examples), 1.0)
        return example_sum(hidden, ids, examples) / (at_least_one if mode == "mean" else jnp.sqrt(at_least_one))

    return jnp.concatenate([vectors(mode) for mode in modes], axis=-1)


def unit_length(vectors: jax.Array) -> jax.Array:
    """Scale vectors [..., D] to length 1; zero vectors remain, and have finite gradients."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(-1, keepdims=True), 1e-24))
