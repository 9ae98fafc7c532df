"""Dropout as a function of keys, one for each row of a batch.

A row draws from its own key and nothing else, so what is dropped depends neither on the mesh nor on how a batch is cut; but for
the generator `rbg`, with which a device draws for all its rows from the key of the first.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from bert_jax.model.per_device import ROWS, on_each_device


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """A key for each row of a batch: [B]."""
    return jax.random.split(key, rows)


def split_rows(keys: jax.Array | None, count: int) -> jax.Array | tuple[None, ...]:
    """`count` independent keys for each row: [B] -> [count, B]; as often no key without any."""
    return (None,) * count if keys is None else jax.vmap(lambda key: jax.random.split(key, count), out_axes=1)(keys)


def with_generator(keys: jax.Array | None, generator: Literal["threefry", "rbg"]) -> jax.Array | None:
    """Keys [B] of the generator that dropout is to draw from, made from keys of the default one."""
    if keys is None or generator == "threefry":
        return keys
    return jax.random.wrap_key_data(jax.vmap(lambda key: jax.random.bits(key, (4,), jnp.uint32))(keys), impl=generator)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Zeroes a share `rate` of `x` [B, ...] and scales the rest to keep the mean; the identity without keys [B].

    The rate is met to 1/65,536: sixteen random bits an element cost half as much as a float32 draw, and the random
    bits are what dropout costs.
    """
    if keys is None or rate == 0.0:
        return x
    kept = _bits(keys, x.shape) >= jnp.uint16(round(rate * 2**16))
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def _bits(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sixteen random bits for each element of an array [B, ...]."""
    if jax.random.key_impl(keys) != "rbg":
        return jax.vmap(lambda key: jax.random.bits(key, shape[1:], jnp.uint16))(keys)

    # A device's own generator makes one stream, which XLA does not cut: so each device draws for its rows, from the key of the first.
    def own_bits(keys: jax.Array) -> jax.Array:
        return jax.random.bits(keys[0], (keys.shape[0], *shape[1:]), jnp.uint16)

    return on_each_device(own_bits, (ROWS,), ROWS)(keys)
