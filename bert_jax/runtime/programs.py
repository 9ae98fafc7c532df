"""Compiled programs that are kept between starts, in JAX's persistent compilation cache."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax

_MOST_BYTES = 2**30
"""Size limit of the folder. What exceeds it is removed at the next start, oldest first: JAX's own limit fails for good if a process is
killed between the two files that it writes for each program."""

_CPU_LINES = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")


def keep_programs() -> None:
    """Let JAX keep compiled programs in the user's cache folder, and load those of earlier starts.

    JAX identifies a program by its code, its versions, its flags and the accelerator. The folder is, in addition, that of one kind of CPU,
    since a home directory may be shared by machines whose CPUs lack each other's instructions. A program is code, so the folder must
    belong to the user, and no one else may write to it; if it cannot be made so, nothing is kept.

    `JAX_COMPILATION_CACHE_DIR` names another folder, which is used as it is; `JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing.
    """
    config: Any = jax.config  # its attributes are not typed
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "bert_jax" / "programs" / cpu_kind()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return
        _shrink(folder)
    except (OSError, RuntimeError):  # a read-only or missing home directory
        return
    config.update("jax_compilation_cache_dir", str(folder))
    # Most of a start is many programs of less than a second, JAX's default.
    config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def cpu_kind(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return a short name for CPUs that run each other's programs: a hash of the model and its features, or else of the host's name."""
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        first = ""
    lines = sorted(line for line in first.splitlines() if line.startswith(_CPU_LINES))
    known = "\n".join((platform.machine(), *(lines or [platform.node(), platform.processor()])))
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def _is_private(folder: Path) -> bool:
    """Return whether the folder is the user's own and closed to others for writing; on systems without owners, it counts as such."""
    state = folder.stat()
    return not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o022)


def _shrink(folder: Path) -> None:
    """Remove the oldest files until the folder is within its limit."""
    files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir() if path.is_file())
    excess = sum(size for _, size, _ in files) - _MOST_BYTES
    for _, size, path in files:
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
