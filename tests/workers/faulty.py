"""A process that trains the toy task while its storage fails, as the command line would. Its argument is JSON.

`directory` is trained in for `steps` steps; before step `at`, the fault `fault` sets in. Its exit status is that of the command line.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def small_files(directory: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))


def full(directory: Path) -> None:
    """The disk, which is small, is filled to the last byte, and stays so while old checkpoints are still on their way out."""
    file = (directory / "filler").open("wb", buffering=0)

    def fill() -> None:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)

    def keep_filling() -> None:
        while True:
            fill()
            time.sleep(0.02)

    fill()
    threading.Thread(target=keep_filling, daemon=True).start()


def read_only(directory: Path) -> None:
    (directory / "checkpoints").chmod(0o500)
    # To the superuser everything is permitted.
    os.setegid(65534)
    os.seteuid(65534)


def broken(directory: Path) -> None:
    """Every write fails from now on, as of a drive that is gone; the library that was loaded first sees to it."""
    ctypes.CDLL(os.environ["LD_PRELOAD"]).break_now()


FAULTS = {fault.__name__: fault for fault in (small_files, full, read_only, broken)}


def main(run: dict[str, Any]) -> int:
    import toy

    from bert_jax.cli.program import run_command
    from bert_jax.config import LoopConfig
    from bert_jax.training.loop import train

    directory = Path(run["directory"])
    jobs = []

    def before(step: int, batch: Any) -> None:
        if step == run.get("at"):
            toy.wait_for(directory / "checkpoints" / str(run["after"]))
            FAULTS[run["fault"]](directory)

    def command() -> None:
        jobs.append(toy.toy(directory, run["steps"], LoopConfig(**run["loop"]), before, run.get("first", 0)))
        train(jobs[0])

    try:
        return run_command(command)
    finally:
        for job in jobs:
            job.batches.close()
        os.seteuid(os.getuid())


if __name__ == "__main__":
    from bert_jax.errors import print_unraisable

    sys.unraisablehook = print_unraisable
    sys.exit(main(json.loads(sys.argv[1])))
