"""Attention within the examples of packed rows, at a cost in proportion to the sum of their squared lengths.

FlashAttention (Dao 2023, "FlashAttention-2", algorithms 1 and 2) as Pallas kernels for NVIDIA GPUs. For each block of queries, XLA finds
the range of key blocks that hold the same examples, and the kernel visits no other; within a block, scores of other examples are masked.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bert_jax.model.kernels.launch import launch
from bert_jax.model.per_device import ROWS, ROWS_AND_HEADS, on_each_device

BLOCK = 64
"""Tokens per block of queries or keys. Smaller blocks skip more, larger ones use the tensor cores better."""
_SMALLEST_BLOCK = 16  # of a matrix product on tensor cores
_LARGEST_TILE = 2**14  # bytes of a block; six of them fit into the shared memory of any multiprocessor since Ampere
_LOWEST = -1e30  # finite, so that the difference of two of them is 0


def flash_attention(query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array, block: int = BLOCK) -> jax.Array:
    """Softmax attention within examples: [B, L, H, K] x 3, int32 [B, L] -> [B, L, H, K].

    Statistics of the softmax are float32, and so are the sums of products of bfloat16; products of float32 are TF32 on a GPU, as XLA's
    are by default. Padding (id 0) gets zeros. Any L will do, but rows are padded to whole blocks, so multiples of `block`, a power of
    two, save a copy. Any ids are computed correctly; blocks are skipped where ids ascend along a row, as those of packed rows do. Under
    a mesh (`jax.sharding.use_abstract_mesh`) each device computes its own rows and heads, since XLA cannot partition a custom kernel.
    """
    length, depth = query.shape[1], query.shape[3]
    block = min(block, max(_SMALLEST_BLOCK, pl.next_power_of_2(length)), _LARGEST_TILE // (depth * query.dtype.itemsize))
    missing = -length % block

    def on_one_device(query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array) -> jax.Array:
        arrays = [jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else x for x in (query, key, value)]
        return _attend(*arrays, jnp.pad(example_ids, ((0, 0), (0, missing))), block)[:, :length]

    mixed: jax.Array = on_each_device(on_one_device, (*(ROWS_AND_HEADS,) * 3, ROWS), ROWS_AND_HEADS)(query, key, value, example_ids)
    return mixed


def block_ranges(example_ids: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """Return the first block, and the one after the last, that may share an example with each block of a row.

    Two blocks may share one if their ranges of ids overlap; this holds for queries and keys alike. A block of padding alone gets an
    empty range, which starts and ends at 0.

    Args:
        example_ids: int32 [B, L]; 0 is padding.
        block: tokens per block, a divisor of L.

    Returns:
        Two arrays int32 [B, L / block].
    """
    by_block = example_ids.reshape(example_ids.shape[0], -1, block)
    lowest = jnp.where(by_block > 0, by_block, jnp.iinfo(jnp.int32).max).min(-1)
    highest = by_block.max(-1)
    overlaps = (lowest[:, :, None] <= highest[:, None, :]) & (lowest[:, None, :] <= highest[:, :, None])
    places = jnp.arange(1, overlaps.shape[-1] + 1, dtype=jnp.int32)
    first, after = overlaps.argmax(-1).astype(jnp.int32), jnp.where(overlaps, places, 0).max(-1)
    return first, after


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array, block: int) -> jax.Array:
    mixed, _ = _attend_forward(query, key, value, example_ids, block)
    return mixed


def _attend_forward(query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array, block: int) -> tuple[jax.Array, Any]:
    rows, length, heads, depth = query.shape
    tile, whole, ids, all_ids, scalar, statistic, _ = _specs(length, depth, block)
    first, after = block_ranges(example_ids, block)
    mixed, log_sum = launch(
        partial(_forward_kernel, block=block, scale=depth**-0.5),
        *(first, after, example_ids, example_ids, query, key, value),
        grid=(length // block, heads, rows),
        warps=_warps(block),
        in_specs=[scalar, scalar, ids, all_ids, tile, whole, whole],
        out_specs=[tile, statistic],
        out_shape=[jax.ShapeDtypeStruct(query.shape, value.dtype), jax.ShapeDtypeStruct((rows, heads, length), jnp.float32)],
    )
    return mixed, (query, key, value, example_ids, mixed, log_sum)


def _attend_backward(block: int, residuals: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, example_ids, mixed, log_sum = residuals
    rows, length, heads, depth = query.shape
    tile, whole, ids, all_ids, scalar, statistic, statistics = _specs(length, depth, block)
    first, after = block_ranges(example_ids, block)
    grid, scale = (length // block, heads, rows), depth**-0.5
    query_gradient, products = launch(
        partial(_query_gradient_kernel, block=block, scale=scale),
        *(first, after, example_ids, example_ids, query, key, value, mixed, gradient, log_sum),
        grid=grid,
        warps=_warps(block),
        in_specs=[scalar, scalar, ids, all_ids, tile, whole, whole, tile, tile, statistic],
        out_specs=[tile, statistic],
        out_shape=[jax.ShapeDtypeStruct(query.shape, query.dtype), jax.ShapeDtypeStruct(log_sum.shape, jnp.float32)],
    )
    key_gradient, value_gradient = launch(
        partial(_key_gradient_kernel, block=block, scale=scale),
        *(first, after, example_ids, example_ids, query, key, value, gradient, log_sum, products),
        grid=grid,
        warps=_warps(block),
        in_specs=[scalar, scalar, all_ids, ids, whole, tile, tile, whole, statistics, statistics],
        out_specs=[tile, tile],
        out_shape=[jax.ShapeDtypeStruct(key.shape, key.dtype), jax.ShapeDtypeStruct(value.shape, value.dtype)],
    )
    return query_gradient, key_gradient, value_gradient, None


_attend.defvjp(_attend_forward, _attend_backward)


def _warps(block: int) -> int:
    return 4 if block <= 64 else 8


def _specs(length: int, depth: int, block: int) -> tuple[pl.BlockSpec, ...]:
    """What a program (block, head, row) sees: of vectors and ids its block or its row, of ranges a number, of statistics either."""
    return (
        pl.BlockSpec((None, block, None, depth), lambda i, head, row: (row, i, head, 0)),
        pl.BlockSpec((None, length, None, depth), lambda i, head, row: (row, 0, head, 0)),
        pl.BlockSpec((None, block), lambda i, head, row: (row, i)),
        pl.BlockSpec((None, length), lambda i, head, row: (row, 0)),
        pl.BlockSpec((None, None), lambda i, head, row: (row, i)),
        pl.BlockSpec((None, None, block), lambda i, head, row: (row, head, i)),
        pl.BlockSpec((None, None, length), lambda i, head, row: (row, head, 0)),
    )


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    # Without a precision, Triton multiplies float32 without tensor cores.
    precision = jax.lax.Precision.HIGH if a.dtype == jnp.float32 else None
    return jax.lax.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def _scores(left: jax.Array, right: jax.Array, left_ids: jax.Array, right_ids: jax.Array, scale: float) -> jax.Array:
    """Scores of one block with another, in powers of two: [block, K] x 2, int32 [block] x 2 -> float32 [block, block].

    Scores of other examples, and of padding, are minus infinity.
    """
    same = (left_ids[:, None] == right_ids[None, :]) & (left_ids > 0)[:, None]
    return jnp.where(same, _dot(left, right.T) * (scale * math.log2(math.e)), -jnp.inf)


def _forward_kernel(
    first: Any, after: Any, own_ids: Any, all_ids: Any, query: Any, key: Any, value: Any, mixed: Any, log_sum: Any,
    *, block: int, scale: float,
) -> None:  # fmt: skip
    own, ids = query[...], own_ids[...]

    def visit(i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        total, highest, summed = carry
        there = pl.ds(i * block, block)
        scores = _scores(own, key[there, :], ids, all_ids[there], scale)
        higher = jnp.maximum(highest, scores.max(1))
        weights, shrink = jnp.exp2(scores - higher[:, None]), jnp.exp2(highest - higher)
        values = value[there, :]
        return total * shrink[:, None] + _dot(weights.astype(values.dtype), values), higher, summed * shrink + weights.sum(1)

    start = jnp.zeros(own.shape, jnp.float32), jnp.full(ids.shape, _LOWEST, jnp.float32), jnp.zeros(ids.shape, jnp.float32)
    total, highest, summed = jax.lax.fori_loop(first[...], after[...], visit, start)
    summed = jnp.where(ids > 0, summed, 1.0)  # padding has seen nothing
    mixed[...] = (total * (1 / summed)[:, None]).astype(mixed.dtype)
    log_sum[...] = highest + jnp.log2(summed)


def _query_gradient_kernel(
    first: Any, after: Any, own_ids: Any, all_ids: Any, query: Any, key: Any, value: Any, mixed: Any, gradient: Any, log_sum: Any,
    query_gradient: Any, products: Any, *, block: int, scale: float,
) -> None:  # fmt: skip
    """Also returns the products of outputs and their gradients, float32 [block], which the gradient of the keys needs."""
    own, ids, incoming, sums = query[...], own_ids[...], gradient[...], log_sum[...]
    product = (mixed[...].astype(jnp.float32) * incoming.astype(jnp.float32)).sum(1)

    def visit(i: jax.Array, total: jax.Array) -> jax.Array:
        there = pl.ds(i * block, block)
        keys = key[there, :]
        weights = jnp.exp2(_scores(own, keys, ids, all_ids[there], scale) - sums[:, None])
        change = weights * (_dot(incoming, value[there, :].T) - product[:, None])
        return total + _dot(change.astype(keys.dtype), keys)

    total = jax.lax.fori_loop(first[...], after[...], visit, jnp.zeros(own.shape, jnp.float32))
    query_gradient[...] = (total * scale).astype(query_gradient.dtype)
    products[...] = product


def _key_gradient_kernel(
    first: Any, after: Any, all_ids: Any, own_ids: Any, query: Any, key: Any, value: Any, gradient: Any, log_sum: Any, products: Any,
    key_gradient: Any, value_gradient: Any, *, block: int, scale: float,
) -> None:  # fmt: skip
    """Keys are rows and queries are columns here, so that no product needs a transposed array of weights."""
    own, ids, values = key[...], own_ids[...], value[...]

    def visit(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keys_total, values_total = carry
        there = pl.ds(i * block, block)
        queries, incoming = query[there, :], gradient[there, :]
        weights = jnp.exp2(_scores(own, queries, ids, all_ids[there], scale) - log_sum[there][None, :])
        values_total += _dot(weights.astype(incoming.dtype), incoming)
        change = weights * (_dot(values, incoming.T) - products[there][None, :])
        return keys_total + _dot(change.astype(queries.dtype), queries), values_total

    zeros = jnp.zeros(own.shape, jnp.float32)
    keys_total, values_total = jax.lax.fori_loop(first[...], after[...], visit, (zeros, zeros))
    key_gradient[...] = (keys_total * scale).astype(key_gradient.dtype)
    value_gradient[...] = values_total.astype(value_gradient.dtype)
