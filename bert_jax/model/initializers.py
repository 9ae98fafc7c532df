"""Parameter initializers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import EncoderConfig
from bert_jax.data.reader import Grid

# Heads that start by attending to neighbors use sinusoids down to this frequency (radians per position); slower ones barely
# distinguish adjacent positions. They take this share of a head's dimensions, and the rest is left to token content.
_LOWEST_FREQUENCY, _SHARE = 0.2, 0.75
# Attention score of the neighbor before the softmax; the scores of other positions are lower by up to this much.
_PEAK_SCORE = 9.0


def normal_initializer(config: EncoderConfig) -> Callable[..., jax.Array]:
    """The published distribution: a normal with standard deviation `initializer_range`, truncated at two standard deviations."""
    return nn.initializers.truncated_normal(config.initializer_range, lower=-2.0, upper=2.0)


def sinusoidal_initializer(config: EncoderConfig, grid: Grid | None = None) -> Callable[..., jax.Array]:
    """Sinusoidal position embeddings (Vaswani et al. 2017, section 3.5), scaled to match `normal_initializer`.

    With a `grid`, half of the dimensions encode the row of a position and half its column (He et al. 2022, appendix A.1).
    """

    def init(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        del key
        count, width = shape
        if grid is None:
            table = _waves(jnp.arange(count, dtype=jnp.float32), width)
        else:
            rows, columns = _coordinates(grid, count).T
            table = jnp.concatenate([_waves(jnp.asarray(rows), width // 2), _waves(jnp.asarray(columns), width // 2)], axis=1)
        return config.initializer_range * 2**0.5 * table

    return init


def _waves(places: jax.Array, width: int) -> jax.Array:
    angles = places[:, None] * _frequencies(width)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def _coordinates(grid: Grid, count: int) -> np.ndarray:
    """Return the row and column of each position, float32 [count, 2]. [CLS] comes first; positions after the grid continue its diagonal."""
    after = np.arange(max(0, count - 1 - grid.columns**2))
    places = [np.full((1, 2), -1), grid.cells(), np.stack([after, after], 1) + grid.columns]
    return np.concatenate(places)[:count].astype(np.float32)


def _frequencies(width: int) -> np.ndarray:
    return (10_000.0 ** (-np.arange(width // 2) / (width // 2))).astype(np.float32)


def neighbour_offsets(heads: int) -> list[int]:
    """Return the relative position that each head attends to initially: -1, 1, -2, 2 and so on."""
    return [(1 + head // 2) * (1 if head % 2 else -1) for head in range(heads)]


def attend_to_neighbours(layers: Any, config: EncoderConfig) -> Any:
    """Modify freshly initialized, stacked layers so that the heads of the first layer attend to neighboring tokens.

    A key projects the sinusoids of its own position, and a query projects them rotated by the head's offset, which gives the sinusoids
    of the neighbor. Their dot product is largest at the neighbor; token content in the same dimensions is added to it. Random
    projections learn to find neighbors only after millions of tokens, and until then the encoder predicts from a bag of words.
    Structured initial projections follow Trockman and Kolter 2023, "Mimetic initialization of self-attention layers". The architecture
    is unchanged.
    """
    head_width = config.width // config.heads
    frequencies = _frequencies(config.width)
    usable = int((frequencies >= _LOWEST_FREQUENCY).sum())
    pairs = min(usable, int(_SHARE * head_width) // 2)
    waves = np.linspace(0, usable - 1, pairs).round().astype(int)
    # Token, position and segment embeddings start with equal variance and are normalized, so a sinusoid has amplitude (2 / 3)^0.5.
    gain = (_PEAK_SCORE * head_width**0.5 / (pairs * 2 / 3)) ** 0.5
    query, key = (np.zeros((config.width, config.heads, 2 * pairs), np.float32) for _ in range(2))
    sines, cosines = waves, config.width // 2 + waves
    even, odd = np.arange(0, 2 * pairs, 2), np.arange(1, 2 * pairs, 2)
    for head, offset in enumerate(neighbour_offsets(config.heads)):
        rotation = frequencies[waves] * offset
        key[sines, head, even] = key[cosines, head, odd] = gain
        query[sines, head, even] = query[cosines, head, odd] = gain * np.cos(rotation)
        query[cosines, head, even], query[sines, head, odd] = gain * np.sin(rotation), -gain * np.sin(rotation)

    def first(name: str, projection: np.ndarray) -> Any:
        kernel = layers[name]["kernel"]
        by_head = kernel[0].reshape(config.width, config.heads, head_width).at[:, :, : 2 * pairs].set(projection)
        return layers[name] | {"kernel": kernel.at[0].set(by_head.reshape(kernel.shape[1:]))}

    return layers | {"query": first("query", query), "key": first("key", key)}
