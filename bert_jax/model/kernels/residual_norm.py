"""Bias, dropout, residual connection and layer norm in one pass over memory, and their gradients in another."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec

from bert_jax.model.dropout import kept
from bert_jax.model.kernels.launch import launch
from bert_jax.model.per_device import ROWS, on_each_device

_TOKENS = 64
"""Tokens per program, which sums their contributions to the gradients of the parameters before it writes them."""
_AT_ONCE = 4
"""Of these, how many are computed at once."""
_WHOLE = PartitionSpec()


def residual_norm(
    product: jax.Array, bias: jax.Array, residual: jax.Array, scale: jax.Array, offset: jax.Array,
    epsilon: float, rate: float = 0.0, keys: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Layer norm of `residual + dropout(product + bias)`, computed in float32: [B, L, D] -> [B, L, D].

    Dropout is that of `bert_jax.model.dropout`, recomputed in the backward pass. Only the input of the norm is kept between the two.
    Under a mesh each device computes its own rows.

    Args:
        product, residual: [B, L, D], of one dtype, which the result has too.
        bias: [D].
        scale, offset: [D], the parameters of the norm.
        epsilon: added to the variance.
        rate: dropout rate, applied when `keys` [B, 2] are given.
    """
    words = jnp.zeros((product.shape[0], 2), jnp.uint32) if keys is None else keys
    return _residual_norm(product, bias, residual, scale, offset, words, epsilon, 0.0 if keys is None else rate)


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _residual_norm(
    product: jax.Array, bias: jax.Array, residual: jax.Array, scale: jax.Array, offset: jax.Array, words: jax.Array,
    epsilon: float, rate: float,
) -> jax.Array:  # fmt: skip
    return _forward(product, bias, residual, scale, offset, words, epsilon, rate)[0]


def _forward(
    product: jax.Array, bias: jax.Array, residual: jax.Array, scale: jax.Array, offset: jax.Array, words: jax.Array,
    epsilon: float, rate: float,
) -> tuple[jax.Array, Any]:  # fmt: skip
    def on_one_device(product: jax.Array, *others: jax.Array) -> Any:
        shape = product.shape
        tile, vector, key, _ = _specs(shape)
        return launch(
            partial(_forward_kernel, shape=shape, epsilon=epsilon, rate=rate),
            *(product, *others),
            grid=_grid(shape),
            warps=_warps(shape),
            in_specs=[tile, vector, tile, vector, vector, key, key],
            out_specs=[tile, tile],
            out_shape=[jax.ShapeDtypeStruct(shape, product.dtype)] * 2,
        )

    specs = (ROWS, _WHOLE, ROWS, _WHOLE, _WHOLE, ROWS, ROWS)
    normalized, total = on_each_device(on_one_device, specs, ROWS)(product, bias, residual, scale, offset, words[:, 0], words[:, 1])
    return normalized, (total, bias, scale, offset, words)


def _backward(epsilon: float, rate: float, residuals: Any, gradient: jax.Array) -> tuple[jax.Array | None, ...]:
    total, bias, scale, offset, words = residuals

    def on_one_device(total: jax.Array, *others: jax.Array) -> Any:
        shape = total.shape
        tile, vector, key, sums = _specs(shape)
        rows_of_sums = jax.ShapeDtypeStruct((*_grid(shape)[::-1], shape[2]), jnp.float32)
        return launch(
            partial(_backward_kernel, shape=shape, epsilon=epsilon, rate=rate),
            *(total, *others),
            grid=_grid(shape),
            warps=_warps(shape),
            in_specs=[tile, tile, vector, key, key],
            out_specs=[tile, tile, sums, sums, sums],
            out_shape=[jax.ShapeDtypeStruct(shape, total.dtype)] * 2 + [rows_of_sums] * 3,
        )

    specs = (ROWS, ROWS, _WHOLE, ROWS, ROWS)
    inner, outer, *sums = on_each_device(on_one_device, specs, ROWS)(total, gradient, scale, words[:, 0], words[:, 1])
    to_bias, to_scale, to_offset = (x.sum((0, 1)) for x in sums)
    return inner, to_bias.astype(bias.dtype), outer, to_scale.astype(scale.dtype), to_offset.astype(offset.dtype), None


_residual_norm.defvjp(_forward, _backward)


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    return pl.cdiv(shape[1], _TOKENS), shape[0]


def _warps(shape: tuple[int, ...]) -> int:
    """A thread holds up to 32 numbers of each array: eight features, which are a load of bfloat16, of four tokens."""
    return min(max(_AT_ONCE * pl.next_power_of_2(shape[2]) // (32 * 32), 1), 16)


def _specs(shape: tuple[int, ...]) -> tuple[pl.BlockSpec, ...]:
    """What a program (block of tokens, row) sees: its tokens, vectors [D], half of the row's key, and its row of sums."""
    width = pl.next_power_of_2(shape[2])
    return (
        pl.BlockSpec((None, _TOKENS, width), lambda i, row: (row, i, 0)),
        pl.BlockSpec((width,), lambda i, row: (0,)),
        pl.BlockSpec((None,), lambda i, row: (row,)),
        pl.BlockSpec((None, None, width), lambda i, row: (row, i, 0)),
    )


class _Tokens:
    """Four tokens at a time of a program's block: what is inside the array, which a block may exceed, and what dropout keeps."""

    def __init__(self, start: jax.Array, i: jax.Array, shape: tuple[int, ...], rate: float, words: tuple[Any, Any]) -> None:
        _, length, width = shape
        padded = pl.next_power_of_2(width)
        first = start + i * _AT_ONCE
        token = first + jax.lax.broadcasted_iota(jnp.int32, (_AT_ONCE, padded), 0)
        self.inside = (token < length) & (jax.lax.broadcasted_iota(jnp.int32, token.shape, 1) < width)
        self.width = width
        self._at = pl.ds(i * _AT_ONCE, _AT_ONCE)
        self._rate = rate
        if rate:
            index = token * width + jax.lax.broadcasted_iota(jnp.int32, token.shape, 1)
            self._kept = kept(words[0][...], words[1][...], index.astype(jnp.uint32), rate)

    def load(self, ref: Any) -> jax.Array:
        """Return float32 [4, features], zero outside."""
        return triton.load(ref.at[self._at, :], mask=self.inside, other=0.0).astype(jnp.float32)

    def store(self, ref: Any, x: jax.Array) -> None:
        triton.store(ref.at[self._at, :], x.astype(ref.dtype), mask=self.inside)

    def drop(self, x: jax.Array) -> jax.Array:
        return jnp.where(self._kept, x * (1 / (1 - self._rate)), 0.0) if self._rate else x

    def mean(self, x: jax.Array) -> jax.Array:
        """Return the mean over the features of each token, float32 [4, 1], of an array that is zero outside."""
        return x.sum(1)[:, None] * (1 / self.width)

    def normalized(self, total: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
        """Return vectors of mean 0 and variance 1, zero outside, and what they were multiplied by [4, 1]."""
        centered = jnp.where(self.inside, total - self.mean(total), 0.0)
        factor = jax.lax.rsqrt(self.mean(centered * centered) + epsilon)
        return centered * factor, factor


def _vector(ref: Any, shape: tuple[int, ...]) -> jax.Array:
    features = jax.lax.iota(jnp.int32, ref.shape[0]) < shape[2]
    return triton.load(ref, mask=features, other=0.0).astype(jnp.float32)[None, :]


def _forward_kernel(
    product: Any, bias: Any, residual: Any, scale: Any, offset: Any, word: Any, other_word: Any, normalized: Any, total: Any,
    *, shape: tuple[int, ...], epsilon: float, rate: float,
) -> None:  # fmt: skip
    start = pl.program_id(0) * _TOKENS
    added, factors, offsets = (_vector(ref, shape) for ref in (bias, scale, offset))

    @pl.loop(0, _TOKENS // _AT_ONCE)
    def visit(i: jax.Array) -> None:
        tokens = _Tokens(start, i, shape, rate, (word, other_word))
        summed = tokens.load(residual) + tokens.drop(tokens.load(product) + added)
        # Rounded before it is normalized, so that the backward pass sees the same.
        summed = summed.astype(total.dtype)
        tokens.store(total, summed)
        unit, _ = tokens.normalized(summed.astype(jnp.float32), epsilon)
        tokens.store(normalized, unit * factors + offsets)


def _backward_kernel(
    total: Any, gradient: Any, scale: Any, word: Any, other_word: Any, to_product: Any, to_residual: Any, to_bias: Any,
    to_scale: Any, to_offset: Any, *, shape: tuple[int, ...], epsilon: float, rate: float,
) -> None:  # fmt: skip
    start, factors = pl.program_id(0) * _TOKENS, _vector(scale, shape)

    def visit(i: jax.Array, sums: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        tokens = _Tokens(start, i, shape, rate, (word, other_word))
        unit, factor = tokens.normalized(tokens.load(total), epsilon)
        incoming = tokens.load(gradient)
        scaled = incoming * factors
        outer = (scaled - tokens.mean(scaled) - unit * tokens.mean(scaled * unit)) * factor
        inner = tokens.drop(outer)
        tokens.store(to_residual, outer)
        tokens.store(to_product, inner)
        return sums[0] + inner.sum(0), sums[1] + (incoming * unit).sum(0), sums[2] + incoming.sum(0)

    zeros = jnp.zeros(scale.shape, jnp.float32)
    sums = jax.lax.fori_loop(0, _TOKENS // _AT_ONCE, visit, (zeros, zeros, zeros))
    features = jax.lax.iota(jnp.int32, scale.shape[0]) < shape[2]
    for ref, summed in zip((to_bias, to_scale, to_offset), sums, strict=True):
        triton.store(ref, summed, mask=features)
