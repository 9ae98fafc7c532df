"""Fused attention is attention: beside the dense form, on packed rows, with gradients, on one device and on a mesh."""

from collections.abc import Callable
from typing import Any

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from bert_jax.config import ComputeConfig, EncoderConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.errors import InputError
from bert_jax.model.attention import attend_within
from bert_jax.model.fused_attention import library_attention, splash_attention
from bert_jax.model.kernels.selection import resolve_kernels

LENGTH, HEADS, DEPTH = 128, 2, 64


def arrays(rows: int) -> tuple[list[jax.Array], jax.Array]:
    """Queries, keys and values; examples of several lengths, and padding."""
    made = [jax.random.normal(key, (rows, LENGTH, HEADS, DEPTH)) for key in jax.random.split(jax.random.key(0), 3)]
    ids = np.repeat([[1, 2, 3, 0]], [40, 50, 7, 31], axis=1).repeat(rows, 0)
    ids[-1] = np.repeat([1, 2], [1, LENGTH - 1])
    return made, jnp.asarray(ids, jnp.int32)


def with_gradients(attend: Callable[..., jax.Array], made: list[jax.Array], ids: jax.Array) -> Any:
    weights = jax.random.normal(jax.random.key(1), made[0].shape) * (ids > 0)[:, :, None, None].astype(jnp.float32)

    def loss(*made: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixed = attend(*made)
        return (mixed * weights).sum(), mixed

    (_, mixed), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*made)
    return jax.device_get((np.asarray(mixed)[np.asarray(ids) > 0], gradients))


@pytest.mark.slow  # the kernel is interpreted
@pytest.mark.parametrize("kernel", ["splash", "library"])
def test_fused_attention_is_attention(kernel: str) -> None:
    made, ids = arrays(rows=2)
    fused = {
        "splash": lambda *made: splash_attention(*made, ids, interpret=True),
        "library": lambda *made: library_attention(*made, ids, implementation="xla"),
    }[kernel]
    tiny.assert_close(with_gradients(fused, made, ids), with_gradients(attend_within(ids, "dense"), made, ids), 1e-5)


@pytest.mark.slow
def test_every_device_computes_its_own_rows_and_heads() -> None:
    assert float(children.finish([children.start("fused.py", devices=4)])[0]) < 1e-5


def test_what_a_kernel_cannot_do_is_refused_by_the_configuration() -> None:
    encoder = EncoderConfig.preset("tiny", attention_dropout=0.0)
    stage = PretrainConfig(rows=RowsConfig(length=128))
    RunConfig(encoder=encoder, compute=ComputeConfig(attention="splash"), pretrain=stage)
    with pytest.raises(InputError, match=r"attention_dropout=0"):
        RunConfig(compute=ComputeConfig(attention="cudnn"))
    with pytest.raises(InputError, match=r"pretrain\.rows\.length.*multiple of 128"):
        RunConfig(encoder=encoder, compute=ComputeConfig(attention="splash"), pretrain=PretrainConfig(rows=RowsConfig(length=96)))


@pytest.mark.parametrize(
    ("platform", "changes", "lengths", "kernel"),
    [
        ("tpu", {}, [128, 512], "splash"),
        ("tpu", {}, [128, 200], "dense"),
        ("tpu", {"attention_dropout": 0.1}, [128], "dense"),
        ("gpu", {}, [512], "cudnn"),
        ("gpu", {"heads": 4}, [512], "dense"),
        ("cpu", {}, [512], "dense"),
    ],
)
def test_training_takes_the_kernel_that_fits(platform: str, changes: dict[str, Any], lengths: list[int], kernel: str) -> None:
    encoder = EncoderConfig.preset("tiny", **{"attention_dropout": 0.0, **changes})
    assert resolve_kernels(ComputeConfig(dtype="bfloat16"), encoder, lengths, platform).attention == kernel


@pytest.mark.parametrize(
    ("kernel", "platform", "changes", "dtype", "length", "needed"),
    [
        ("splash", "gpu", {}, "bfloat16", 128, "needs a TPU, but this is a GPU"),
        ("flash", "cpu", {}, "bfloat16", 128, "needs a GPU, but this is a CPU"),
        ("cudnn", "gpu", {}, "float32", 128, "needs compute.dtype=bfloat16, but it is float32"),
        ("cudnn", "gpu", {}, "bfloat16", 100, "multiple of 128, but one is 64"),
        ("flash", "gpu", {"heads": 8}, "float32", 100, "to be 32, 64 or 128, but it is 16"),
        ("flash", "gpu", {"attention_dropout": 0.1}, "float32", 100, "attention_dropout=0, but it is 0.1"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused(
    kernel: Any, platform: str, changes: dict[str, Any], dtype: Any, length: int, needed: str
) -> None:
    encoder = EncoderConfig.preset("tiny", **{"attention_dropout": 0.0, **changes})
    with pytest.raises(InputError, match=f"compute.attention={kernel} .*{needed}"):
        resolve_kernels(ComputeConfig(attention=kernel, dtype=dtype), encoder, [64, length], platform)


def test_a_kernel_that_fits_is_taken() -> None:
    encoder = EncoderConfig.preset("tiny", attention_dropout=0.0)
    assert resolve_kernels(ComputeConfig(attention="dense"), encoder, [128], "tpu").attention == "dense"
    assert resolve_kernels(ComputeConfig(attention="flash"), encoder, [100, 192], "gpu").attention == "flash"


def test_a_slower_kernel_on_an_accelerator_is_explained_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        resolve_kernels(ComputeConfig(), EncoderConfig.preset("tiny", attention_dropout=0.25), [128], "gpu")
        resolve_kernels(ComputeConfig(), EncoderConfig.preset("tiny", attention_dropout=0.25), [128], "cpu")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cudnn needs encoder.attention_dropout=0, but it is 0.25" in said
