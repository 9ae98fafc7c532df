"""The mesh of devices, and the one table that says how each parameter lies on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bert_jax.config import MeshConfig
from bert_jax.errors import InputError
from bert_jax.model.per_device import ROWS

AXES = ("data", "fsdp", "tensor")

# The end of a parameter's path -> its axes; letters as in docs/architecture.md. Vectors and heads without a row are replicated.
# Matrices of the encoder are stacked on a leading layer axis N, which stays whole.
PARAMETER_SPECS: dict[tuple[str, ...], PartitionSpec] = {
    ("embeddings", "tokens"): PartitionSpec("tensor", "fsdp"),  # V, D
    ("embeddings", "positions"): PartitionSpec(None, "fsdp"),  # P, D
    ("embeddings", "segments"): PartitionSpec(None, None),  # S, D: a row or two
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


def make_mesh(config: MeshConfig, batch_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh ("data", "fsdp", "tensor") over all devices of all processes, or over the given ones.

    Raises:
        InputError: the axes do not multiply to the number of devices, do not divide the batch, or split a row over processes.
    """
    count = len(devices) if devices else jax.device_count()
    processes = len({device.process_index for device in devices}) if devices else jax.process_count()
    rest = config.fsdp * config.tensor
    data = count // rest if config.data == -1 else config.data
    if data * rest != count:
        raise InputError(
            f"The mesh data={data}, fsdp={config.fsdp}, tensor={config.tensor} takes {data * rest} devices and there are {count}. "
            "Set --config.mesh.data, .fsdp and .tensor so that their product is the number of devices."
        )
    if batch_size % (data * config.fsdp):
        raise InputError(
            f"A batch of {batch_size} rows (batch_size / gradient_accumulation_steps) cannot be divided evenly over "
            f"data={data} x fsdp={config.fsdp} devices. "
            f"Choose a batch_size that is a multiple of {data * config.fsdp} times gradient_accumulation_steps, or another mesh."
        )
    if data * config.fsdp % processes:
        raise InputError(
            f"The mesh data={data}, fsdp={config.fsdp}, tensor={config.tensor} would split rows over the {processes} "
            "processes, and each process reads whole rows of its own. Lower --config.mesh.tensor to a divisor of one process's devices."
        )
    return jax.make_mesh((data, config.fsdp, config.tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def platform(mesh: Mesh) -> str:
    """What its devices are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def _spec(path: tuple[Any, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    names = tuple(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
    for end, spec in PARAMETER_SPECS.items():
        if names[-len(end) :] == end and len(shape) == len(spec):
            # A dimension that its axis does not divide (a vocabulary, say) stays whole.
            return PartitionSpec(*(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(spec, shape, strict=True)))
    if _needs_row(names, len(shape)):
        raise ValueError(
            f"The parameter {'/'.join(names)} of shape {shape} has no row in PARAMETER_SPECS, so every device would hold a whole copy. Add "
            f"a row for it in {__name__}: its axes, or None for those that stay whole."
        )
    return PartitionSpec()


def _needs_row(names: tuple[str, ...], dimensions: int) -> bool:
    """Whether a parameter is a matrix of the encoder (besides the layer axis) or a table: too large to be copied by oversight."""
    matrix = "encoder" in names[:-1] and dimensions - ("layers" in names) >= 2
    return matrix or (names[-2:-1] == ("embeddings",) and dimensions >= 2)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every array of a state, from the table; moments lie as their parameters do.

    Raises:
        ValueError: a matrix of the encoder, or a table, has no row in `PARAMETER_SPECS`.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _spec(path, leaf.shape, mesh)), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows [B/P, ...] of each field -> global arrays [B, ...] cut over the mesh."""
    sharding = NamedSharding(mesh, ROWS)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
