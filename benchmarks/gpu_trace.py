"""A kernel trace of jax.profiler, summed by class of kernel."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

CLASSES = {
    "attention": r"fmha|flash|sdpa|attention|cudnn_generated|splash",
    "matrix products": r"gemm|nvjet|cutlass|xmma|cublas|dot|matmul|convolution|ynn",
    "random bits": r"threefry|philox|rng",
    "gather and scatter": r"gather|scatter|sort",
    "reductions": r"reduce|norm",
    "copies and layout": r"copy|memcpy|memset|transpose|bitcast|slice|concatenate|pad|broadcast|convert",
    "element by element": r"fusion|elementwise|add|multiply|select|tanh|erf|exp|wrapped|loop",
}
"""Class -> pattern; a kernel belongs to the first class whose pattern occurs in its name, in lower case."""

# On a CPU, operations of XLA are traced in the thread that runs them, beside calls of Python and of the runtime; loops hold others.
_OPERATION = re.compile(r"(?!while|call|conditional|shard_args)[a-z_][\w.\-]*")


def kernel_class(name: str) -> str:
    """The class of a kernel."""
    return next((label for label, pattern in CLASSES.items() if re.search(pattern, name.lower())), "other")


def traced(run: Callable[[], object], steps: int, shown: int = 40) -> dict[str, Any]:
    """Trace `run`, which takes `steps` steps and waits for them; the milliseconds per step of each class and of the longest kernels."""
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            run()
        for name, nanoseconds in _kernels(next(Path(directory).rglob("*.xplane.pb"))):
            total[name] += nanoseconds / steps / 1e6
    classes: Counter[str] = Counter()
    for name, milliseconds in total.items():
        classes[kernel_class(name)] += milliseconds
    return {
        "kernel_ms": round(sum(total.values()), 3),
        "classes": {label: round(milliseconds, 3) for label, milliseconds in classes.most_common()},
        "kernels": [[name[:100], round(milliseconds, 3)] for name, milliseconds in total.most_common(shown)],
    }


def _kernels(path: Path) -> Iterator[tuple[str, float]]:
    """Names and nanoseconds of what ran on the device: on the streams of a GPU, or in any thread of a CPU."""
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            if "GPU" in plane.name and "Stream" in line.name:
                yield from ((event.name, event.duration_ns) for event in line.events)
            elif jax.default_backend() == "cpu":
                yield from ((event.name, event.duration_ns) for event in line.events if _OPERATION.fullmatch(event.name))
