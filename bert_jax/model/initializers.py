"""What fresh parameters start from."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import EncoderConfig

# A head that attends to neighbours reads the waves down to this rate (radians a position): slower ones hardly tell one
# neighbour from the next. This share of its dimensions is spent on them, and the rest is left to what the tokens say.
_SLOWEST_RATE, _SHARE = 0.2, 0.75
# Its score for the neighbour before the softmax; others' are lower by up to that.
_PEAK_SCORE = 9.0


def normal_initializer(config: EncoderConfig) -> Callable[..., jax.Array]:
    """The published initial distribution: a normal cut at two standard deviations of the written width."""
    return nn.initializers.truncated_normal(config.initializer_range, lower=-2.0, upper=2.0)


def sinusoidal_initializer(config: EncoderConfig) -> Callable[..., jax.Array]:
    """Waves of the positions (Vaswani et al. 2017, section 3.5), as large as the noise of `normal_initializer`."""

    def init(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        del key
        count, width = shape
        angles = jnp.arange(count, dtype=jnp.float32)[:, None] * _rates(width)
        return config.initializer_range * 2**0.5 * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)

    return init


def _rates(width: int) -> np.ndarray:
    return (10_000.0 ** (-np.arange(width // 2) / (width // 2))).astype(np.float32)


def neighbour_offsets(heads: int) -> list[int]:
    """The neighbour that each head starts from: -1, 1, -2, 2 and so on."""
    return [(1 + head // 2) * (1 if head % 2 else -1) for head in range(heads)]


def attend_to_neighbours(layers: Any, config: EncoderConfig) -> Any:
    """Stacked fresh layers whose first layer's heads start by attending to the tokens before and after.

    A key takes the waves of its position as they are and a query takes them turned by the head's offset, which are the
    waves of the neighbour: their product is largest there, and what the tokens say in the same dimensions is added to it.
    Random projections find neighbours only after millions of tokens, for which the encoder guesses from the bag of words.
    Structured first projections are the idea of Trockman and Kolter 2023, "Mimetic initialization of self-attention
    layers"; the architecture is the published one.
    """
    head_width = config.width // config.heads
    rates = _rates(config.width)
    usable = int((rates >= _SLOWEST_RATE).sum())
    pairs = min(usable, int(_SHARE * head_width) // 2)
    waves = np.linspace(0, usable - 1, pairs).round().astype(int)
    # Tokens, positions and segments start with equal variances and are normalized, so a wave's amplitude is (2 / 3)^0.5.
    gain = (_PEAK_SCORE * head_width**0.5 / (pairs * 2 / 3)) ** 0.5
    query, key = (np.zeros((config.width, config.heads, 2 * pairs), np.float32) for _ in range(2))
    sines, cosines = waves, config.width // 2 + waves
    even, odd = np.arange(0, 2 * pairs, 2), np.arange(1, 2 * pairs, 2)
    for head, offset in enumerate(neighbour_offsets(config.heads)):
        turn = rates[waves] * offset
        key[sines, head, even] = key[cosines, head, odd] = gain
        query[sines, head, even] = query[cosines, head, odd] = gain * np.cos(turn)
        query[cosines, head, even], query[sines, head, odd] = gain * np.sin(turn), -gain * np.sin(turn)

    def first(name: str, projection: np.ndarray) -> Any:
        kernel = layers[name]["kernel"]
        by_head = kernel[0].reshape(config.width, config.heads, head_width).at[:, :, : 2 * pairs].set(projection)
        return layers[name] | {"kernel": kernel.at[0].set(by_head.reshape(kernel.shape[1:]))}

    return layers | {"query": first("query", query), "key": first("key", key)}
