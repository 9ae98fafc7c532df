"""Resolution of the values of `ComputeConfig` that are "auto"."""

import dataclasses
from collections.abc import Sequence

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.model.kernels.selection import resolve_kernels

# Unrolled, 24 layers compile in about a minute on a GPU; the time grows with the number of layers.
_MOST_UNROLLED = 24


def resolve_compute(compute: ComputeConfig, encoder: EncoderConfig, lengths: Sequence[int], platform: str) -> ComputeConfig:
    """Return `compute` with every "auto" resolved for a platform.

    Layers are unrolled on GPUs and CPUs, where a scanned encoder is slower (by a third for base on an H200), unless it is deep; on TPUs
    they are scanned.

    Args:
        compute: the configuration.
        encoder: the encoder that is computed.
        lengths: the lengths of the rows in training; empty for inference, whose rows are of many lengths and use `dense` attention.
        platform: "cpu", "gpu" or "tpu".

    Raises:
        InputError: a requested kernel is not available on this platform, or cannot compute this model.
    """
    if lengths:
        compute = resolve_kernels(compute, encoder, lengths, platform)
    if compute.scan_layers == "auto":
        compute = dataclasses.replace(compute, scan_layers=platform == "tpu" or encoder.layers > _MOST_UNROLLED)
    return compute
