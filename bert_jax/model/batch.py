"""The fields of the one batch shape (docs/architecture.md): what shapes of batches are made from."""

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
"""What each row holds: L tokens, E examples, M masked tokens. Where the modality has units there are `units` [B, L, U] too."""

PREPARED = tuple(name for name in FIELDS if name != "masked_positions")
"""The fields of a batch of pre-training before a step has masked it."""

ENCODER_FIELDS = ("tokens", "example_ids", "positions", "segments")
"""Those that a model reads, whatever its heads."""


def zero_row(units: int = 0) -> dict[str, jax.Array]:
    """A batch of one row of one token, from which any model makes its first parameters; `units` is U, 0 where there are none."""
    row = {name: jnp.zeros((1, 1), dtype) for name, (_, dtype) in FIELDS.items()}
    return row | ({"units": jnp.zeros((1, 1, units), jnp.float32)} if units else {})
