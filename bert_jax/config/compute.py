"""How a model is computed, and on which devices."""

from dataclasses import dataclass
from typing import Literal

from bert_jax.config.checks import positive, require


@dataclass(frozen=True)
class ComputeConfig:
    """How the architecture is computed; no value here changes what is learned, beyond rounding."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; parameters, layer norms, softmaxes and losses stay float32."""
    scan_layers: bool = False
    """One compiled layer in a loop (compiles in half the time) instead of N unrolled ones (runs faster)."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again: nothing, all but matrix products, or every layer."""
    attention: Literal["auto", "dense", "splash", "cudnn"] = "auto"
    """Every weight in memory, or a fused kernel: splash on TPUs (rows of a multiple of 128 tokens), cudnn on NVIDIA GPUs (bfloat16).
    A kernel drops no attention weights, so it takes encoder.attention_dropout=0. Training takes by `auto` the kernel that fits, or none."""
    random_bits: Literal["threefry", "rbg"] = "threefry"
    """What dropout draws from. Threefry draws the same on every machine and mesh; rbg is the generator of a TPU or GPU itself, which
    computes less, and draws anew on another mesh."""
    cpu_devices: int = 1
    """Devices that a CPU counts as: with one for each of a few cores a narrow model trains faster, each on its own rows."""

    def __post_init__(self) -> None:
        positive(self, "cpu_devices")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; -1 for the data axis means all that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        positive(self, "fsdp", "tensor")
        require(self.data == -1 or self.data > 0, "data", self.data, "it must be -1 (all that are left) or positive.")
