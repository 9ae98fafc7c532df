"""Embeddings: from the ids, and units if any, of a batch to vectors [B, L, D]."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import EncoderConfig
from bert_jax.data.reader import Grid
from bert_jax.model.dropout import dropout
from bert_jax.model.encoder import LayerNorm
from bert_jax.model.initializers import normal_initializer, sinusoidal_initializer
from bert_jax.model.per_device import look_up

SPECIAL_TOKENS = 5
"""Number of special tokens in front of the codes of a codebook: [PAD], [UNK], [CLS], [SEP] and [MASK]."""

_BYTE_CENTER, _BYTE_SCALE = 127.5, 64.0
"""Units of bytes are centered and scaled; natural images then have a deviation of about 1."""


class Embeddings(nn.Module):
    """Token, position and segment tables, summed and normalized: int32 [B, L] x 3 -> [B, L, D]."""

    reads: ClassVar[tuple[str, ...]] = ("tokens", "positions", "segments")
    """Batch fields passed to `__call__`."""

    vocab_size: int
    config: EncoderConfig
    dtype: jnp.dtype
    grid: Grid | None = None
    """The two-dimensional arrangement of the input, for the initialization of the positions."""

    def setup(self) -> None:
        config, init = self.config, normal_initializer(self.config)
        self.tokens = self.param("tokens", init, (self.vocab_size, config.width))
        sinusoidal = sinusoidal_initializer(config, self.grid)
        positions = {"normal": init, "sinusoidal": sinusoidal}[config.position_initializer]
        self.positions = self.param("positions", positions, (config.max_positions, config.width))
        self.segments = self.param("segments", init, (config.segment_types, config.width))
        self.norm = LayerNorm(config.norm_epsilon)

    def __call__(self, tokens: jax.Array, positions: jax.Array, segments: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self.combine(look_up(self.tokens, tokens), positions, segments, keys)

    def combine(self, vectors: jax.Array, positions: jax.Array, segments: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Add positions and segments to input vectors [B, L, D], normalize the sum, and apply dropout."""
        total = vectors + look_up(self.positions, positions) + look_up(self.segments, segments)
        return dropout(self.norm(total).astype(self.dtype), self.config.dropout, keys)

    def table(self) -> jax.Array:
        """Return the token table [V, D], which is tied to the masked-token head."""
        return self.tokens


class UnitEmbeddings(Embeddings):
    """A linear projection of the units, with learned vectors for special tokens: int32 [B, L], [B, L, U], int32 [B, L] x 2 -> [B, L, D].

    As for image patches in ViT (Dosovitskiy et al. 2021, section 3.1). The first rows of the token table are the vectors of the special
    tokens; in particular, a masked unit is hidden behind that of [MASK]. The other rows belong to the codes, which are only predicted.
    """

    reads: ClassVar[tuple[str, ...]] = ("tokens", "units", "positions", "segments")

    def setup(self) -> None:
        super().setup()
        self.units = nn.Dense(self.config.width, dtype=self.dtype, kernel_init=_unit_initializer(self.config))

    def __call__(  # type: ignore[override]
        self, tokens: jax.Array, units: jax.Array, positions: jax.Array, segments: jax.Array, keys: jax.Array | None = None
    ) -> jax.Array:
        scaled = units.astype(jnp.float32)
        if units.dtype == jnp.uint8:
            scaled = (scaled - _BYTE_CENTER) / _BYTE_SCALE
        projected = self.units(scaled.astype(self.dtype)).astype(jnp.float32)
        is_special = tokens < jnp.int32(SPECIAL_TOKENS)
        special = look_up(self.tokens[:SPECIAL_TOKENS], jnp.where(is_special, tokens, 0))
        return self.combine(jnp.where(is_special[:, :, None], special, projected), positions, segments, keys)


def _unit_initializer(config: EncoderConfig) -> Callable[..., jax.Array]:
    """Initialize the projection so that units of variance 1 become vectors as large as those of tokens."""

    def init(key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
        return normal_initializer(config)(key, shape, dtype) / shape[0] ** 0.5

    return init


EMBEDDINGS: dict[str, type[Embeddings]] = {"tokens": Embeddings, "units": UnitEmbeddings}
"""Embedding modules by the name under which a modality selects them (`Modality.embedding`)."""
