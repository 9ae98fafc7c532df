"""Load parameters from checkpoints and verify them before use."""

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bert_jax.errors import InputError, as_typed
from bert_jax.model.directory import check_identity
from bert_jax.runtime.processes import on_first_process
from bert_jax.training.checkpoints import manifest
from bert_jax.training.checkpoints.manifest import DamagedError, Manifest, arrays_of
from bert_jax.training.checkpoints.verification import required, score_without_manifest, steps_in, without_manifest


class UnverifiedCheckpointWarning(UserWarning):
    """A checkpoint has no manifest, so its integrity cannot be verified."""


def load_parameters(directory: Path, params: Any, model: Mapping[str, Any], best: bool, alone: bool = False) -> Any:
    """Load and verify the parameters of a model directory.

    Args:
        directory: the model directory.
        params: the subtree of parameters to load, as shapes, dtypes and shardings.
        model: identity of the model according to the directory (`bert_jax.model.directory.identity`).
        best: load the best checkpoint instead of the newest (`bert_jax.tasks.base.Task.best`).
        alone: this process loads independently of the other processes of its job.

    Raises:
        InputError: there is no checkpoint; a parameter does not fit (the message names the first); the checkpoint is damaged (the message
            names the file); or it belongs to another model or vocabulary.
    """
    path, saved = chosen(directory / "checkpoints", best)
    check_arrays(path, saved, {"params": params})
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
    """Load the parameters of one checkpoint without verification; arguments as in `load_parameters`."""
    processes = _this_process_alone() if alone else ocp.options.MultiprocessingOptions()
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params)
    with ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=processes), multiprocessing_options=processes
    ) as checkpointer:
        return checkpointer.restore(os.fspath(path / "params"), args=pytree_restore(shapes, partial=True))


def chosen(directory: Path, best: bool) -> tuple[Path, Manifest]:
    """Choose the checkpoint to load: the newest or, if `best`, the one with the highest score.

    Ties go to the later checkpoint, and without any scores the newest is chosen.

    Raises:
        InputError: there is no checkpoint, or a manifest needed for the choice is damaged or missing.
    """
    steps = steps_in(directory)
    if not steps:
        raise InputError(f"There is no committed checkpoint in {directory}. Train first, or name another directory.")
    try:
        if all(manifest.read(directory / str(step)) is None for step in steps):
            path = directory / str(max(steps, key=lambda step: (score_without_manifest(directory / str(step)) if best else 0.0, step)))
            message = f"{path} has no {manifest.FILE} because an older version wrote it. It is used without verification."
            warnings.warn(as_typed(message), UnverifiedCheckpointWarning, stacklevel=4)
            return path, without_manifest(path)
        found = {step: required(directory / str(step)) for step in (steps if best else steps[-1:])}
    except DamagedError as error:
        raise InputError(f"{error}. {_remedy(directory / str(steps[-1]))}") from error
    # NaN, the score of a model that diverged, compares with nothing: it is no score.
    scores = {step: -math.inf if saved.score is None or math.isnan(saved.score) else saved.score for step, saved in found.items()}
    step = max(found, key=lambda step: (scores[step], step))
    return directory / str(step), found[step]


def _remedy(path: Path) -> str:
    stage = path.parent.parent
    return (
        f"The checkpoint was damaged after it was written. Restore {path} from a backup, or run the training of {stage} again, which "
        "sets it aside and resumes from the newest intact checkpoint."
    )


def _more(found: list[str]) -> str:
    return f"{len(found)} files are damaged in total. " if len(found) > 1 else ""


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}")


def pytree_restore(tree: Any, partial: bool = False) -> ocp.args.PyTreeRestore:
    """Return the Orbax arguments for restoring arrays like those of this tree, or of a part of the saved tree if `partial`."""
    return ocp.args.PyTreeRestore(tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree), partial_restore=partial)


def check_arrays(checkpoint: Path, saved: Manifest, wanted: Mapping[str, Any]) -> None:
    """Raise InputError for the first array of `wanted` that is missing from the checkpoint or differs in shape or dtype."""
    # Orbax silently casts to another dtype, and its error for a wrong shape does not name the parameter.
    for path, (shape, dtype) in arrays_of(wanted).items():
        stored = saved.arrays.get(path)
        what = "it is missing" if stored is None else ""
        if stored is not None and stored[0] != shape:
            what = f"it is {stored[0]} in the checkpoint and {shape} in the model"
        elif stored is not None and stored[1] != dtype:
            what = f"it is {stored[1]} in the checkpoint and {dtype} in the model"
        if what:
            raise InputError(
                f"The checkpoint {checkpoint} does not fit the model at parameter {path.removeprefix('params/')}: {what}. "
                "Use the encoder configuration and the vocabulary that the checkpoint was trained with, or another workdir."
            )
