"""Dropout with one random key per row of a batch.

A number is kept or dropped by a hash of its row's key and of its place in the row. The pattern therefore depends neither on the device, nor
on the mesh, nor on the rows beside it, and it costs so little that no random bits pass through memory: compilers fuse the hash with the
multiplication. `jax.random` is several times slower on CPUs, and the hardware generators of accelerators depend on the mesh.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B9)
"""2^32 divided by the golden ratio: an odd number whose multiples are spread over all numbers."""


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """Return one key per row of a batch: uint32 [B, 2]."""
    return jax.random.key_data(jax.random.split(key, rows))


def split_rows(keys: jax.Array | None, count: int) -> jax.Array | tuple[None, ...]:
    """Return `count` independent keys per row: [B, 2] -> [count, B, 2]. Without keys, return a tuple of `count` Nones."""
    if keys is None:
        return (None,) * count
    index = jax.lax.broadcasted_iota(jnp.uint32, (count, 1, 2), 0) * np.uint32(2) + jax.lax.broadcasted_iota(jnp.uint32, (count, 1, 2), 2)
    return hashed(keys[:, :1], keys[:, 1:], index)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Zero a fraction `rate` of `x` [B, ...] and rescale the rest to preserve the mean; the identity without keys [B, 2]."""
    if keys is None or rate == 0.0:
        return x
    shape = (1, *x.shape[1:])
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    places = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride) for axis, stride in enumerate(strides))
    index = sum(places, start=jnp.uint32(0))
    first, second = (keys[:, word].reshape(-1, *(1,) * (x.ndim - 1)) for word in (0, 1))
    return jnp.where(kept(first, second, index, rate), x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def kept(first: jax.Array, second: jax.Array, index: jax.Array, rate: float) -> jax.Array:
    """Return whether dropout keeps the numbers at these places of rows, for the two words of each row's key; the arguments broadcast."""
    return hashed(first, second, index) >= np.uint32(round(rate * 2**32))


def hashed(first: jax.Array, second: jax.Array, index: jax.Array) -> jax.Array:
    """Return 32 random bits for a key of two words and an index, all uint32."""
    return _mixed(_mixed(index * _GOLDEN + first) ^ second)


def _mixed(x: jax.Array) -> jax.Array:
    """Return a bijection of uint32 in which each bit of the input changes half of the output (Wellons, hash-prospector, 2018)."""
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)
