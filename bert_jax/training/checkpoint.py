"""Orbax checkpoints of one stage: parameters, optimizer and the position in the data, the newest and the best kept.

The item `params` is the model as it is used, evaluated and exported: with `optimizer.ema` the averaged parameters. Those that
training goes on from are then beside the optimizer's state.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from bert_jax.errors import InputError
from bert_jax.training.state import TrainState, abstract_state

Position = dict[str, Any]


def _options(keep: int, alone: ocp.options.MultiprocessingOptions, reading: bool) -> ocp.CheckpointManagerOptions:
    def score(metrics: Mapping[str, float]) -> float:
        return metrics.get("score", -math.inf)

    newest = preservation_policy.LatestN(keep)
    best = preservation_policy.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
    # `best_fn` with `max_to_keep` would delete the newest checkpoint, and a resume would lose steps.
    return ocp.CheckpointManagerOptions(
        best_fn=score,  # Orbax writes no metrics without it.
        preservation_policy=preservation_policy.AnyPreservationPolicy([newest, best]),
        # Another process may be saving in a directory that this one reads.
        cleanup_tmp_directories=not reading,
        create=not reading,
        multiprocessing_options=alone,
    )


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}")


class Checkpoints:
    """The checkpoints in a directory. Saving is asynchronous: `close` waits for the last save and raises its failure.

    Args:
        directory: where they are, or will be.
        keep: newest checkpoints kept, beside the best; None opens the directory for reading only.
        alone: this process works by itself, whatever other processes of its job do meanwhile.
    """

    def __init__(self, directory: Path, keep: int | None, alone: bool = False) -> None:
        self._directory = directory
        processes = _this_process_alone() if alone else ocp.options.MultiprocessingOptions()
        # Named handlers let the shapes and types of a checkpoint be read before anything is restored.
        handlers = {
            "params": ocp.PyTreeCheckpointHandler(multiprocessing_options=processes),
            "optimizer": ocp.PyTreeCheckpointHandler(multiprocessing_options=processes),
            "position": ocp.JsonCheckpointHandler(multiprocessing_options=processes),
        }
        options = _options(keep or 1, processes, reading=keep is None)
        self._manager = ocp.CheckpointManager(directory.resolve(), item_handlers=handlers, options=options)

    @property
    def latest(self) -> int | None:
        """The newest committed step, or None."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The kept step with the highest score (the later of equals); without any score the newest."""
        found = [(self._manager.metrics(step), step) for step in self._manager.all_steps()]
        scored = [(metrics["score"], step) for metrics, step in found if metrics]
        return max(scored)[1] if scored else self.latest

    def save(self, step: int, state: TrainState, position: Position, score: float | None = None) -> None:
        """Starts saving; returns as soon as the arrays are copied off the devices."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeSave(state.model),
                optimizer=ocp.args.PyTreeSave(_beside_parameters(state)),
                position=ocp.args.JsonSave(position),
            ),
            metrics={} if score is None else {"score": score},
        )

    def restore(self, state: TrainState, step: int | None = None) -> tuple[TrainState, Position]:
        """A saved state, laid out like `state`, and the position that was saved with it; the newest by default.

        Raises:
            InputError: the saved parameters do not fit, naming the first that does not.
        """
        step = self.latest if step is None else step
        target = abstract_state(state)
        _check_tree(self._directory, self._metadata(step), target.params)
        beside = _pytree_restore(_beside_parameters(target))
        found = self._manager.restore(
            step, args=ocp.args.Composite(params=_pytree_restore(target.model), optimizer=beside, position=ocp.args.JsonRestore())
        )
        optimizer, model = found["optimizer"], found["params"]
        params, average = (model, None) if state.average is None else (optimizer["params"], model)
        return TrainState(optimizer["step"], params, optimizer["state"], optimizer.get("running_loss"), average), found["position"]

    def restore_params(self, params: Any, step: int | None = None) -> Any:
        """Saved parameters alone, for the sub-tree of shapes (with shardings) `params`; the newest by default.

        Raises:
            InputError: there is no checkpoint, or its parameters do not fit, naming the first that does not.
        """
        step = self.latest if step is None else step
        if step is None:
            raise InputError(f"There is no committed checkpoint in {self._directory}. Train first, or name another directory.")
        _check_tree(self._directory, self._metadata(step), params)
        return self._manager.restore(step, args=ocp.args.Composite(params=_pytree_restore(params, partial=True)))["params"]

    def _metadata(self, step: int | None) -> Any:
        return self._manager.item_metadata(step)["params"]

    def wait(self) -> None:
        """Waits for a save that is under way and raises its failure."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def stop_requested(self, step: int) -> bool:
        """Whether the cluster has announced that this job is about to be preempted (needs `jax.distributed`)."""
        return bool(self._manager.reached_preemption(step))

    def close(self) -> None:
        """Waits, raises the failure of the last save if it had one, and lets go of the directory."""
        self.wait()
        self._manager.close()


def load_parameters(directory: Path, params: Any, kind: str = "pretraining", alone: bool = False) -> Any:
    """Parameters of a model directory (of a classifier those of the best checkpoint, else the newest).

    Args:
        params: the sub-tree of shapes, types and shardings to give back.
        kind: `pretraining` or `classification`, as the directory's description has it.
        alone: as in `Checkpoints`.
    """
    checkpoints = Checkpoints(directory / "checkpoints", keep=None, alone=alone)
    try:
        step = checkpoints.best() if kind == "classification" else checkpoints.latest
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params)
        return checkpoints.restore_params(shapes, step)
    finally:
        checkpoints.close()


def _beside_parameters(state: TrainState) -> dict[str, Any]:
    # What a run does not use has no entry, so that its checkpoints are those of before there was such a thing.
    running_loss = {} if state.running_loss is None else {"running_loss": state.running_loss}
    params = {} if state.average is None else {"params": state.params}
    return {"step": state.step, "state": state.optimizer_state} | running_loss | params


def _pytree_restore(tree: Any, partial: bool = False) -> ocp.args.PyTreeRestore:
    return ocp.args.PyTreeRestore(tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree), partial_restore=partial)


def _leaves(tree: Any) -> Mapping[str, Any]:
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _check_tree(directory: Path, metadata: Any, wanted: Any) -> None:
    # Orbax casts another type in silence and reports a wrong shape without the parameter's name.
    saved = _leaves(metadata.tree if hasattr(metadata, "tree") else metadata)
    for path, leaf in _leaves(wanted).items():
        there = saved.get(path)
        what = "it is missing" if there is None else ""
        if there is not None and tuple(there.shape) != tuple(leaf.shape):
            what = f"it is {tuple(there.shape)} in the checkpoint and {tuple(leaf.shape)} in the model"
        elif there is not None and there.dtype != leaf.dtype:
            what = f"it is {there.dtype} in the checkpoint and {leaf.dtype} in the model"
        if what:
            raise InputError(
                f"The checkpoint in {directory} does not fit the model at parameter {path}: {what}. "
                "Use the encoder configuration and the vocabulary that the checkpoint was trained with, or another workdir."
            )
