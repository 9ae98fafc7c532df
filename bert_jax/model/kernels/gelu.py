"""Bias and GELU in one pass over memory, and their gradients in another."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import PartitionSpec

from bert_jax.model.kernels.launch import launch
from bert_jax.model.per_device import ROWS, on_each_device

_TOKENS, _FEATURES = 64, 256
"""Tokens and features per program, which sums the tokens' contributions to the gradient of the bias before it writes them."""
_TOGETHER = 8
"""Tokens computed at a time: sixteen numbers of each array per thread."""
_ROWS_AND_FEATURES = PartitionSpec(*ROWS, None, "tensor")
# Abramowitz and Stegun 1964, formula 7.1.26, which is off by 1.5e-7 at most: Triton has no error function.
_P, _A = 0.3275911, (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


@jax.custom_vjp
def bias_gelu(product: jax.Array, bias: jax.Array) -> jax.Array:
    """GELU of `product + bias` (Hendrycks and Gimpel 2016, not approximated), computed in float32: [B, L, F], [F] -> [B, L, F].

    Only `product` is kept for the backward pass. Under a mesh each device computes its own rows and features.
    """
    return _forward(product, bias)[0]


def _forward(product: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
    def on_one_device(product: jax.Array, bias: jax.Array) -> Any:
        tile, vector, _ = _specs(product.shape)
        (activated,) = launch(
            partial(_forward_kernel, shape=product.shape),
            *(product, bias),
            grid=_grid(product.shape),
            in_specs=[tile, vector],
            out_specs=[tile],
            out_shape=[jax.ShapeDtypeStruct(product.shape, product.dtype)],
        )
        return activated

    specs = (_ROWS_AND_FEATURES, PartitionSpec("tensor"))
    return on_each_device(on_one_device, specs, _ROWS_AND_FEATURES)(product, bias), (product, bias)


def _backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    product, bias = residuals

    def on_one_device(product: jax.Array, bias: jax.Array, gradient: jax.Array) -> Any:
        shape = product.shape
        tile, vector, sums = _specs(shape)
        _, blocks, rows = _grid(shape)
        return launch(
            partial(_backward_kernel, shape=shape),
            *(product, bias, gradient),
            grid=_grid(shape),
            in_specs=[tile, vector, tile],
            out_specs=[tile, sums],
            out_shape=[jax.ShapeDtypeStruct(shape, product.dtype), jax.ShapeDtypeStruct((rows, blocks, shape[2]), jnp.float32)],
        )

    specs = (_ROWS_AND_FEATURES, PartitionSpec("tensor"), _ROWS_AND_FEATURES)
    to_product, sums = on_each_device(on_one_device, specs, _ROWS_AND_FEATURES)(product, bias, gradient)
    return to_product, sums.sum((0, 1)).astype(bias.dtype)


bias_gelu.defvjp(_forward, _backward)


def _grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return pl.cdiv(shape[2], _FEATURES), pl.cdiv(shape[1], _TOKENS), shape[0]


def _specs(shape: tuple[int, ...]) -> tuple[pl.BlockSpec, ...]:
    """What a program (block of features, block of tokens, row) sees of arrays like the input, of the bias, and of the sums."""
    return (
        pl.BlockSpec((None, _TOKENS, _FEATURES), lambda j, i, row: (row, i, j)),
        pl.BlockSpec((_FEATURES,), lambda j, i, row: (j,)),
        pl.BlockSpec((None, None, _FEATURES), lambda j, i, row: (row, i, j)),
    )


def _normal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distribution function and density of the standard normal distribution.

    Written with the instructions that a GPU has, 2^x and 1/sqrt(x): a division and e^x would make arithmetic, not memory, the limit.
    """
    bell = jnp.exp2(x * x * (-0.5 * math.log2(math.e)))
    root = jax.lax.rsqrt(1 + _P * math.sqrt(0.5) * jnp.abs(x))
    t = root * root
    polynomial = t * _A[0] + _A[1]
    for coefficient in _A[2:]:
        polynomial = polynomial * t + coefficient
    tail = polynomial * t * (0.5 * bell)
    return jnp.where(x < 0, tail, 1 - tail), bell * (1 / math.sqrt(2 * math.pi))


class _Block:
    """A program's block, some tokens at a time; it may exceed the array."""

    def __init__(self, shape: tuple[int, ...], bias: Any) -> None:
        # Asked here, because the emulation does not know it within a loop.
        self._first, self._length = pl.program_id(1) * _TOKENS, shape[1]
        self.features = pl.program_id(0) * _FEATURES + jax.lax.iota(jnp.int32, _FEATURES) < shape[2]
        self._bias = triton.load(bias, mask=self.features, other=0.0).astype(jnp.float32)[None, :]

    def at(self, i: jax.Array) -> tuple[Any, jax.Array]:
        """Return where some tokens are in the block, and which of their numbers are inside the array: bool [tokens, features]."""
        token = self._first + i * _TOGETHER + jax.lax.iota(jnp.int32, _TOGETHER)
        return pl.ds(i * _TOGETHER, _TOGETHER), (token < self._length)[:, None] & self.features[None, :]

    def input(self, product: Any, i: jax.Array) -> jax.Array:
        """Return what the GELU is applied to, float32 [tokens, features]."""
        place, inside = self.at(i)
        return triton.load(product.at[place, :], mask=inside, other=0.0).astype(jnp.float32) + self._bias


def _forward_kernel(product: Any, bias: Any, activated: Any, *, shape: tuple[int, ...]) -> None:
    block = _Block(shape, bias)

    @pl.loop(0, _TOKENS // _TOGETHER)
    def visit(i: jax.Array) -> None:
        place, inside = block.at(i)
        x = block.input(product, i)
        triton.store(activated.at[place, :], (x * _normal(x)[0]).astype(activated.dtype), mask=inside)


def _backward_kernel(product: Any, bias: Any, gradient: Any, to_product: Any, sums: Any, *, shape: tuple[int, ...]) -> None:
    block = _Block(shape, bias)

    def visit(i: jax.Array, summed: jax.Array) -> jax.Array:
        place, inside = block.at(i)
        x = block.input(product, i)
        below, density = _normal(x)
        incoming = triton.load(gradient.at[place, :], mask=inside, other=0.0).astype(jnp.float32)
        change = incoming * (below + x * density)
        triton.store(to_product.at[place, :], change.astype(to_product.dtype), mask=inside)
        return summed + change.sum(0)

    summed = jax.lax.fori_loop(0, _TOKENS // _TOGETHER, visit, jnp.zeros(sums.shape, jnp.float32))
    triton.store(sums, summed, mask=block.features)
