"""Whether checkpoints are what was written, by their manifests: before training goes on from one, or while it does.

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
"""Where checkpoints that are no longer kept go first."""


def faults(path: Path, on_read: Callable[[int], None] = lambda size: None, hashed: Collection[str] | None = None) -> list[str]:
    """What is wrong with a checkpoint, a line for each file; arguments as in `manifest.faults`."""
    try:
        return manifest.faults(path, required(path), on_read=on_read, hashed=hashed)
    except DamagedError as error:
        return [str(error)]


def required(path: Path) -> Manifest:
    """The manifest of a checkpoint that must have one.

    Raises:
        DamagedError: it has none, or one that is damaged.
    """
    saved = manifest.read(path)
    if saved is None:
        raise DamagedError(f"{path / manifest.FILE} is missing")
    return saved


def steps_in(directory: Path) -> list[int]:
    """The steps of the committed checkpoints, in order."""
    # Another name is one that Orbax has not finished, or one that was set aside.
    return sorted(int(path.name) for path in directory.glob("*") if committed(path))


def set_damaged_aside(directory: Path, hashed: Collection[str] | None = None) -> None:
    """Leaves none but whole checkpoints; those of an older version get the manifest that they lack.

    Args:
        hashed: as in `manifest.faults`.

    Raises:
        InputError: none is whole; nothing has been moved.
    """
    remove(directory / REMOVED)
    paths = [directory / str(step) for step in steps_in(directory)]
    if paths and not any((path / manifest.FILE).exists() for path in paths):
        _tell(f"the checkpoints in {directory} have no {manifest.FILE}: an older version wrote them. They are taken as they are.")
        for path in paths:
            saved = without_manifest(path)
            manifest.write(path, saved.arrays, saved.model, saved.data, saved.score)
    _set_aside({path: faults(path, hashed=hashed) for path in paths})


def _set_aside(found: Mapping[Path, list[str]]) -> list[str]:
    """Renames the checkpoints in which something was found, and gives that back."""
    damaged = {path: lines for path, lines in found.items() if lines}
    if damaged and len(damaged) == len(found):
        directory = next(iter(damaged)).parent
        raise InputError(
            f"No checkpoint in {directory} is whole: {'. '.join(lines[0] for lines in damaged.values())}. Restore one from a copy, or "
            f"remove {directory} to train this stage from its beginning."
        )
    for path, lines in damaged.items():
        aside = path.with_name(f"{path.name}.damaged")
        remove(aside)
        path.rename(aside)
        _tell(f"a damaged checkpoint was set aside as {aside}: " + "; ".join(lines))
    return [line for lines in damaged.values() for line in lines]


class Verification:
    """The hashes of all checkpoints of a directory, verified in a thread."""

    def __init__(self, directory: Path) -> None:
        self._cancelled = threading.Event()
        pool = ThreadPoolExecutor(1)
        paths = [directory / str(step) for step in steps_in(directory)]
        self._found = pool.submit(lambda: {path: faults(path, self._go_on) for path in paths})
        pool.shutdown(wait=False)

    def _go_on(self, size: int) -> None:
        del size
        if self._cancelled.is_set():
            raise CancelledError

    @property
    def done(self) -> bool:
        """Whether everything was read."""
        return self._found.done()

    def finish(self) -> None:
        """Waits for it.

        Raises:
            TrainingError: a checkpoint was damaged, and has been set aside; the same command resumes from the one before.
            InputError: none is intact.
        """
        if found := _set_aside(self._found.result()):
            raise TrainingError(
                f"{found[0]}, which was found while training ran; nothing has been saved since it began, and the checkpoint was set "
                "aside. Run the same command again, which resumes from the newest intact one."
            )

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._cancelled.set()


def _tell(message: str) -> None:
    print(as_typed(f"warning: {message}"), file=sys.stderr, flush=True)


def without_manifest(path: Path) -> Manifest:
    """What a checkpoint of an older version says of itself.

    Raises:
        DamagedError: it cannot be read.
    """
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            trees = {item: checkpointer.metadata(os.fspath(path / item)).item_metadata.tree for item in ("params", "optimizer")}
        position = json.loads((path / "position" / "metadata").read_text(encoding="utf-8"))
        score = score_without_manifest(path)
    except Exception as error:  # Orbax has many words for a file that is not what it should be.
        raise DamagedError(f"The checkpoint {path} has no {manifest.FILE} and cannot be read ({str(error)[:200]})") from error
    return Manifest({}, arrays_of(trees), {}, str(position.get("data", "")), None if score == -math.inf else score)


def score_without_manifest(path: Path) -> float:
    """The score where versions without manifests kept it; minus infinity if there is none."""
    file = path / "metrics" / "metrics"
    return float(json.loads(file.read_text(encoding="utf-8")).get("score", -math.inf)) if file.exists() else -math.inf
