"""The device mesh, and a table of the sharding of every parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bert_jax.config import MeshConfig
from bert_jax.errors import InputError
from bert_jax.model.per_device import ROWS

AXES = ("data", "fsdp", "tensor")

# Suffix of a parameter's path -> mesh axes; dimension names as in docs/architecture.md. Vectors and heads that are not listed are
# replicated. Encoder matrices are stacked on a leading layer axis N, which is not sharded.
PARAMETER_SPECS: dict[tuple[str, ...], PartitionSpec] = {
    ("embeddings", "tokens"): PartitionSpec("tensor", "fsdp"),  # V, D
    ("embeddings", "positions"): PartitionSpec(None, "fsdp"),  # P, D
    ("embeddings", "segments"): PartitionSpec(None, None),  # S, D: a row or two
    ("embeddings", "units", "kernel"): PartitionSpec("fsdp", None),  # U, D
    ("query", "kernel"): PartitionSpec(None, "fsdp", "tensor"),  # N, D, H*K
    ("key", "kernel"): PartitionSpec(None, "fsdp", "tensor"),
    ("value", "kernel"): PartitionSpec(None, "fsdp", "tensor"),
    ("query", "bias"): PartitionSpec(None, "tensor"),  # N, H*K
    ("key", "bias"): PartitionSpec(None, "tensor"),
    ("value", "bias"): PartitionSpec(None, "tensor"),
    ("attention_output", "kernel"): PartitionSpec(None, "tensor", "fsdp"),  # N, H*K, D
    ("feed_forward", "kernel"): PartitionSpec(None, "fsdp", "tensor"),  # N, D, F
    ("feed_forward", "bias"): PartitionSpec(None, "tensor"),  # N, F
    ("feed_forward_output", "kernel"): PartitionSpec(None, "tensor", "fsdp"),  # N, F, D
    ("pooler", "dense", "kernel"): PartitionSpec("fsdp", "tensor"),  # D, D
    ("masked_token", "dense", "kernel"): PartitionSpec("fsdp", "tensor"),  # D, D
    ("masked_token", "bias"): PartitionSpec("tensor"),  # V
}
# Low-rank factors are sharded like the sides of their matrix (bert_jax.training.lora).
for (_matrix, _name), _kernel in [(path, spec) for path, spec in PARAMETER_SPECS.items() if path[1:] == ("kernel",) and len(spec) == 3]:
    PARAMETER_SPECS[_matrix, "lora_a"] = PartitionSpec(None, _kernel[1], None)  # N, in, r
    PARAMETER_SPECS[_matrix, "lora_b"] = PartitionSpec(None, None, _kernel[2])  # N, r, out


def make_mesh(config: MeshConfig, batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Create the mesh ("data", "fsdp", "tensor") over all devices of all processes, or over the given devices.

    Raises:
        InputError: the product of the axes is not the number of devices, the batch cannot be divided evenly, or the tensor axis would
            split a row across processes.
    """
    count = len(devices) if devices else jax.device_count()
    processes = len({device.process_index for device in devices}) if devices else jax.process_count()
    rest = config.fsdp * config.tensor
    data = count // rest if config.data == -1 else config.data
    if data * rest != count:
        raise InputError(
            f"The mesh data={data}, fsdp={config.fsdp}, tensor={config.tensor} needs {data * rest} devices, but there are {count}. "
            "Set --config.mesh.data, .fsdp and .tensor so that their product equals the number of devices."
        )
    if batch_size % (data * config.fsdp):
        raise InputError(
            f"A batch of {batch_size} rows (batch_size / gradient_accumulation_steps) cannot be divided evenly over "
            f"data={data} x fsdp={config.fsdp} devices. "
            f"Choose a batch_size that is a multiple of {data * config.fsdp} times gradient_accumulation_steps, or another mesh."
        )
    if data * config.fsdp % processes:
        raise InputError(
            f"The mesh data={data}, fsdp={config.fsdp}, tensor={config.tensor} would split rows across the {processes} "
            "processes, but each process reads complete rows. Lower --config.mesh.tensor to a divisor of the number of devices per process."
        )
    return jax.make_mesh((data, config.fsdp, config.tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def platform(mesh: Mesh) -> str:
    """Return the platform of the devices: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def _spec(path: tuple[Any, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    names = tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
    for end, spec in PARAMETER_SPECS.items():
        if names[-len(end) :] == end and len(shape) == len(spec):
            # A dimension not divisible by its axis, such as the vocabulary, is not sharded.
            return PartitionSpec(*(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(spec, shape, strict=True)))
    if _needs_entry(names, len(shape)):
        raise ValueError(
            f"The parameter {'/'.join(names)} of shape {shape} has no entry in PARAMETER_SPECS, so every device would hold a complete "
            f"copy. Add an entry in {__name__}: a mesh axis for each dimension, or None for dimensions that are not sharded."
        )
    return PartitionSpec()


def _needs_entry(names: tuple[str, ...], dimensions: int) -> bool:
    """Return whether a parameter is an encoder matrix (not counting the layer axis) or a table, too large to replicate by accident."""
    matrix = "encoder" in names[:-1] and dimensions - ("layers" in names) >= 2
    return matrix or (names[-2:-1] == ("embeddings",) and dimensions >= 2)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return the sharding of every array of a state. Optimizer moments are sharded like their parameters.

    Raises:
        ValueError: an encoder matrix or a table has no entry in `PARAMETER_SPECS`.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _spec(path, leaf.shape, mesh)), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array that is replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Assemble the rows [B/P, ...] of each of P processes into global arrays [B, ...] sharded over the mesh."""
    sharding = NamedSharding(mesh, ROWS)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
