"""Random bits that kernels draw by themselves, so that no array of them passes through memory."""

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
TOKENS_PER_DRAW = 4
"""A draw is 64 bits: 16 for each of so many tokens."""


def threefry(keys: tuple[jax.Array, jax.Array], high: jax.Array, low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011): a key of two words, and counters -> two random words per counter, all uint32."""
    schedule = (*keys, keys[0] ^ keys[1] ^ np.uint32(0x1BD11BDA))
    high, low = high + schedule[0], low + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            high = high + low
            low = (low << np.uint32(rotation) | low >> np.uint32(32 - rotation)) ^ high
        high, low = high + schedule[(group + 1) % 3], low + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return high, low


def kept(keys: tuple[jax.Array, jax.Array], draw: jax.Array, features: int, rate: float) -> jax.Array:
    """Return which numbers of four consecutive tokens dropout keeps: the key of their row, uint32 [] -> bool [4, features].

    A function of key, token and feature alone. The rate is accurate to 1/65,536, as that of `bert_jax.model.dropout`.

    Args:
        keys: the two words of the key.
        draw: the number of the first token, divided by four.
        features: a power of two.
        rate: the share that is dropped.
    """
    feature = jax.lax.broadcasted_iota(jnp.uint32, (1, features), 1)
    words = threefry(keys, jnp.broadcast_to(draw, (1, features)), feature)
    token = jax.lax.broadcasted_iota(jnp.uint32, (TOKENS_PER_DRAW, features), 0)
    word = jnp.where(token < np.uint32(2), *words)
    bits = (word >> (token % np.uint32(2) * np.uint32(16))) & np.uint32(0xFFFF)
    return bits >= np.uint32(round(rate * 2**16))
