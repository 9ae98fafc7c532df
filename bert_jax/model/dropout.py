"""Dropout as a function of its key."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

_ROW_AXES = ("data", "fsdp")


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes a share `rate` of `x` and scales the rest to keep the mean; the identity without a key.

    The rate is met to 1/65,536: sixteen random bits an element cost half as much as a float32 draw, and the random
    bits are what dropout costs.
    """
    if key is None or rate == 0.0:
        return x
    kept = _bits(key, x.shape) >= jnp.uint16(round(rate * 2**16))
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))


def dropout_key(key: jax.Array, generator: Literal["threefry", "rbg"]) -> jax.Array:
    """A key of the generator that dropout is to draw from, made from a key of the default one."""
    return key if generator == "threefry" else jax.random.wrap_key_data(jax.random.bits(key, (4,), jnp.uint32), impl=generator)


def _bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sixteen random bits for each element of an array [B, ...] whose rows are cut over the mesh (that of the context)."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or jax.random.key_impl(key) != "rbg":
        return jax.random.bits(key, shape, jnp.uint16)
    # XLA does not cut a device's own generator: each device would draw the bits of all rows. So each draws for its rows alone.
    rows = shape[0] // (mesh.shape["data"] * mesh.shape["fsdp"])

    def own_bits(key: jax.Array) -> jax.Array:
        return jax.random.bits(jax.random.fold_in(key, jax.lax.axis_index(_ROW_AXES)), (rows, *shape[1:]), jnp.uint16)

    return jax.shard_map(own_bits, in_specs=PartitionSpec(), out_specs=PartitionSpec(_ROW_AXES), check_vma=False)(key)
