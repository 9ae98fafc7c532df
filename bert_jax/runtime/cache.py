"""Files of this user that make the next start faster: programs that JAX compiled, and graphs made for other engines.

They are in `bert_jax/compiled` below $XDG_CACHE_HOME or ~/.cache, and can be deleted at any time. When they exceed `MOST_BYTES`, those that
were not used for longest are deleted. BERT_JAX_CACHE=off turns the cache off. A folder that cannot be written, or that other users can
write to, is not used: a compiled program is code.
"""

import hashlib
import os
import platform
import re
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from bert_jax.storage.files import user_cache

VARIABLE = "BERT_JAX_CACHE"
MOST_BYTES = 4 << 30
_OFF = ("off", "0", "no", "false")
_DIGEST_BYTES = 32


def folder(*key: str) -> Path | None:
    """Return the folder for files that depend on all of `key`, created if missing; None if files cannot be kept.

    The instruction set of the CPU is part of the key: a program compiled for another CPU can crash here or compute other results.
    """
    if os.environ.get(VARIABLE, "").strip().lower() in _OFF:
        return None
    root = user_cache() / "compiled"
    name = hashlib.sha256("\0".join([*key, platform.machine(), *sorted(cpu_features())]).encode()).hexdigest()[:16]
    try:
        root.mkdir(parents=True, exist_ok=True)
        state = root.stat()
        if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        _limit(root, MOST_BYTES)
        (root / name).mkdir(mode=0o700, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None
    return root / name if os.access(root / name, os.W_OK) else None


def kept(key: str, make: Callable[[], bytes], *folder_key: str) -> bytes:
    """Return what `make` returns, from the file kept under `key` if there is one that is not damaged.

    Args:
        key: identifies the content, as part of a file name.
        make: makes the content; called if it is not kept.
        folder_key: see `folder`.
    """
    directory = folder(*folder_key)
    path = directory / key if directory else None
    if path:
        with suppress(OSError):
            digest, content = (data := path.read_bytes())[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if hashlib.sha256(content).digest() == digest:
                os.utime(path)
                return content
    content = make()
    if path:
        with suppress(OSError):
            _replace(path, hashlib.sha256(content).digest(), content)
    return content


@cache
def cpu_features() -> frozenset[str]:
    """Return the instruction set extensions of this CPU, by their names in Linux; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else frozenset()


def _replace(path: Path, *parts: bytes) -> None:
    """Write a file atomically, though other processes may write it at the same time."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _limit(root: Path, most: int) -> None:
    """Delete the files that were not used for longest until the others have at most this size."""
    states = {}
    for path in root.glob("*/*"):
        with suppress(FileNotFoundError):  # another process deletes files too
            states[path] = path.stat()
    size = sum(state.st_size for state in states.values())
    for path in sorted(states, key=lambda path: max(states[path].st_atime, states[path].st_mtime)):
        if size <= most:
            return
        path.unlink(missing_ok=True)
        size -= states[path].st_size
