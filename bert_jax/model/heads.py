"""Output heads and their inputs: masked-token, next-sentence and classification heads, and sums over examples."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import EncoderConfig
from bert_jax.model.encoder import LayerNorm
from bert_jax.model.initializers import normal_initializer


def gather_positions(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """Gather the vectors at the given positions of each row: [B, L, D], int32 [B, P] -> [B, P, D]."""
    return jnp.take_along_axis(hidden, positions[:, :, None], axis=1)


def _members(example_ids: jax.Array, examples: int) -> jax.Array:
    """Membership of each token in each example: [B, L] -> bool [B, L, E]."""
    return example_ids[:, :, None] == jnp.arange(1, examples + 1, dtype=example_ids.dtype)


def example_max(hidden: jax.Array, example_ids: jax.Array, examples: int) -> jax.Array:
    """Maximum of each feature over each example of a packed row. Shapes as in `example_mean`; -inf for an empty slot."""
    members = _members(example_ids, examples)[:, :, :, None]
    return jnp.where(members, hidden.astype(jnp.float32)[:, :, None], -jnp.inf).max(1)


def example_sum(values: jax.Array, example_ids: jax.Array, examples: int) -> jax.Array:
    """Sum of the vectors of each example in a packed row: [B, L, D], [B, L] -> float32 [B, E, D]; zero for an empty slot."""
    return jnp.einsum("bld,ble->bed", values.astype(jnp.float32), _members(example_ids, examples).astype(jnp.float32))


def example_mean(hidden: jax.Array, example_ids: jax.Array, examples: int) -> jax.Array:
    """Mean vector of each example in a packed row: [B, L, D], [B, L] -> float32 [B, E, D]; zero for an empty slot."""
    count = _members(example_ids, examples).sum(1, dtype=jnp.float32)
    return example_sum(hidden, example_ids, examples) / jnp.maximum(count, 1.0)[:, :, None]


class Pooler(nn.Module):
    """Tanh layer over [CLS] vectors, which BERT trains with the next-sentence task: [..., D] -> [..., D]."""

    config: EncoderConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, cls: jax.Array) -> jax.Array:
        dense = nn.Dense(self.config.width, dtype=self.dtype, kernel_init=normal_initializer(self.config), name="dense")
        return jnp.tanh(dense(cls))


class MaskedTokenHead(nn.Module):
    """Logits over the vocabulary at the given vectors: [..., D], table [V, D] -> float32 [..., V]."""

    config: EncoderConfig
    dtype: jnp.dtype
    narrow_gradient: bool = False
    """Round the gradient of the logits to `dtype`, so that all products are of that type."""

    @nn.compact
    def __call__(self, vectors: jax.Array, table: jax.Array) -> jax.Array:
        dense = nn.Dense(self.config.width, dtype=self.dtype, kernel_init=normal_initializer(self.config), name="dense")
        vectors = LayerNorm(self.config.norm_epsilon, name="norm")(jax.nn.gelu(dense(vectors), approximate=False))
        bias = self.param("bias", nn.initializers.zeros, (table.shape[0],))
        product = _narrow_product if self.narrow_gradient else _product
        return product(vectors, table.astype(self.dtype)) + bias


def _product(vectors: jax.Array, table: jax.Array) -> jax.Array:
    """[..., D], [V, D] -> float32 [..., V]."""
    # Flat, because the gradient of the table sums over all vectors, and XLA on CPUs is faster at that over one axis than over two.
    flat = jnp.einsum("nd,vd->nv", vectors.reshape(-1, vectors.shape[-1]), table, preferred_element_type=jnp.float32)
    return flat.reshape(*vectors.shape[:-1], table.shape[0])


@jax.custom_vjp
def _narrow_product(vectors: jax.Array, table: jax.Array) -> jax.Array:
    return _product(vectors, table)


def _narrow_forward(vectors: jax.Array, table: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(vectors, table), (vectors, table)


def _narrow_backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    vectors, table = residuals
    narrow, places = gradient.astype(vectors.dtype), tuple(range(vectors.ndim - 1))
    return jnp.dot(narrow, table), jnp.tensordot(narrow, vectors, (places, places))


_narrow_product.defvjp(_narrow_forward, _narrow_backward)


class LinearHead(nn.Module):
    """Linear layer that outputs float32 logits, for the next-sentence and classification tasks: [..., D] -> [..., C]."""

    classes: int
    config: EncoderConfig

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        dense = nn.Dense(self.classes, dtype=jnp.float32, kernel_init=normal_initializer(self.config), name="dense")
        return dense(vectors.astype(jnp.float32))
