"""Division of a batch into microbatches, whose rows stay on their devices."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from bert_jax.errors import InputError

Encode = Callable[[Any, Any, "jax.Array | None"], jax.Array]
"""(parameters, batch, per-row keys [B, 2] or None) -> vectors [B, ...]."""


def split(x: jax.Array, microbatches: int) -> jax.Array:
    """Divide an array by rows: [B, ...] -> [microbatches, B / microbatches, ...]. Microbatch m has rows m, m + microbatches, ..."""
    return x.reshape(x.shape[0] // microbatches, microbatches, *x.shape[1:]).swapaxes(0, 1)


def joined(x: jax.Array) -> jax.Array:
    """Undo `split`: [microbatches, b, ...] -> [B, ...]."""
    return x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def loops_per_device() -> bool:
    """Return whether a loop over microbatches runs inside `shard_map` over the data axis of the context mesh.

    Without shard_map, XLA would all-reduce gradients in every microbatch. With both other axes larger than 1, XLA's partitioner
    (jaxlib 0.10.2) crashes on a loop inside shard_map over "data".
    """
    axes = jax.sharding.get_abstract_mesh().shape
    return axes.get("data", 1) > 1 and min(axes["fsdp"], axes["tensor"]) == 1


def encode_in_parts(encode: Encode, params: Any, batch: Any, keys: jax.Array | None, microbatches: int) -> jax.Array:
    """Encode a batch microbatch by microbatch, keeping no activations but the vectors: gradient caching (Gao et al. 2021).

    The backward pass encodes each microbatch again, with the gradient of its vectors, so the memory for activations is that of one
    microbatch, and a loss of all vectors has the gradient of the undivided batch: rows have their own dropout keys.

    Raises:
        InputError: the rows of each device cannot be divided into microbatches.
    """
    axes = jax.sharding.get_abstract_mesh().shape
    rows, devices = batch["tokens"].shape[0], axes.get("data", 1) * axes.get("fsdp", 1)
    if rows % (devices * microbatches):
        raise InputError(
            f"A batch of {rows} rows on {devices} device{'s' * (devices > 1)} cannot be divided into {microbatches} microbatches of equal "
            f"size. Set finetune.batch_size to a multiple of {devices * microbatches}, or lower finetune.task.microbatches."
        )

    def in_parts(params: Any, batch: Any, keys: jax.Array | None) -> jax.Array:
        parts = jax.tree.map(lambda x: split(x, microbatches), (batch, keys))
        return joined(jax.lax.map(jax.checkpoint(lambda part: encode(params, *part)), parts))

    if loops_per_device():
        everywhere, own = PartitionSpec(), PartitionSpec("data")
        in_parts = jax.shard_map(in_parts, in_specs=(everywhere, own, own), out_specs=own, axis_names={"data"}, check_vma=False)
    return in_parts(params, batch, keys)
