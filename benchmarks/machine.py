"""What a benchmark says of where and with what it ran."""

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterable
from pathlib import Path

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """The CPU's name and the cores that are used."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.processor() or platform.machine()}, {CORES} cores"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python, JAX and numpy, and of those packages that are installed."""
    named = dict.fromkeys(["jax", "jaxlib", "numpy", "tokenizers", *packages])
    found = {package: importlib.metadata.version(package) for package in named if importlib.util.find_spec(package)}
    return {"python": platform.python_version(), **found}
