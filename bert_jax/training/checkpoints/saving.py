"""Orbax checkpoints of one stage: parameters, optimizer and the position in the data, the newest and the best kept.

The item `params` is the model as it is used, evaluated and exported: with `optimizer.ema` the averaged parameters. Those that
training goes on from are then beside the optimizer's state.

Orbax restores flipped bits without a word, so every checkpoint carries a manifest (`manifest.py`), which is committed with it
and verified before anything of it is used. One that fails is set aside as `STEP.damaged`, and the newest good one goes on.
"""

import logging
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
    """Orbax's threads log the traceback of every failure that `wait` raises; asyncio those of the writes beside the one that failed."""
    if not record.exc_info or not record.exc_info[1]:
        return True
    if record.name == "asyncio":
        frames = traceback.extract_tb(record.exc_info[2])
        return not (storage_failure(record.exc_info[1]) and any("orbax" in frame.filename for frame in frames))
    return "orbax" not in record.pathname


@dataclass(frozen=True)
class _NewestAndBest(preservation_policy.PreservationPolicy):
    """Keeps the newest checkpoints and the best, the later of equals, by scores that may be known later than their checkpoints."""

    keep: int
    scores: Mapping[int, float | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: preservation_policy.PreservationContext) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in self.kept(steps) for step in steps]

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Which of these steps, in order, are kept."""
        scored = [(score, step) for step in steps if (score := self.scores.get(step)) is not None]
        return {*steps[-self.keep :], *(step for _, step in sorted(scored)[-1:])}


def _options(
    policy: preservation_policy.PreservationPolicy, processes: ocp.options.MultiprocessingOptions, finish: Callable[[], None]
) -> ocp.CheckpointManagerOptions:
    return ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        cleanup_tmp_directories=True,
        # What is half removed when a run is killed must not look like a damaged checkpoint.
        todelete_subdir=REMOVED,
        multiprocessing_options=processes,
        # The manifest is written after the last file and before the directory gets its name, on one process. Directories made in
        # the background would be waited for without end where they cannot be made.
        async_options=ocp.options.AsyncOptions(post_finalization_callback=finish, create_directories_asynchronously=False),
    )


def check_name(directory: Path) -> None:
    """Raises InputError for a directory below which Orbax writes checkpoints that it cannot read: it takes brackets for a pattern."""
    if "[" in str(directory):
        raise InputError(
            f"No checkpoint can be written below {directory}, since Orbax takes the brackets in that name for a pattern and would lose "
            "arrays. Name a directory without `[`, or a link to this one."
        )


class Checkpoints:
    """The checkpoints in a directory that is trained in. Saving is asynchronous: `close` waits for the last and raises its failure.

    Args:
        directory: where they are, or will be.
        keep: newest checkpoints kept, beside the best.
        model: what the manifests say of the model (`model_directory.identity`).
        verify: whether the hashes of the checkpoints that are there are verified now, or while the caller goes on.

    Raises:
        InputError: checkpoints are there and none is whole, or the directory has brackets in its name.
    """

    def __init__(
        self, directory: Path, keep: int, model: Mapping[str, Any] | None = None, verify: Literal["before", "background"] = "before"
    ) -> None:
        check_name(directory)
        self._directory, self._model = directory, model or {}
        self._saving: tuple[int, Arrays, str, float | None]
        # Whatever is verified later, a wrong position would be told as a change of the data.
        on_first_process(lambda: set_damaged_aside(self._directory, hashed=None if verify == "before" else ("position",)))
        self._verification: Verification | None = None
        self._unverified = verify == "background"
        if self._unverified and jax.process_index() == 0:
            self._verification = Verification(self._directory)
        self._scores = {step: required(self._directory / str(step)).score for step in steps_in(self._directory)}
        # For good: threads of a failed save may end after it was closed.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_not_raised_too)
        # Named handlers let each item be read by itself.
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
        """Removes what a run that was killed between a save and the removal of older checkpoints has left; Orbax does so at saves only."""
        steps = sorted(self._manager.all_steps())
        for step in set(steps) - self._policy.kept(steps):
            self._manager.delete(step)

    @property
    def latest(self) -> int | None:
        """The newest committed step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, position: Position, score: float | None = None) -> None:
        """Starts saving, as `verified`; returns as soon as the arrays are copied off the devices."""
        self.verified()
        beside = _beside_parameters(state)
        # The manifest of a save that is under way is still to be written.
        self.wait()
        self._saving = step, arrays_of({"params": state.model, "optimizer": beside}), str(position.get("data", "")), score
        self._scores[step] = score
        with self._told():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.PyTreeSave(state.model),
                    optimizer=ocp.args.PyTreeSave(beside),
                    position=ocp.args.JsonSave(position),
                ),
            )

    def score(self, step: int) -> float | None:
        """The score of a checkpoint; None where it has not been evaluated."""
        return self._scores.get(step)

    def set_score(self, step: int, score: float) -> None:
        """Gives a committed checkpoint the score that it was saved without, as `verified`."""
        self.verified()
        with self._told():
            on_first_process(lambda: manifest.set_score(self._directory / str(step), score))
        self._scores[step] = score

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raises what storage refuses as a TrainingError."""
        try:
            yield
        except Exception as error:
            if failure := storage_failure(error):
                raise TrainingError(
                    f"The checkpoint of step {self._saving[0]} in {self._directory} could not be written ({failure}). Those before it are "
                    "whole. Mend that and run the same command again, which goes on from the newest."
                ) from error
            raise

    def _write_manifest(self) -> None:
        step, arrays, data, score = self._saving
        # In a bucket it has its name from the beginning.
        unfinished = next(self._directory.glob(f"{step}.orbax-checkpoint-tmp*"), self._directory / str(step))
        manifest.write(unfinished, arrays, self._model, data, score)

    def restore(self, state: TrainState) -> tuple[TrainState, Position]:
        """The newest saved state, laid out like `state`, and the position that was saved with it.

        Raises:
            InputError: the checkpoint is of another model or vocabulary, naming the first parameter that does not fit.
        """
        step = self._manager.latest_step()
        path = self._directory / str(step)
        saved = manifest.read(path)
        assert saved
        target = abstract_state(state)
        optimizer = _beside_parameters(target)
        check_arrays(path, saved, {"params": target.model, "optimizer": optimizer})
        check_identity(saved.model, self._model, path)
        beside = pytree_restore(optimizer)
        try:
            found = self._manager.restore(
                step, args=ocp.args.Composite(params=pytree_restore(target.model), optimizer=beside, position=ocp.args.JsonRestore())
            )
        except Exception:
            if jax.process_count() == 1:
                self.verified()  # Damage that is not yet known has many words.
            raise
        optimizer, model = found["optimizer"], found["params"]
        params, average = (model, None) if state.average is None else (optimizer["params"], model)
        return TrainState(optimizer["step"], params, optimizer["state"], optimizer.get("running_loss"), average), found["position"]

    def check(self) -> None:
        """Raises what is known already: the failure of a save that is under way, as `wait`, or damage, as `verified`."""
        with self._told():
            self._manager.check_for_errors()
        # Several processes hear of damage together, when they save.
        if self._verification and self._verification.done and jax.process_count() == 1:
            self.verified()

    def verified(self) -> None:
        """Waits for a verification in the background.

        Raises:
            TrainingError: a checkpoint is damaged. It has been set aside; training resumed from it, or might have.
        """
        if self._unverified:
            self._unverified = False
            on_first_process(self._verification.finish if self._verification else lambda: None)
            self._verification = None
            self._remove_superseded()

    def wait(self) -> None:
        """Waits for a save that is under way and raises its failure.

        Raises:
            TrainingError: storage refused it.
        """
        with self._told():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        if jax.process_index() == 0:
            remove(self._directory / REMOVED)

    def close(self) -> None:
        """Waits, raises the failure of the last save if it had one, and lets go of the directory."""
        if self._verification:
            self._verification.cancel()
        try:
            self.wait()
        finally:
            with self._told():
                self._manager.close()


def _beside_parameters(state: TrainState) -> dict[str, Any]:
    # What a run does not use has no entry, so that its checkpoints are those of before there was such a thing.
    running_loss = {} if state.running_loss is None else {"running_loss": state.running_loss}
    params = {} if state.average is None else {"params": state.params}
    return {"step": state.step, "state": state.optimizer_state} | running_loss | params
