"""Orbax checkpoints of one stage: parameters, optimizer and the position in the data, the newest and the best kept.

The item `params` is the model as it is used, evaluated and exported: with `optimizer.ema` the averaged parameters. Those that
training goes on from are then beside the optimizer's state.

Orbax restores flipped bits without a word, so every checkpoint carries a manifest (`manifest.py`), which is committed with it
and verified before anything of it is used. One that fails is set aside as `STEP.damaged`, and the newest good one goes on.
"""

import logging
import math
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from bert_jax.errors import InputError, TrainingError, as_typed, storage_failure
from bert_jax.files import remove
from bert_jax.model_directory import check_identity
from bert_jax.processes import on_first_process
from bert_jax.training import manifest
from bert_jax.training.manifest import Arrays, DamagedError, Manifest, arrays_of
from bert_jax.training.state import TrainState, abstract_state
from bert_jax.training.verification import (
    REMOVED,
    Verification,
    required,
    score_without_manifest,
    set_damaged_aside,
    steps_in,
    without_manifest,
)

Position = dict[str, Any]


def _not_raised_too(record: logging.LogRecord) -> bool:
    """Orbax's threads log the traceback of every failure that `wait` raises; asyncio those of the writes beside the one that failed."""
    if not record.exc_info or not record.exc_info[1]:
        return True
    if record.name == "asyncio":
        frames = traceback.extract_tb(record.exc_info[2])
        return not (storage_failure(record.exc_info[1]) and any("orbax" in frame.filename for frame in frames))
    return "orbax" not in record.pathname


class UnverifiedCheckpointWarning(UserWarning):
    """A checkpoint has no manifest, so that nobody can tell whether it is what was written."""


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
        _check_arrays(path, saved, {"params": target.model, "optimizer": optimizer})
        check_identity(saved.model, self._model, path)
        beside = _pytree_restore(optimizer)
        try:
            found = self._manager.restore(
                step, args=ocp.args.Composite(params=_pytree_restore(target.model), optimizer=beside, position=ocp.args.JsonRestore())
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


def load_parameters(directory: Path, params: Any, model: Mapping[str, Any], alone: bool = False) -> Any:
    """Verified parameters of a model directory (of a classifier those of the best checkpoint, else the newest).

    Args:
        params: the sub-tree of shapes, types and shardings to give back.
        model: what the directory says of the model (`model_directory.identity`).
        alone: this process works by itself, whatever other processes of its job do meanwhile.

    Raises:
        InputError: there is no checkpoint; its parameters do not fit, naming the first that does not; it is damaged, naming
            the file; or it was trained as another model or with another vocabulary.
    """
    path, saved = chosen(directory / "checkpoints", best=model["description"]["kind"] == "classification")
    _check_arrays(path, saved, {"params": params})
    check_identity(saved.model, model, path)

    def check() -> None:
        if found := manifest.faults(path, saved, items=("params",)):
            raise InputError(f"{found[0]}. {_more(found)}{_remedy(path)}")

    if alone:
        check()
    else:
        on_first_process(check)
    return restore_parameters(path, params, alone)


def restore_parameters(path: Path, params: Any, alone: bool = False) -> Any:
    """The parameters of one checkpoint as they are; arguments as in `load_parameters`."""
    processes = _this_process_alone() if alone else ocp.options.MultiprocessingOptions()
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params)
    with ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=processes), multiprocessing_options=processes
    ) as checkpointer:
        return checkpointer.restore(os.fspath(path / "params"), args=_pytree_restore(shapes, partial=True))


def chosen(directory: Path, best: bool) -> tuple[Path, Manifest]:
    """The checkpoint that is the model: the newest, or the one with the highest score (the later of equals; the newest if none has one).

    Raises:
        InputError: there is none, or a manifest that decides this is damaged or missing.
    """
    steps = steps_in(directory)
    if not steps:
        raise InputError(f"There is no committed checkpoint in {directory}. Train first, or name another directory.")
    try:
        if all(manifest.read(directory / str(step)) is None for step in steps):
            path = directory / str(max(steps, key=lambda step: (score_without_manifest(directory / str(step)) if best else 0.0, step)))
            message = f"{path} has no {manifest.FILE}: an older version wrote it. It is used as it is, without a look at its hashes."
            warnings.warn(as_typed(message), UnverifiedCheckpointWarning, stacklevel=4)
            return path, without_manifest(path)
        found = {step: required(directory / str(step)) for step in (steps if best else steps[-1:])}
    except DamagedError as error:
        raise InputError(f"{error}. {_remedy(directory / str(steps[-1]))}") from error
    scores = {step: -math.inf if saved.score is None else saved.score for step, saved in found.items()}
    step = max(found, key=lambda step: (scores[step], step))
    return directory / str(step), found[step]


def _remedy(path: Path) -> str:
    stage = path.parent.parent
    return (
        f"The checkpoint was damaged after it was written. Restore {path} from a copy, or run the training of {stage} again, which sets "
        "it aside and goes on from the newest that is whole."
    )


def _more(found: list[str]) -> str:
    return f"({len(found) - 1} more files too.) " if len(found) > 1 else ""


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}")


def _beside_parameters(state: TrainState) -> dict[str, Any]:
    # What a run does not use has no entry, so that its checkpoints are those of before there was such a thing.
    running_loss = {} if state.running_loss is None else {"running_loss": state.running_loss}
    params = {} if state.average is None else {"params": state.params}
    return {"step": state.step, "state": state.optimizer_state} | running_loss | params


def _pytree_restore(tree: Any, partial: bool = False) -> ocp.args.PyTreeRestore:
    return ocp.args.PyTreeRestore(tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree), partial_restore=partial)


def _check_arrays(checkpoint: Path, saved: Manifest, wanted: Mapping[str, Any]) -> None:
    # Orbax casts another type in silence and reports a wrong shape without the parameter's name.
    for path, (shape, dtype) in arrays_of(wanted).items():
        there = saved.arrays.get(path)
        what = "it is missing" if there is None else ""
        if there is not None and there[0] != shape:
            what = f"it is {there[0]} in the checkpoint and {shape} in the model"
        elif there is not None and there[1] != dtype:
            what = f"it is {there[1]} in the checkpoint and {dtype} in the model"
        if what:
            raise InputError(
                f"The checkpoint {checkpoint} does not fit the model at parameter {path.removeprefix('params/')}: {what}. "
                "Use the encoder configuration and the vocabulary that the checkpoint was trained with, or another workdir."
            )
