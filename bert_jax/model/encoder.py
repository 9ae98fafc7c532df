"""The BERT encoder as published: post-layer-norm Transformer layers over embedded tokens.

Embeddings (`bert_jax.model.embeddings`) and encoder are separate modules. The encoder takes vectors [B, L, D] and example ids, which
determine which vectors attend to each other, so it accepts anything that can be represented as a sequence of vectors.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.model.attention import Attend, attend_within
from bert_jax.model.dropout import dropout, split_rows
from bert_jax.model.initializers import attend_to_neighbours, normal_initializer
from bert_jax.model.per_device import by_rows

_REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


class LayerNorm(nn.Module):
    """Layer normalization (Ba et al. 2016) of [B, ..., D], computed in float32 and returned in the dtype of the input."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        centered = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        return by_rows((centered * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(x.dtype))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each followed by a residual connection and a layer norm: [B, L, D] -> [B, L, D]."""

    config: EncoderConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array, attend: Attend, keys: jax.Array | None = None) -> jax.Array:
        config = self.config
        attention_keys, *residual_keys = split_rows(keys, 3)

        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, kernel_init=normal_initializer(config), name=name)

        def by_head(x: jax.Array) -> jax.Array:
            return x.reshape(*x.shape[:-1], config.heads, config.width // config.heads)

        query, key, value = (by_head(dense(config.width, name)(hidden)) for name in ("query", "key", "value"))
        mixed = attend(query, key, value, config.attention_dropout, attention_keys).reshape(hidden.shape)
        mixed = dropout(dense(config.width, "attention_output")(mixed), config.dropout, residual_keys[0])
        hidden = LayerNorm(config.norm_epsilon, name="attention_norm")(hidden + mixed)

        inner = jax.nn.gelu(dense(config.feed_forward, "feed_forward")(hidden), approximate=False)
        outer = dropout(dense(config.width, "feed_forward_output")(inner), config.dropout, residual_keys[1])
        return LayerNorm(config.norm_epsilon, name="feed_forward_norm")(hidden + outer)


class Encoder(nn.Module):
    """A stack of N encoder layers.

    The parameters of all layers are stacked on a leading axis [N, ...], with or without `scan_layers`, so checkpoints do not depend
    on that setting.
    """

    config: EncoderConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self, vectors: jax.Array, example_ids: jax.Array, keys: jax.Array | None = None, every_layer: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Encode [B, L, D], [B, L] -> the output of the last layer [B, L, D] and, if `every_layer`, of all layers [N, B, L, D]."""
        count, attend = self.config.layers, attend_within(example_ids, self.compute.attention)
        layer = EncoderLayer(self.config, jnp.dtype(self.compute.dtype), parent=None)

        def init(rng: jax.Array) -> Any:
            alone = attend_within(example_ids[:1, :1], "dense")
            fresh = jax.vmap(lambda one: layer.init(one, vectors[:1, :1], alone)["params"])(jax.random.split(rng, count))
            return attend_to_neighbours(fresh, self.config) if self.config.attention_initializer == "neighbours" else fresh

        stacked = self.param("layers", init)
        if self.is_initializing():
            return vectors, None

        def step(hidden: jax.Array, inputs: tuple[Any, jax.Array | None]) -> jax.Array:
            params, layer_keys = inputs
            return layer.apply({"params": params}, hidden, attend, layer_keys)

        if self.compute.remat != "none":
            step = jax.checkpoint(step, policy=_REMAT_POLICIES[self.compute.remat])
        by_layer: Any = None if keys is None else split_rows(keys, count)
        if self.compute.scan_layers is True:  # unresolved, "auto" unrolls: see `resolve_compute`

            def scanned(hidden: jax.Array, inputs: tuple[Any, jax.Array | None]) -> tuple[jax.Array, jax.Array | None]:
                hidden = step(hidden, inputs)
                return hidden, hidden if every_layer else None

            return jax.lax.scan(scanned, vectors, (stacked, by_layer))
        states = []
        for inputs in _layer_by_layer((stacked, by_layer), count):
            vectors = step(vectors, inputs)
            states.append(vectors)
        return vectors, jnp.stack(states) if every_layer else None


def _layer_by_layer(stacked: Any, count: int) -> list[Any]:
    """Split stacked parameters into one tree per layer.

    The gradient of a split is a concatenation; that of `leaf[index]` would be a sum of `count` padded arrays.
    """
    leaves, structure = jax.tree.flatten(stacked)
    parts = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, (1,) * count)] for leaf in leaves]
    return [jax.tree.unflatten(structure, layer) for layer in zip(*parts, strict=True)]
