"""Fields of the batch layout (docs/architecture.md#one-batch-shape), from which batch shapes are built."""

from typing import Any

import jax
import jax.numpy as jnp

FIELDS: dict[str, tuple[str, Any]] = {
    "tokens": ("L", jnp.int32),
    "example_ids": ("L", jnp.int32),
    "positions": ("L", jnp.int32),
    "segments": ("L", jnp.int32),
    "word_starts": ("L", jnp.bool_),
    "cls_positions": ("E", jnp.int32),
    "is_next": ("E", jnp.int32),
    "example_weights": ("E", jnp.float32),
    "masked_positions": ("M", jnp.int32),
}
"""Field -> (axis, dtype) of each row: L tokens, E examples, M masked tokens. Modalities with units add `units` [B, L, U]."""

PREPARED = tuple(name for name in FIELDS if name != "masked_positions")
"""Fields of a pre-training batch before the training step masks it."""

ENCODER_FIELDS = ("tokens", "example_ids", "positions", "segments")
"""Fields that every model reads, regardless of its heads."""


def zero_row(units: int = 0) -> dict[str, jax.Array]:
    """Return a batch of one row with one token, for initializing the parameters of any model; `units` is U, or 0 for none."""
    row = {name: jnp.zeros((1, 1), dtype) for name, (_, dtype) in FIELDS.items()}
    return row | ({"units": jnp.zeros((1, 1, units), jnp.float32)} if units else {})
