"""Dropout with one random key per row of a batch.

Each row draws only from its own key, so the dropout pattern does not depend on the mesh or on how the batch is partitioned. The
exception is the generator `rbg`, with which each device draws for all its rows from the key of its first row.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from bert_jax.model.per_device import ROWS, on_each_device


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """Return one key per row of a batch: [B]."""
    return jax.random.split(key, rows)


def split_rows(keys: jax.Array | None, count: int) -> jax.Array | tuple[None, ...]:
    """Return `count` independent keys per row: [B] -> [count, B]. Without keys, return a tuple of `count` Nones."""
    return (None,) * count if keys is None else jax.vmap(lambda key: jax.random.split(key, count), out_axes=1)(keys)


def with_generator(keys: jax.Array | None, generator: Literal["threefry", "rbg"]) -> jax.Array | None:
    """Convert keys [B] of the default generator to keys of the generator that dropout uses."""
    if keys is None or generator == "threefry":
        return keys
    return jax.random.wrap_key_data(jax.vmap(lambda key: jax.random.bits(key, (4,), jnp.uint32))(keys), impl=generator)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Zero a fraction `rate` of `x` [B, ...] and rescale the rest to preserve the mean; the identity without keys [B].

    The rate is accurate to 1/65,536. Generating random bits dominates the cost of dropout, and 16 bits per element cost half as
    much as a float32 draw.
    """
    if keys is None or rate == 0.0:
        return x
    kept = _bits(keys, x.shape) >= jnp.uint16(round(rate * 2**16))
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def _bits(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return 16 random bits per element of an array [B, ...]."""
    if jax.random.key_impl(keys) != "rbg":
        return jax.vmap(lambda key: jax.random.bits(key, shape[1:], jnp.uint16))(keys)

    # XLA does not partition the stream of a hardware generator, so each device draws for its own rows from the key of its first row.
    def own_bits(keys: jax.Array) -> jax.Array:
        return jax.random.bits(keys[0], (keys.shape[0], *shape[1:]), jnp.uint16)

    return on_each_device(own_bits, (ROWS,), ROWS)(keys)
