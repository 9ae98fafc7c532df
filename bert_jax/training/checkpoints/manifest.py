"""Checkpoint manifests: size and hash of every file, the arrays, the model and the data. Written last and read first."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from bert_jax.errors import InputError
from bert_jax.storage.files import sha256, sizes_below, sync, write_whole

FILE = "manifest.json"

# Orbax writes these while it renames the finished directory; nothing is restored from them.
_NOT_HASHED = ("_CHECKPOINT_METADATA", "commit_success.txt")
_VERSIONS = ("bert_jax", "flax", "jax", "numpy", "optax", "orbax-checkpoint")

Arrays = Mapping[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of every array, by item and path: `params/encoder/layers/...`."""


@dataclass(frozen=True)
class Manifest:
    """Content of a checkpoint's `manifest.json`, which also stores a hash of itself."""

    files: Mapping[str, tuple[int, str]]
    """Size and SHA-256 of every file."""
    arrays: Arrays
    model: Mapping[str, Any]
    """Description of the model and fingerprint of its vocabulary (`bert_jax.model.directory.identity`)."""
    data: str
    """Fingerprint of the data that the position refers to."""
    score: float | None


class DamagedError(InputError):
    """A manifest is missing, cannot be read or does not match its own hash."""


def write(directory: Path, arrays: Arrays, model: Mapping[str, Any], data: str, score: float | None) -> None:
    """Flush every file of a finished checkpoint to disk, hash it, and write the manifest."""
    names = _names(directory)
    with ThreadPoolExecutor() as pool:
        files = dict(zip(names, pool.map(lambda name: _size_and_hash(directory / name), names), strict=True))
    _commit(directory, {"files": files, "arrays": arrays, "model": model, "data": data, "score": score, "versions": _versions()})


def set_score(directory: Path, score: float) -> None:
    """Write the score of a finished checkpoint to its manifest, leaving the rest unchanged."""
    _commit(directory, json.loads((directory / FILE).read_bytes())["content"] | {"score": score})


def _commit(directory: Path, content: Mapping[str, Any]) -> None:
    write_whole(directory / FILE, json.dumps({"sha256": _digest(content), "content": content}, ensure_ascii=False, indent=1))


def read(directory: Path) -> Manifest | None:
    """Read the manifest of a checkpoint; None if it has none.

    Raises:
        DamagedError: the manifest cannot be read or has changed since it was written.
    """
    path = directory / FILE
    try:
        found = json.loads(path.read_bytes())
        content = found["content"]
        intact = found["sha256"] == _digest(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, RecursionError):
        intact = False
    if not intact:
        raise DamagedError(f"{path} has changed since it was written: its hash differs")
    arrays = {path: (tuple(shape), dtype) for path, (shape, dtype) in content["arrays"].items()}
    files = {name: (size, digest) for name, (size, digest) in content["files"].items()}
    return Manifest(files, arrays, content["model"], content["data"], content["score"])


def faults(
    directory: Path,
    manifest: Manifest,
    items: Collection[str] = (),
    on_read: Callable[[int], None] = lambda size: None,
    hashed: Collection[str] | None = None,
) -> list[str]:
    """Return a message for each damaged file of a checkpoint.

    Args:
        directory: the checkpoint.
        manifest: its manifest.
        items: check only the files of these items, such as `params`; empty checks all.
        on_read: called with the size in bytes of each intact file.
        hashed: items whose files are hashed; only the sizes of the other files are checked. None hashes all files.
    """

    def fault(name: str) -> str:
        path, (size, digest) = directory / name, manifest.files[name]
        try:
            found = path.stat().st_size
            if found != size:
                return f"{path} has {found:,} bytes, but {size:,} were written"
            same = (hashed is not None and name.split("/")[0] not in hashed) or sha256(path) == digest
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror or error})"
        if same:
            on_read(size)
        return "" if same else f"{path} has changed since it was written: its hash differs"

    names = [name for name in manifest.files if not items or name.split("/")[0] in items]
    with ThreadPoolExecutor() as pool:
        return [line for line in pool.map(fault, names) if line]


def arrays_of(items: Mapping[str, Any]) -> Arrays:
    """Return the shape and dtype of every array in these trees, given by item."""
    return {
        f"{item}/{jax.tree_util.keystr(path, simple=True, separator='/')}": (tuple(leaf.shape), str(leaf.dtype))
        for item, tree in items.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _names(directory: Path) -> list[str]:
    found = (path.relative_to(directory).as_posix() for path in sizes_below(directory))
    return sorted(name for name in found if name not in (*_NOT_HASHED, FILE))


def _size_and_hash(path: Path) -> tuple[int, str]:
    # The manifest must be correct even after a power failure.
    sync(path)
    return path.stat().st_size, sha256(path)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            continue
    return found
