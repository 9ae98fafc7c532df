"""Attention that skips blocks of other examples, emulated: beside the dense form, with gradients, at odd lengths; what it skips."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from bert_jax.config import ComputeConfig
from bert_jax.model.attention import attend_within
from bert_jax.model.bert import PretrainingModel
from bert_jax.model.kernels.flash_attention import block_ranges, flash_attention

# Many examples, of one token too; one that fills its row; a row without any; one token.
ROWS = ((13, 1, 1, 40, 2, 9, 21, 3), (100,), (), (1,))


def packed(rows: Sequence[Sequence[int]], length: int) -> jax.Array:
    """Example ids of rows of examples of the given lengths, int32 [B, L]."""
    ids = np.zeros((len(rows), length), np.int32)
    for row, lengths in zip(ids, rows, strict=True):
        row[: sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    return jnp.asarray(ids)


def arrays(ids: jax.Array, depth: int, dtype: str = "float32", seed: int = 0) -> list[jax.Array]:
    """Queries, keys, values, and weights of a loss."""
    return [jax.random.normal(key, (*ids.shape, 2, depth)).astype(dtype) for key in jax.random.split(jax.random.key(seed), 4)]


@jax.jit(static_argnums=(0,))
def _with_gradients(attend: Callable[..., jax.Array], made: Sequence[jax.Array], ids: jax.Array) -> Any:
    *inputs, weights = made

    def loss(*inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixed = jnp.where((ids > 0)[:, :, None, None], attend(*inputs, ids), 0)
        return (mixed * weights).astype(jnp.float32).sum(), mixed

    (_, mixed), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs)
    return jax.tree.map(lambda x: x.astype(jnp.float32), (mixed, gradients))


def with_gradients(attend: Callable[..., jax.Array], made: Sequence[jax.Array], ids: jax.Array) -> list[np.ndarray]:
    """The output at real tokens, 0 elsewhere, and the gradients of a loss of it: float32 [B, L, H, K] x 4."""
    return jax.tree.leaves(jax.device_get(_with_gradients(attend, made, ids)))


def dense(query: jax.Array, key: jax.Array, value: jax.Array, ids: jax.Array) -> jax.Array:
    return attend_within(ids, "dense")(query, key, value)


def in_blocks(query: jax.Array, key: jax.Array, value: jax.Array, ids: jax.Array) -> jax.Array:
    return flash_attention(query, key, value, ids, 32)


def test_it_is_attention_within_examples() -> None:
    ids = packed(ROWS, 100)
    made = arrays(ids, 32)
    found, wanted = (with_gradients(attend, made, ids) for attend in (in_blocks, dense))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=5e-6)
    assert not np.asarray(in_blocks(*made[:3], ids))[np.asarray(ids) == 0].any(), "padding gets zeros"
    assert not any(gradient[np.asarray(ids) == 0].any() for gradient in found[1:])


def test_bfloat16_is_as_close_as_the_dense_form_is() -> None:
    ids = packed([(90, 70, 20), (192,)], 192)
    made = arrays(ids, 64, "bfloat16")
    exact = with_gradients(dense, [x.astype(jnp.float32) for x in made], ids)
    for one, other, reference in zip(with_gradients(flash_attention, made, ids), with_gradients(dense, made, ids), exact, strict=True):
        assert np.abs(one - reference).max() <= 1.6 * np.abs(other - reference).max()
        assert np.square(one - reference).mean() <= 1.4 * np.square(other - reference).mean()


def test_row_mates_do_not_notice() -> None:
    ids = packed(ROWS, 100)
    made = arrays(ids, 32)
    second, others = (np.asarray(ids == 4)[:, :, None, None], np.asarray((ids > 0) & (ids != 4)))
    changed = [jnp.where(second, 3 * other, one) for one, other in zip(made, arrays(ids, 32, seed=1), strict=True)]
    for one, other in zip(with_gradients(in_blocks, made, ids), with_gradients(in_blocks, changed, ids), strict=True):
        assert np.array_equal(one[others], other[others]) and not np.array_equal(one, other)


def test_blocks_of_other_examples_are_not_visited() -> None:
    ids = packed([(32, 40, 24)], 100)
    made = arrays(ids, 32)
    broken = [jnp.where((ids == 3)[:, :, None, None], jnp.nan, x) for x in made[:3]]
    first = np.asarray(ids == 1)
    for one, other in zip(with_gradients(in_blocks, made, ids), with_gradients(in_blocks, [*broken, made[3]], ids), strict=True):
        assert np.array_equal(one[first], other[first])
        assert np.isnan(other[np.asarray(ids == 3)]).all()


def test_ranges_are_those_of_the_blocks_with_the_same_examples() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 30, rng.integers(0, 9)).tolist() for _ in range(50)]
    ids = packed(rows, 256)
    first, after = (np.asarray(x) for x in block_ranges(ids, 16))
    blocks = np.asarray(ids).reshape(50, 16, 16)
    for row, place in itertools.product(range(50), range(16)):
        own = set(blocks[row, place]) - {0}
        shared = [i for i in range(16) if own & set(blocks[row, i])]
        assert (first[row, place], after[row, place]) == ((min(shared), max(shared) + 1) if shared else (0, 0))
    # The cost: an example that begins and ends with a block costs the square of its blocks, and padding nothing.
    first, after = block_ranges(packed([(64, 16, 128)], 256), 16)
    assert int((after - first).sum()) == 4**2 + 1 + 8**2


def test_ids_need_not_ascend() -> None:
    ids = jnp.roll(packed([(13, 40, 20), (50, 3, 7)], 96), 29, axis=1)[:, ::-1].at[0, 50].set(1)
    made = arrays(ids, 16)
    np.testing.assert_allclose(in_blocks(*made[:3], ids)[ids > 0], dense(*made[:3], ids)[ids > 0], atol=5e-6)


@pytest.mark.parametrize("compute", [ComputeConfig(attention="flash"), ComputeConfig(attention="flash", scan_layers=True, remat="dots")])
def test_a_model_trains_with_it(compute: ComputeConfig) -> None:
    params, batch = {name: tiny.initial_parameters()[name] for name in ("embeddings", "encoder")}, tiny.batch()
    real = (batch["example_ids"] > 0)[:, :, None].astype(np.float32)

    def gradients(compute: ComputeConfig) -> Any:
        def loss(params: Any) -> jax.Array:
            hidden, _ = PretrainingModel(tiny.VOCABULARY, tiny.ENCODER, compute).apply({"params": params}, batch, method="encode")
            return jnp.square(hidden * real).mean()

        gradient = jax.device_get(jax.jit(jax.grad(loss))(params))
        del gradient["encoder"]["layers"]["key"]["bias"]  # no softmax notices it: 0 but for rounding
        return gradient

    tiny.assert_close(gradients(compute), gradients(ComputeConfig()), 1e-5)


@pytest.mark.skipif(jax.__version_info__ > (0, 10, 2), reason="later versions lower for a GPU that is there only")
@pytest.mark.parametrize(("dtype", "depth"), [("bfloat16", 64), ("float32", 128)])
def test_triton_lowers_it(dtype: str, depth: int) -> None:
    ids = jnp.zeros((2, 192), jnp.int32)
    program = tiny.lowered_for_gpu(lambda made, ids: _with_gradients(flash_attention, made, ids), arrays(ids, depth, dtype), ids)
    assert program.count("__gpu$xla.gpu.triton") == 3, "forward, gradient of queries, gradients of keys and values"


@tiny.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("depth", [32, 64, 128])
@pytest.mark.parametrize(("length", "block"), [(7, 64), (64, 64), (128, 64), (192, 128), (100, 128), (257, 32), (512, 64)])
def test_it_is_attention_at_many_shapes(dtype: str, depth: int, length: int, block: int) -> None:
    rng = np.random.default_rng(length)
    rows = [np.diff([0, *sorted(rng.choice(np.arange(1, length + 1), min(count, length), replace=False))]) for count in (0, 1, 2, 7, 20)]
    ids = packed([row.tolist() for row in rows], length)
    made = arrays(ids, depth, dtype)
    found = with_gradients(lambda *made: flash_attention(*made, block), made, ids)
    for one, other in zip(found, with_gradients(dense, [x.astype(jnp.float32) for x in made], ids), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 if dtype == "float32" else 0.03 * np.abs(other).max() + 1e-6)
