"""Explicit sharding constraints for the context mesh (`jax.sharding.use_abstract_mesh`), if any, where XLA needs them."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

ROWS = PartitionSpec(("data", "fsdp"))
"""Rows [B, ...], sharded over both axes along which devices hold different examples."""
ROWS_AND_HEADS = PartitionSpec(("data", "fsdp"), None, "tensor", None)
"""Rows and heads [B, L, H, K], both sharded."""


def by_rows(x: jax.Array) -> jax.Array:
    """Constrain an array [B, ...] to be sharded by rows only.

    Otherwise, XLA may propagate the FSDP sharding of the parameters and shard activations along their width. A layer norm then sums
    across devices, and on three-axis meshes its gradient is wrong (jaxlib 0.10.2).
    """
    return x if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(x, _automatic(ROWS))


def look_up(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Look up rows of a table: [V, D], int [B, L] -> [B, L, D]. If the table is sharded along D, the table is gathered, not the result."""
    if not jax.sharding.get_abstract_mesh().empty:
        table = jax.lax.with_sharding_constraint(table, PartitionSpec(PartitionSpec.UNCONSTRAINED, None))
    return table[ids]


def on_each_device(function: Callable[..., Any], in_specs: tuple[PartitionSpec, ...], out_specs: PartitionSpec) -> Callable[..., Any]:
    """Apply a function to each device's shard, for operations XLA cannot partition: such as custom kernels."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function
    return jax.shard_map(
        function,
        in_specs=tuple(_automatic(spec) for spec in in_specs),
        out_specs=_automatic(out_specs),
        axis_names=frozenset(mesh.axis_names) - frozenset(mesh.manual_axes),
        check_vma=False,
    )


def _automatic(spec: PartitionSpec) -> PartitionSpec:
    """Drop the axes that are already manual in the calling context, such as `data` during gradient accumulation."""
    taken = jax.sharding.get_abstract_mesh().manual_axes
    named = ((axes,) if isinstance(axes, str) else axes or () for axes in spec)
    return PartitionSpec(*(tuple(axis for axis in axes if axis not in taken) or None for axes in named))
