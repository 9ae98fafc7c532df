"""Launches of Pallas kernels, compiled by Triton for NVIDIA GPUs and emulated on CPUs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton


def launch(
    kernel: Callable[..., None],
    *arrays: jax.Array,
    grid: tuple[int, ...],
    in_specs: Sequence[pl.BlockSpec],
    out_specs: Sequence[pl.BlockSpec],
    out_shape: Sequence[jax.ShapeDtypeStruct],
    warps: int = 4,
    stages: int = 2,
) -> tuple[jax.Array, ...]:
    """Run a kernel for every index of the grid and return its outputs.

    Which device computes is known only when the program is lowered. On a CPU the kernel is emulated, one index after another, which is
    for tests: `bert_jax.model.attention` selects no such kernel there.
    """

    def call(*arrays: jax.Array, interpret: bool) -> Any:
        return pl.pallas_call(
            kernel,
            grid=grid,
            in_specs=in_specs,
            out_specs=out_specs,
            out_shape=out_shape,
            interpret=interpret,
            compiler_params=triton.CompilerParams(num_warps=warps, num_stages=stages),
        )(*arrays)

    def compiled(*arrays: jax.Array) -> Any:
        return call(*arrays, interpret=False)

    def emulated(*arrays: jax.Array) -> Any:
        return call(*arrays, interpret=True)

    return tuple(jax.lax.platform_dependent(*arrays, cpu=emulated, default=compiled))
