"""Processes of a test: started, waited for within a limit, and ended for certain."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).with_name("workers")
LIMIT = 600  # seconds
# Most of a test is compilation, and tiny models need no fast programs: half of the time goes into MLIR without the last.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
# What any process of a run compiles is compiled once: the directory is made by the first one and named to its children.
_MADE = None if "TEST_PROGRAMS" in os.environ else tempfile.TemporaryDirectory(prefix="bert_jax-programs-")
PROGRAMS = os.environ.setdefault("TEST_PROGRAMS", _MADE.name if _MADE else "")


def environment(devices: int) -> dict[str, str]:
    """Fake devices on the CPU with threads enough for their collectives; programs are compiled in haste, and once."""
    path = os.pathsep.join([str(WORKERS.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {
        "PYTHONPATH": path,
        "NPROC": "16",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {XLA_FLAGS}",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_COMPILATION_CACHE_DIR": PROGRAMS,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def start(worker: str, *arguments: str, devices: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(WORKERS / worker), *arguments]
    return subprocess.Popen(command, env=environment(devices), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(children: Sequence[subprocess.Popen[str]], wanted: int = 0, errors: bool = False) -> list[str]:
    """What each wrote to its output (or to its errors), once all have ended with the wanted status."""
    try:
        written = [child.communicate(timeout=LIMIT) for child in children]
    finally:
        for child in children:
            # `jax.distributed` swallows SIGTERM.
            child.kill()
            child.wait()
    for child, (_, told) in zip(children, written, strict=True):
        assert child.returncode == wanted, told[-4000:]
    return [pair[errors] for pair in written]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train(runs: Sequence[dict[str, Any]], loop: dict[str, int], processes: int = 1, wanted: int = 0) -> list[str]:
    """Runs `workers/train.py` in some processes; `runs` may give one process a signal by `process`."""
    port = free_port()

    def arguments(process: int) -> str:
        own = [run if run.get("process", process) == process else {k: v for k, v in run.items() if k != "at"} for run in runs]
        return json.dumps({"runs": own, "loop": loop, "processes": processes, "process": process, "port": port})

    return finish([start("train.py", arguments(process)) for process in range(processes)], wanted)


KILLED = -signal.SIGKILL
