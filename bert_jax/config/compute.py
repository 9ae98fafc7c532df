"""How and on which devices a model is computed."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from bert_jax.config.checks import positive, require

AttentionKernel: TypeAlias = Literal["auto", "dense", "splash", "cudnn", "flash"]
FUSED = ("gelu", "norm", "qkv", "scores")
"""What `ComputeConfig.fused` can name."""


@dataclass(frozen=True)
class ComputeConfig:
    """How the model is computed; apart from rounding and random draws, these values do not change what the model learns."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; parameters, layer norms, softmaxes and losses stay float32."""
    scan_layers: bool | Literal["auto"] = "auto"
    """Scan over one compiled layer, which halves compilation time, instead of unrolling all layers, which runs faster on GPUs and CPUs.
    `auto` scans on TPUs, and elsewhere encoders of more than 24 layers."""
    remat: Literal["none", "dots", "full"] = "none"
    """What to rematerialize in the backward pass: nothing, everything except matrix products, or complete layers."""
    attention: AttentionKernel = "auto"
    """`dense` materializes all attention weights; `splash` (TPUs, lengths that are multiples of 128), `cudnn` (NVIDIA GPUs, bfloat16) and
    `flash` (NVIDIA GPUs; costs what the examples of a row cost by themselves) are fused kernels, which do not support attention dropout
    and so require encoder.attention_dropout=0. In training, `auto` selects a suitable kernel, or `dense` if there is none."""
    fused: tuple[str, ...] = ("auto",)
    """What is computed together, of `gelu` (bias and GELU), `norm` (bias, dropout, residual connection and layer norm), `qkv` (queries,
    keys and values in one product) and `scores` (bfloat16 products in the gradient of the masked-token head too). `gelu` and `norm` are
    kernels for NVIDIA GPUs. `auto` alone selects what is known to be faster, so far nothing."""
    cpu_devices: int = 1
    """Number of JAX devices on a CPU; with one per core, a narrow model trains faster on a few cores (data parallelism)."""

    def __post_init__(self) -> None:
        positive(self, "cpu_devices")
        unknown = [name for name in self.fused if name not in FUSED and self.fused != ("auto",)]
        require(not unknown, "fused", ",".join(unknown), f"name some of {', '.join(FUSED)}, or auto alone.")


@dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each mesh axis; -1 for the data axis means all remaining devices."""

    data: int = -1
    """Devices that divide the batch and each hold all parameters; -1 for all remaining devices."""
    fsdp: int = 1
    """Devices that divide the batch, the parameters and the optimizer state (fully sharded data parallelism)."""
    tensor: int = 1
    """Devices that divide the matrices of each layer (tensor parallelism)."""

    def __post_init__(self) -> None:
        positive(self, "fsdp", "tensor")
        require(self.data == -1 or self.data > 0, "data", self.data, "it must be -1 (all remaining devices) or positive.")
