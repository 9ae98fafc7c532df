"""Operations computed together, emulated: beside the plain forms, with gradients; dropout inside a kernel; in the model; on a mesh."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from bert_jax.config import ComputeConfig, EncoderConfig, RunConfig
from bert_jax.config.overrides import apply_overrides
from bert_jax.errors import InputError
from bert_jax.model.attention import attend_within
from bert_jax.model.bert import PretrainingModel
from bert_jax.model.dropout import dropout, row_keys
from bert_jax.model.encoder import EncoderLayer
from bert_jax.model.kernels.gelu import bias_gelu
from bert_jax.model.kernels.residual_norm import residual_norm
from bert_jax.model.kernels.selection import resolve_kernels

# More tokens than a block holds and fewer than two, and features that are no power of two.
ROWS, LENGTH, WIDTH, EPSILON = 2, 70, 300, 1e-12
ENCODER = dataclasses.replace(tiny.ENCODER, layers=1)


def arrays(shape: tuple[int, ...], dtype: str) -> list[jax.Array]:
    """Product, bias, residual, scale, offset and weights of a loss."""
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = (shape, shape[-1:], shape, shape[-1:], shape[-1:], shape)
    product, bias, residual, scale, offset, weights = (jax.random.normal(*pair) for pair in zip(keys, shapes, strict=True))
    return [x.astype(dtype) for x in (2 * product, bias, residual)] + [1 + 0.1 * scale, offset, weights]


def with_gradients(function: Callable[..., jax.Array], inputs: Sequence[jax.Array], weights: jax.Array) -> list[np.ndarray]:
    """The output of a function and the gradients of a loss of it, float32."""

    def loss(*inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = function(*inputs)
        return (found.astype(jnp.float32) * weights).sum(), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, tuple(range(len(inputs))), has_aux=True))(*inputs)
    assert [x.dtype for x in gradients] == [x.dtype for x in inputs] and found.dtype == inputs[0].dtype
    return [np.asarray(x, np.float32) for x in (found, *gradients)]


def plain_gelu(product: jax.Array, bias: jax.Array) -> jax.Array:
    return jax.nn.gelu(product + bias, approximate=False)


def plain_norm(
    product: jax.Array, bias: jax.Array, residual: jax.Array, scale: jax.Array, offset: jax.Array, kept: Any = None, rate: float = 0.1
) -> jax.Array:
    inner = product + bias
    total = residual + (inner if kept is None else jnp.where(kept, inner / (1 - rate), 0))
    wide = total.astype(jnp.float32)
    centered = wide - wide.mean(-1, keepdims=True)
    unit = centered * jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + EPSILON)
    return (unit * scale + offset).astype(product.dtype)


def dropped_by(rate: float, keys: jax.Array, length: int, width: int) -> np.ndarray:
    """Which numbers dropout drops, bool [B, L, D], where they decide the sign of the normalized vectors."""
    ones, zeros = jnp.ones((len(keys), length, width)), jnp.zeros((len(keys), length, width))
    found = residual_norm(ones, zeros[0, 0], zeros, ones[0, 0], zeros[0, 0], EPSILON, rate, keys)
    return np.asarray(found) < 0


def assert_as_close(found: Sequence[np.ndarray], plain: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> None:
    """Rounding errors of bfloat16 are no larger than those of the plain form."""
    for one, other, reference in zip(found, plain, exact, strict=True):
        assert np.square(one - reference).mean() <= 1.1 * np.square(other - reference).mean() + 1e-12


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bias_and_gelu(dtype: str) -> None:
    product, bias, *_, weights = arrays((ROWS, LENGTH, WIDTH), dtype)
    exact = with_gradients(plain_gelu, [x.astype(jnp.float32) for x in (product, bias)], weights)
    found = with_gradients(bias_gelu, [product, bias], weights)
    if dtype == "bfloat16":
        assert_as_close(found, with_gradients(plain_gelu, [product, bias], weights), exact)
    else:
        for one, other in zip(found, exact, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_gelu_is_exact_far_from_zero_too() -> None:
    x = jnp.concatenate([jnp.linspace(-12, 12, 4001), jnp.array([-1e4, 1e4, 0.0])])[None, None, :]
    found, wanted = (with_gradients(gelu, [x, jnp.zeros(x.shape[-1])], jnp.ones(x.shape)) for gelu in (bias_gelu, plain_gelu))
    for one, other in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=3e-7, atol=5e-7)


@pytest.mark.parametrize(("dtype", "rate"), [("float32", 0.1), ("float32", 0.0), ("bfloat16", 0.1)])
def test_bias_dropout_residual_and_norm(dtype: str, rate: float) -> None:
    *made, weights = arrays((ROWS, LENGTH, WIDTH), dtype)
    keys = row_keys(jax.random.key(1), ROWS) if rate else None
    kept = ~dropped_by(rate, keys, LENGTH, WIDTH) if keys is not None else None

    def plain(*made: jax.Array) -> jax.Array:
        return plain_norm(*made, kept, rate)

    found = with_gradients(lambda *made: residual_norm(*made, EPSILON, rate, keys), made, weights)
    exact = with_gradients(plain, [x.astype(jnp.float32) for x in made], weights)
    if dtype == "bfloat16":
        assert_as_close(found, with_gradients(plain, made, weights), exact)
    else:
        for one, other in zip(found, exact, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


def test_dropout_in_a_kernel_drops_what_it_drops_outside() -> None:
    rate, keys = 0.1, row_keys(jax.random.key(0), 4)
    assert np.array_equal(dropped_by(rate, keys, LENGTH, WIDTH), dropout(jnp.ones((4, LENGTH, WIDTH)), rate, keys) == 0)


@cache
def _gradients(compute: ComputeConfig, encoder: EncoderConfig = ENCODER) -> Any:
    params, batch = tiny.initial_parameters(encoder), tiny.batch() | {"masked_positions": np.tile(np.arange(1, 5, dtype=np.int32), (8, 1))}
    keys = row_keys(jax.random.key(0), 8) if encoder.dropout else None

    def loss(params: Any) -> jax.Array:
        found = PretrainingModel(tiny.VOCABULARY, encoder, compute).apply({"params": params}, batch, keys)
        return -jax.nn.log_softmax(found.masked_tokens)[..., 7].mean() - jax.nn.log_softmax(found.next_sentence)[..., 0].mean()

    value, gradient = jax.device_get(jax.jit(jax.value_and_grad(loss))(params))
    del gradient["encoder"]["layers"]["key"]["bias"]  # no softmax notices it: 0 but for rounding
    return value, gradient


def test_a_model_computes_the_same_with_everything_together() -> None:
    plain, fused = ComputeConfig(), ComputeConfig(fused=("gelu", "norm", "qkv", "scores"), attention="flash")
    tiny.assert_close(_gradients(fused), _gradients(plain), 3e-5)


def test_bfloat16_is_as_close_as_it_was() -> None:
    (_, exact), (_, plain), (_, fused) = (
        _gradients(ComputeConfig(dtype=dtype, fused=fused))
        for dtype, fused in (("float32", ()), ("bfloat16", ()), ("bfloat16", ("gelu", "norm", "qkv", "scores")))
    )

    def error(found: Any) -> float:
        return sum(float(np.square(a - b).sum()) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True)) ** 0.5

    size = sum(float(np.square(a).sum()) for a in jax.tree.leaves(exact)) ** 0.5
    assert error(fused) <= 1.1 * error(plain) and error(plain) < 0.05 * size


def test_dropout_is_on_in_a_model() -> None:
    # Of the layer alone: the embeddings have none.
    encoder = dataclasses.replace(tiny.WITH_DROPOUT, attention_dropout=0.0)
    layer, hidden = EncoderLayer(encoder, jnp.dtype("float32"), ("norm",)), jnp.ones((8, 32, 32))
    keys, attend = row_keys(jax.random.key(0), 8), attend_within(jnp.ones((8, 32), jnp.int32), "dense")
    params = jax.tree.map(lambda leaf: leaf[0], tiny.initial_parameters()["encoder"]["layers"])
    one, other = (np.asarray(layer.apply({"params": params}, hidden, attend, keys)) for keys in (keys, None))
    assert len({row.tobytes() for row in one}) == 8 and len({row.tobytes() for row in other}) == 1


@pytest.mark.slow
def test_every_device_computes_its_own_rows() -> None:
    assert float(children.finish([children.start("fusion.py", devices=4)])[0]) < 1e-5


def test_what_is_fused_is_written_as_a_list() -> None:
    assert apply_overrides(RunConfig(), ["compute.fused=gelu,norm"]).compute.fused == ("gelu", "norm")
    assert apply_overrides(RunConfig(), ["compute.fused="]).compute.fused == ()


def test_what_is_fused_is_resolved_and_checked() -> None:
    def resolved(platform: str, *fused: str) -> tuple[str, ...]:
        return resolve_kernels(ComputeConfig(fused=fused), tiny.ENCODER, [128], platform).fused

    assert resolved("cpu", "auto") == resolved("tpu", "auto") == resolved("gpu", "auto") == () == resolved("cpu")
    assert resolved("gpu", "gelu", "norm") == ("gelu", "norm") and resolved("cpu", "qkv", "scores") == ("qkv", "scores")
    with pytest.raises(InputError, match=r"compute.fused=qkv,norm includes norm, which needs a GPU, but this is a CPU"):
        resolved("cpu", "qkv", "norm")
    for wrong in (("layernorm",), ("auto", "gelu")):
        with pytest.raises(InputError, match=r"fused=.*gelu, norm, qkv, scores, or auto alone"):
            ComputeConfig(fused=wrong)


@pytest.mark.skipif(jax.__version_info__ > (0, 10, 2), reason="later versions lower for a GPU that is there only")
def test_triton_lowers_them() -> None:
    *made, weights = arrays((ROWS, LENGTH, WIDTH), "bfloat16")
    keys = row_keys(jax.random.key(1), ROWS)

    def both(*made: jax.Array) -> jax.Array:
        return (residual_norm(bias_gelu(*made[:2]), *made[1:], EPSILON, 0.1, keys).astype(jnp.float32) * weights).sum()

    assert tiny.lowered_for_gpu(jax.grad(both, (0, 1, 2, 3, 4)), *made).count("__gpu$xla.gpu.triton") == 4


@tiny.long
@pytest.mark.parametrize(("rows", "length", "width"), [(1, 1, 16), (3, 64, 64), (2, 65, 128), (1, 130, 768), (2, 63, 1024), (1, 5, 312)])
def test_many_shapes(rows: int, length: int, width: int) -> None:
    *made, weights = arrays((rows, length, width), "float32")
    keys = row_keys(jax.random.key(1), rows)
    kept = ~dropped_by(0.3, keys, length, width)
    pairs = [
        (bias_gelu, plain_gelu, made[:2]),
        (lambda *made: residual_norm(*made, EPSILON, 0.3, keys), lambda *made: plain_norm(*made, kept, 0.3), made),
    ]
    for fused, plain, inputs in pairs:
        for one, other in zip(with_gradients(fused, inputs, weights), with_gradients(plain, inputs, weights), strict=True):
            np.testing.assert_allclose(one, other, atol=5e-5, rtol=1e-5)
