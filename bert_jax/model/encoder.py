"""The BERT encoder as published: post-layer-norm Transformer layers over embedded tokens.

Embeddings (`bert_jax.model.embeddings`) and encoder are separate modules. The encoder takes vectors [B, L, D] and example ids, which
determine which vectors attend to each other, so it accepts anything that can be represented as a sequence of vectors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.model.attention import Attend, attend_within
from bert_jax.model.dropout import dropout, split_rows
from bert_jax.model.initializers import attend_to_neighbours, normal_initializer
from bert_jax.model.per_device import by_rows
from bert_jax.model.products import linear_product

_REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


class LayerNorm(nn.Module):
    """Layer normalization (Ba et al. 2016) of [B, ..., D], computed in float32 and returned in the dtype of the input."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _normalize(x, *self._parameters(x.shape[-1]), self.epsilon)

    def _parameters(self, width: int) -> tuple[jax.Array, jax.Array]:
        return self.param("scale", nn.initializers.ones, (width,)), self.param("bias", nn.initializers.zeros, (width,))


class ResidualNorm(LayerNorm):
    """The end of a block: bias of its last linear layer, dropout, residual connection and layer norm.

    The product of the linear layer [B, L, D], its bias [D], the input of the block [B, L, D], keys [B, 2] -> [B, L, D].
    """

    rate: float
    fused: bool

    @nn.compact
    def __call__(self, product: jax.Array, bias: jax.Array, residual: jax.Array, keys: jax.Array | None) -> jax.Array:
        scale, offset = self._parameters(residual.shape[-1])
        if not self.fused:
            return _normalize(residual + dropout(product + bias, self.rate, keys), scale, offset, self.epsilon)
        from bert_jax.model.kernels.residual_norm import residual_norm

        return residual_norm(product, bias, residual, scale, offset, self.epsilon, self.rate, keys)


def _normalize(x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float) -> jax.Array:
    """Layer norm of [B, ..., D] with parameters [D]."""
    wide = x.astype(jnp.float32)
    centered = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(centered).mean(-1, keepdims=True)
    return by_rows((centered * jax.lax.rsqrt(variance + epsilon) * scale + offset).astype(x.dtype))


class Linear(nn.Module):
    """The parameters of a linear layer, in the dtype that it is computed in: () -> [inputs, outputs], [outputs].

    Apart, because what adds the bias may do more at the same time.
    """

    inputs: int
    outputs: int
    config: EncoderConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", normal_initializer(self.config), (self.inputs, self.outputs))
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,))
        return kernel.astype(self.dtype), bias.astype(self.dtype)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each followed by a residual connection and a layer norm: [B, L, D] -> [B, L, D]."""

    config: EncoderConfig
    dtype: jnp.dtype
    fused: tuple[str, ...] = ()
    """As `ComputeConfig.fused`."""

    @nn.compact
    def __call__(self, hidden: jax.Array, attend: Attend, keys: jax.Array | None = None) -> jax.Array:
        config, width = self.config, self.config.width
        attention_keys, *residual_keys = split_rows(keys, 3)

        def linear(inputs: int, outputs: int, name: str) -> Any:
            return Linear(inputs, outputs, config, self.dtype, name=name)()

        def norm(name: str) -> ResidualNorm:
            return ResidualNorm(config.norm_epsilon, config.dropout, "norm" in self.fused, name=name)

        projections = [linear(width, width, name) for name in ("query", "key", "value")]
        query, key, value = (
            x.reshape(*x.shape[:-1], config.heads, width // config.heads) for x in _project(hidden, projections, "qkv" in self.fused)
        )
        mixed = attend(query, key, value, config.attention_dropout, attention_keys).reshape(hidden.shape)
        kernel, bias = linear(width, width, "attention_output")
        hidden = norm("attention_norm")(linear_product(mixed, kernel), bias, hidden, residual_keys[0])

        kernel, bias = linear(width, config.feed_forward, "feed_forward")
        inner = _gelu(linear_product(hidden, kernel), bias, "gelu" in self.fused)
        kernel, bias = linear(config.feed_forward, width, "feed_forward_output")
        return norm("feed_forward_norm")(linear_product(inner, kernel), bias, hidden, residual_keys[1])


def _project(x: jax.Array, projections: Sequence[tuple[jax.Array, jax.Array]], joined: bool) -> Sequence[jax.Array]:
    """Apply linear layers of equal shape, (kernel, bias) each, to the same vectors, `joined` in one product."""
    if not joined:
        return [linear_product(x, kernel) + bias for kernel, bias in projections]
    kernels, biases = zip(*projections, strict=True)
    # Stacked, not concatenated, so that each device keeps its own heads.
    product = jnp.einsum("bld,dch->blch", x, jnp.stack(kernels, 1)) + jnp.stack(biases)
    return [product[:, :, i] for i in range(len(projections))]


def _gelu(product: jax.Array, bias: jax.Array, fused: bool) -> jax.Array:
    if not fused:
        return jax.nn.gelu(product + bias, approximate=False)
    from bert_jax.model.kernels.gelu import bias_gelu

    return bias_gelu(product, bias)


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
        layer = EncoderLayer(self.config, jnp.dtype(self.compute.dtype), self.compute.fused, parent=None)

        def init(rng: jax.Array) -> Any:
            alone, plain = attend_within(example_ids[:1, :1], "dense"), EncoderLayer(self.config, layer.dtype, parent=None)
            fresh = jax.vmap(lambda one: plain.init(one, vectors[:1, :1], alone)["params"])(jax.random.split(rng, count))
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

    def queries_and_keys(self, inputs: jax.Array) -> jax.Array:
        """Return the queries and keys of every layer from its input: [N, B, L, D] -> float32 [B, L, N, 2, D]."""
        layers = self.variables["params"]["layers"]
        found = []
        for name in ("query", "key"):
            kernel, bias = (layers[name][leaf].astype(inputs.dtype) for leaf in ("kernel", "bias"))
            found.append(jnp.einsum("nbld,nde->blne", inputs, kernel) + bias)
        return jnp.stack(found, 3).astype(jnp.float32)


def _layer_by_layer(stacked: Any, count: int) -> list[Any]:
    """Split stacked parameters into one tree per layer.

    The gradient of a split is a concatenation; that of `leaf[index]` would be a sum of `count` padded arrays.
    """
    leaves, structure = jax.tree.flatten(stacked)
    parts = [[jnp.squeeze(part, 0) for part in jax.lax.split(leaf, (1,) * count)] for leaf in leaves]
    return [jax.tree.unflatten(structure, layer) for layer in zip(*parts, strict=True)]
