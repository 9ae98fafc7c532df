"""Dropout as a function of its key."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes a share `rate` of `x` and scales the rest to keep the mean; the identity without a key.

    The rate is met to 1/65,536: sixteen random bits an element cost half as much as a float32 draw, and the random
    bits are what dropout costs.
    """
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bits(key, x.shape, jnp.uint16) >= jnp.uint16(round(rate * 2**16))
    return jnp.where(kept, x * jnp.asarray(1 / (1 - rate), x.dtype), jnp.zeros((), x.dtype))
