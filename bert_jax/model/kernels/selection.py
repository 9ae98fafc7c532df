"""Which kernels compute a model on a device."""

import dataclasses
import sys
from collections.abc import Sequence
from functools import cache

import jax

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.config.compute import AttentionKernel
from bert_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """What an attention kernel is written for."""

    platform: str
    head_widths: tuple[int, ...]
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    multiple: int = 1
    """Of which the length of a row must be a multiple."""


_ATTENTION = {
    "splash": _Kernel("tpu", (64, 128, 192, 256), multiple=128),
    # It takes multiples of 64, but at odd ones, the gradient of rows with very low scores is NaN (pytorch/pytorch issue 196678).
    "cudnn": _Kernel("gpu", (64, 128), ("bfloat16",), multiple=128),
    "flash": _Kernel("gpu", (32, 64, 128)),
}
_AUTOMATIC: dict[str, AttentionKernel] = {"tpu": "splash", "gpu": "cudnn"}
"""The fastest kernels by measurement; `flash` has not been measured on a GPU yet."""

_TRITON = ("gelu", "norm")


def resolve_kernels(compute: ComputeConfig, encoder: EncoderConfig, lengths: Sequence[int], platform: str) -> ComputeConfig:
    """Return `compute` with `auto` resolved to the kernels for training on a platform with rows of the given lengths.

    If a TPU or GPU computes dense attention because its kernel does not fit, a line on stderr says why.

    Args:
        platform: "cpu", "gpu" or "tpu".

    Raises:
        InputError: a requested kernel is not available on this platform, or cannot compute this model.
    """
    compiled = [name for name in compute.fused if name in _TRITON]
    if compiled and platform != "gpu":
        raise InputError(
            f"compute.fused={','.join(compute.fused)} includes {' and '.join(compiled)}, which needs a GPU, but this is a "
            f"{platform.upper()}. Set --config.compute.fused=auto."
        )
    fused = () if compute.fused == ("auto",) else compute.fused
    return dataclasses.replace(compute, attention=_attention(compute, encoder, lengths, platform), fused=fused)


def _attention(compute: ComputeConfig, encoder: EncoderConfig, lengths: Sequence[int], platform: str) -> AttentionKernel:
    """Return the attention kernel, or raise an InputError."""
    kernel: AttentionKernel = _AUTOMATIC.get(platform, "dense") if compute.attention == "auto" else compute.attention
    obstacle = _obstacle(_ATTENTION[kernel], compute, encoder, lengths, platform) if kernel in _ATTENTION else ""
    if not obstacle:
        return kernel
    if compute.attention == "auto":
        _note(f"Attention is computed without a fused kernel: {kernel} needs {obstacle}.")
        return "dense"
    raise InputError(f"compute.attention={kernel} needs {obstacle}. Set --config.compute.attention=auto to use the kernel that fits.")


def _obstacle(kernel: _Kernel, compute: ComputeConfig, encoder: EncoderConfig, lengths: Sequence[int], platform: str) -> str:
    """Return what the kernel needs and does not have, or nothing."""
    depth, unfit = encoder.width // encoder.heads, [length for length in lengths if length % kernel.multiple]
    if kernel.platform != platform:
        return f"a {kernel.platform.upper()}, but this is a {platform.upper()}"
    if encoder.attention_dropout:
        return f"encoder.attention_dropout=0, but it is {encoder.attention_dropout}"
    if compute.dtype not in kernel.dtypes:
        return f"compute.dtype={kernel.dtypes[0]}, but it is {compute.dtype}"
    if depth not in kernel.head_widths:
        widths = f"{', '.join(map(str, kernel.head_widths[:-1]))} or {kernel.head_widths[-1]}"
        return f"encoder.width / encoder.heads to be {widths}, but it is {depth}"
    return f"rows whose length is a multiple of {kernel.multiple}, but one is {unfit[0]}" if unfit else ""


@cache
def _note(line: str) -> None:
    """Say something once, by one process."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr, flush=True)
