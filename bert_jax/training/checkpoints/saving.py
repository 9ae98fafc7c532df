"""Orbax checkpoints of one stage: parameters, optimizer and data position. The newest and the best are kept.

The item `params` is the model that is evaluated, exported and used for inference. With `optimizer.ema`, it holds the averaged
parameters, and the parameters from which training resumes are saved with the optimizer state; with `finetune.lora`, those in which the
low-rank factors are merged, and the factors and the frozen parameters are saved with the optimizer state.

Orbax restores flipped bits silently, so every checkpoint has a manifest (`manifest.py`), which is committed with it and verified before
its contents are used. A checkpoint that fails is set aside as `STEP.damaged`, and training resumes from the newest intact one.
"""

import logging
import math
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from bert_jax.errors import InputError, TrainingError, storage_failure
from bert_jax.model.directory import check_identity
from bert_jax.runtime.processes import on_first_process
from bert_jax.storage.files import remove
from bert_jax.training.checkpoints import manifest
from bert_jax.training.checkpoints.loading import check_arrays, pytree_restore
from bert_jax.training.checkpoints.manifest import Arrays, arrays_of
from bert_jax.training.checkpoints.verification import (
    REMOVED,
    Verification,
    required,
    set_damaged_aside,
    steps_in,
)
from bert_jax.training.state import TrainState, abstract_state

Position = dict[str, Any]


def _not_raised_too(record: logging.LogRecord) -> bool:
    """Drop log records of failures that are reported elsewhere.

    Orbax threads log the traceback of every failure that `wait` raises, and asyncio logs those of the writes concurrent with the one
    that failed.
    """
    if not record.exc_info or not record.exc_info[1]:
        return True
    if record.name == "asyncio":
        frames = traceback.extract_tb(record.exc_info[2])
        return not (storage_failure(record.exc_info[1]) and any("orbax" in frame.filename for frame in frames))
    return "orbax" not in record.pathname


@dataclass(frozen=True)
class _NewestAndBest(preservation_policy.PreservationPolicy):
    """Keep the newest checkpoints and the best one; ties go to the later. Scores may be set after a checkpoint was saved."""

    keep: int
    scores: Mapping[int, float | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: preservation_policy.PreservationContext) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in self.kept(steps) for step in steps]

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Return which of these steps, given in order, are kept."""
        # NaN, the score of a model that diverged, compares with nothing: it is no score.
        scored = [(score, step) for step in steps if (score := self.scores.get(step)) is not None and not math.isnan(score)]
        return {*steps[-self.keep :], *(step for _, step in sorted(scored)[-1:])}


def _options(
    policy: preservation_policy.PreservationPolicy, processes: ocp.options.MultiprocessingOptions, finish: Callable[[], None]
) -> ocp.CheckpointManagerOptions:
    return ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        cleanup_tmp_directories=True,
        # If a run is killed during a removal, the remains must not look like a damaged checkpoint.
        todelete_subdir=REMOVED,
        multiprocessing_options=processes,
        # One process writes the manifest, after the last file and before the directory is renamed. With directories created in the
        # background, a failure to create them would make Orbax wait forever.
        async_options=ocp.options.AsyncOptions(post_finalization_callback=finish, create_directories_asynchronously=False),
    )


def check_name(directory: Path) -> None:
    """Raise InputError for a path with brackets: Orbax interprets them as a pattern and could not read checkpoints that it wrote."""
    if "[" in str(directory):
        raise InputError(
            f"No checkpoint can be written below {directory}, since Orbax interprets the brackets in its name as a pattern and would lose "
            "arrays. Choose a directory without `[`, or a link to this one."
        )


class Checkpoints:
    """The checkpoints of a training run. Saving is asynchronous: `close` waits for the last save and raises its failure.

    Args:
        directory: where the checkpoints are stored.
        keep: how many of the newest checkpoints are kept, in addition to the best.
        model: identity of the model recorded in the manifests (`bert_jax.model.directory.identity`).
        verify: whether existing checkpoints are verified before the constructor returns or in the background.

    Raises:
        InputError: there are checkpoints but none is intact, or the path contains brackets.
    """

    def __init__(
        self, directory: Path, keep: int, model: Mapping[str, Any] | None = None, verify: Literal["before", "background"] = "before"
    ) -> None:
        check_name(directory)
        self._directory, self._model = directory, model or {}
        self._saving: tuple[int, Arrays, str, float | None]
        # The position is always verified first, since a damaged one would be reported as a change of the data.
        on_first_process(lambda: set_damaged_aside(self._directory, hashed=None if verify == "before" else ("position",)))
        self._verification: Verification | None = None
        self._unverified = verify == "background"
        if self._unverified and jax.process_index() == 0:
            self._verification = Verification(self._directory)
        self._scores = {step: required(self._directory / str(step)).score for step in steps_in(self._directory)}
        # Never removed, since threads of a failed save may outlive this object.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_not_raised_too)
        # Named handlers allow each item to be read separately.
        handlers = {
            "params": ocp.PyTreeCheckpointHandler(),
            "optimizer": ocp.PyTreeCheckpointHandler(),
            "position": ocp.JsonCheckpointHandler(),
        }
        self._policy = _NewestAndBest(keep, self._scores)
        options = _options(self._policy, ocp.options.MultiprocessingOptions(), self._write_manifest)
        self._manager = ocp.CheckpointManager(os.fspath(self._directory), item_handlers=handlers, options=options)
        if not self._unverified:
            self._remove_superseded()

    def _remove_superseded(self) -> None:
        """Remove old checkpoints left by a run that was killed after a save; Orbax removes them only when it saves."""
        steps = sorted(self._manager.all_steps())
        for step in set(steps) - self._policy.kept(steps):
            self._manager.delete(step)

    @property
    def latest(self) -> int | None:
        """Newest committed step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, position: Position, score: float | None = None) -> None:
        """Start an asynchronous save; return as soon as the arrays are copied off the devices. Raises like `verified` and `wait`."""
        self.verified()
        optimizer, model = _optimizer_item(state), state.model
        # The previous save, if still in progress, has yet to write its manifest.
        self.wait()
        self._saving = step, arrays_of({"params": model, "optimizer": optimizer}), str(position.get("data", "")), score
        self._scores[step] = score
        with self._storage_errors():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.PyTreeSave(model),
                    optimizer=ocp.args.PyTreeSave(optimizer),
                    position=ocp.args.JsonSave(position),
                ),
            )

    def score(self, step: int) -> float | None:
        """Return the score of a checkpoint, or None if it has not been evaluated."""
        return self._scores.get(step)

    def set_score(self, step: int, score: float) -> None:
        """Set the score of a committed checkpoint that was saved without one. Raises like `verified`."""
        self.verified()
        with self._storage_errors(step):
            on_first_process(lambda: manifest.set_score(self._directory / str(step), score))
        self._scores[step] = score

    @contextmanager
    def _storage_errors(self, step: int | None = None) -> Iterator[None]:
        """Convert storage failures to TrainingError; by default, of the checkpoint that is being saved."""
        try:
            yield
        except Exception as error:
            if failure := storage_failure(error):
                raise TrainingError(
                    f"The checkpoint of step {self._saving[0] if step is None else step} in {self._directory} could not be written "
                    f"({failure}). Earlier "
                    "checkpoints are intact. Fix the problem and run the same command again to resume from the newest."
                ) from error
            raise

    def _write_manifest(self) -> None:
        step, arrays, data, score = self._saving
        # In a bucket, the directory has its final name from the start.
        unfinished = next(self._directory.glob(f"{step}.orbax-checkpoint-tmp*"), self._directory / str(step))
        manifest.write(unfinished, arrays, self._model, data, score)

    def restore(self, state: TrainState) -> tuple[TrainState, Position]:
        """Restore the newest state, sharded like `state`, and the position saved with it.

        Raises:
            InputError: the checkpoint belongs to another model or vocabulary; the message names the first parameter that does not fit.
        """
        step = self._manager.latest_step()
        path = self._directory / str(step)
        saved = manifest.read(path)
        assert saved
        target = abstract_state(state)
        optimizer = _optimizer_item(target)
        check_arrays(path, saved, {"params": target.base, "optimizer": optimizer})
        check_identity(saved.model, self._model, path)
        optimizer_args = pytree_restore(optimizer)
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(params=pytree_restore(target.base), optimizer=optimizer_args, position=ocp.args.JsonRestore()),
            )
        except Exception:
            if jax.process_count() == 1:
                self.verified()  # Orbax reports damage in many ways.
            raise
        optimizer, model = found["optimizer"], found["params"]
        # What is not in the optimizer item is the model itself.
        params = optimizer.get("params", model)
        average = None if state.average is None else optimizer.get("average", model)
        running_loss, frozen = (optimizer.get(name) for name in ("running_loss", "frozen"))
        return TrainState(optimizer["step"], params, optimizer["state"], running_loss, average, frozen), found["position"]

    def check(self) -> None:
        """Raise failures known so far, without waiting: of a save in progress, like `wait`, or damage, like `verified`."""
        with self._storage_errors():
            self._manager.check_for_errors()
        # With several processes, damage is reported to all at once, when they save.
        if self._verification and self._verification.done and jax.process_count() == 1:
            self.verified()

    def verified(self) -> None:
        """Wait for a verification in the background.

        Raises:
            TrainingError: a checkpoint is damaged and has been set aside; training may have resumed from it.
            InputError: no checkpoint is intact.
        """
        if self._unverified:
            self._unverified = False
            on_first_process(self._verification.finish if self._verification else lambda: None)
            self._verification = None
            self._remove_superseded()

    def wait(self) -> None:
        """Wait for a save in progress.

        Raises:
            TrainingError: the checkpoint could not be written.
        """
        with self._storage_errors():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        if jax.process_index() == 0:
            remove(self._directory / REMOVED)

    def close(self) -> None:
        """Wait for the last save, raise its failure if it failed, and release the directory."""
        if self._verification:
            self._verification.cancel()
        try:
            self.wait()
        finally:
            with self._storage_errors():
                self._manager.close()


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    # Unused features have no entry, so that checkpoints stay compatible with versions that lack them.
    running_loss = {} if state.running_loss is None else {"running_loss": state.running_loss}
    params = {} if state.average is None and state.frozen is None else {"params": state.params}
    # The model has the low-rank factors merged into the frozen parameters.
    apart = {} if state.frozen is None else {"frozen": state.frozen} | ({} if state.average is None else {"average": state.average})
    return {"step": state.step, "state": state.optimizer_state} | running_loss | params | apart
