"""The machine and the versions that a benchmark ran with."""

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import jax.numpy as jnp

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """The name of the accelerator, or of the CPU with the number of cores in use."""
    if jax.default_backend() != "cpu":
        return f"{jax.devices()[0].device_kind} x {jax.device_count()}"
    return processor()


def processor() -> str:
    """The name of the CPU with the number of cores in use; JAX is not started for it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.processor() or platform.machine()}, {CORES} cores"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python, JAX and NumPy, and of the given packages that are installed."""
    named = dict.fromkeys(["jax", "jaxlib", "numpy", "tokenizers", *packages])
    found = {package: importlib.metadata.version(package) for package in named if importlib.util.find_spec(package)}
    return {"python": platform.python_version(), **found}


def matrix_peak(dtype: str, size: int = 0) -> float:
    """FLOP/s of the first device in a large square matmul, counting multiplications and additions: the best of ten.

    The numbers are random: a GPU that multiplies ones draws less power, so its clock is higher than it can be in training.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.dot)
    product(x, x).block_until_ready()
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - begun)
    return 2 * size**3 / min(times)
