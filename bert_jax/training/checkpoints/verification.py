"""Verify checkpoints against their manifests, before training resumes or in the background.

A damaged checkpoint is set aside as `STEP.damaged`.
"""

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import orbax.checkpoint as ocp

from bert_jax.errors import InputError, TrainingError, as_typed
from bert_jax.storage.files import committed, remove
from bert_jax.training.checkpoints import manifest
from bert_jax.training.checkpoints.manifest import DamagedError, Manifest, arrays_of

REMOVED = "removed"
"""Folder to which checkpoints are moved before they are deleted."""


def faults(path: Path, on_read: Callable[[int], None] = lambda size: None, hashed: Collection[str] | None = None) -> list[str]:
    """Return a message for each damaged file of a checkpoint; arguments as in `manifest.faults`."""
    try:
        return manifest.faults(path, required(path), on_read=on_read, hashed=hashed)
    except DamagedError as error:
        return [str(error)]


def required(path: Path) -> Manifest:
    """Read the manifest of a checkpoint that must have one.

    Raises:
        DamagedError: the manifest is missing or damaged.
    """
    saved = manifest.read(path)
    if saved is None:
        raise DamagedError(f"{path / manifest.FILE} is missing")
    return saved


def steps_in(directory: Path) -> list[int]:
    """Return the steps of the committed checkpoints, in ascending order."""
    # Other names are checkpoints that Orbax has not committed or that were set aside.
    return sorted(int(path.name) for path in directory.glob("*") if committed(path))


def set_damaged_aside(directory: Path, hashed: Collection[str] | None = None) -> None:
    """Set damaged checkpoints aside so that only intact ones remain, and write manifests for checkpoints of an older version.

    Args:
        directory: the directory of the checkpoints.
        hashed: as in `manifest.faults`.

    Raises:
        InputError: no checkpoint is intact; nothing has been moved.
    """
    remove(directory / REMOVED)
    paths = [directory / str(step) for step in steps_in(directory)]
    if paths and not any((path / manifest.FILE).exists() for path in paths):
        _warn(
            f"the checkpoints in {directory} have no {manifest.FILE} because an older version wrote them. They are used without "
            "verification."
        )
        for path in paths:
            saved = without_manifest(path)
            manifest.write(path, saved.arrays, saved.model, saved.data, saved.score)
    _set_aside({path: faults(path, hashed=hashed) for path in paths})


def _set_aside(found: Mapping[Path, list[str]]) -> list[str]:
    """Rename the damaged checkpoints and return all messages."""
    damaged = {path: lines for path, lines in found.items() if lines}
    if damaged and len(damaged) == len(found):
        directory = next(iter(damaged)).parent
        raise InputError(
            f"No checkpoint in {directory} is intact: {'. '.join(lines[0] for lines in damaged.values())}. Restore one from a backup, or "
            f"remove {directory} to train this stage from the beginning."
        )
    for path, lines in damaged.items():
        aside = path.with_name(f"{path.name}.damaged")
        remove(aside)
        path.rename(aside)
        _warn(f"a damaged checkpoint was set aside as {aside}: " + "; ".join(lines))
    return [line for lines in damaged.values() for line in lines]


class Verification:
    """Verification of all checkpoints of a directory in a background thread."""

    def __init__(self, directory: Path) -> None:
        self._cancelled = threading.Event()
        pool = ThreadPoolExecutor(1)
        paths = [directory / str(step) for step in steps_in(directory)]
        self._found = pool.submit(lambda: {path: faults(path, self._check_cancelled) for path in paths})
        pool.shutdown(wait=False)

    def _check_cancelled(self, size: int) -> None:
        del size
        if self._cancelled.is_set():
            raise CancelledError

    @property
    def done(self) -> bool:
        """Whether verification has finished."""
        return self._found.done()

    def finish(self) -> None:
        """Wait for the verification.

        Raises:
            TrainingError: a checkpoint was damaged and has been set aside; the same command resumes from the newest intact one.
            InputError: no checkpoint is intact.
        """
        if found := _set_aside(self._found.result()):
            raise TrainingError(
                f"{found[0]}. This was found after training had resumed; nothing has been saved since then, and the checkpoint was set "
                "aside. Run the same command again to resume from the newest intact one."
            )

    def cancel(self) -> None:
        """Stop the verification early; its result is no longer needed."""
        self._cancelled.set()


def _warn(message: str) -> None:
    print(as_typed(f"Warning: {message}"), file=sys.stderr, flush=True)


def without_manifest(path: Path) -> Manifest:
    """Build a manifest, without file hashes, for a checkpoint of an older version.

    Raises:
        DamagedError: the checkpoint cannot be read.
    """
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            trees = {item: checkpointer.metadata(os.fspath(path / item)).item_metadata.tree for item in ("params", "optimizer")}
        position = json.loads((path / "position" / "metadata").read_text(encoding="utf-8"))
        score = score_without_manifest(path)
    except Exception as error:  # Orbax reports damaged files in many ways.
        raise DamagedError(f"The checkpoint {path} has no {manifest.FILE} and cannot be read ({str(error)[:200]})") from error
    return Manifest({}, arrays_of(trees), {}, str(position.get("data", "")), None if score == -math.inf else score)


def score_without_manifest(path: Path) -> float:
    """Read the score from where versions without manifests stored it; minus infinity if there is none."""
    file = path / "metrics" / "metrics"
    return float(json.loads(file.read_text(encoding="utf-8")).get("score", -math.inf)) if file.exists() else -math.inf
