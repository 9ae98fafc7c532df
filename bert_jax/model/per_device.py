"""How arrays lie on the mesh of the context (`jax.sharding.use_abstract_mesh`), if there is one, where XLA has to be told."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

ROWS = PartitionSpec(("data", "fsdp"))
"""Rows [B, ...], cut over both axes that hold different examples: each device has its own."""
ROWS_AND_HEADS = PartitionSpec(("data", "fsdp"), None, "tensor", None)
"""Rows and heads [B, L, H, K], of which each device has its own."""


def by_rows(x: jax.Array) -> jax.Array:
    """The array [B, ...], cut by its rows alone.

    Left to itself, XLA may follow parameters that FSDP has cut and cut activations along their width. A layer norm is then a sum
    over devices, and on meshes of three axes the gradient is wrong (jaxlib 0.10.2).
    """
    return x if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(x, _left(ROWS))


def look_up(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a table: [V, D], int [B, L] -> [B, L, D]. If it is cut along D, its parts are gathered, and not what is found in them."""
    if not jax.sharding.get_abstract_mesh().empty:
        table = jax.lax.with_sharding_constraint(table, PartitionSpec(PartitionSpec.UNCONSTRAINED, None))
    return table[ids]


def on_each_device(function: Callable[..., Any], in_specs: tuple[PartitionSpec, ...], out_specs: PartitionSpec) -> Callable[..., Any]:
    """The function of each device's own part, for what XLA cannot cut: a kernel, a device's random number generator."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return function
    return jax.shard_map(
        function,
        in_specs=tuple(_left(spec) for spec in in_specs),
        out_specs=_left(out_specs),
        axis_names=frozenset(mesh.axis_names) - frozenset(mesh.manual_axes),
        check_vma=False,
    )


def _left(spec: PartitionSpec) -> PartitionSpec:
    """Without the axes that the caller is already one place of, as it is of `data` while gradients accumulate."""
    taken = jax.sharding.get_abstract_mesh().manual_axes
    named = ((axes,) if isinstance(axes, str) else axes or () for axes in spec)
    return PartitionSpec(*(tuple(axis for axis in axes if axis not in taken) or None for axes in named))
