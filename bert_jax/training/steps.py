"""Training and evaluation steps as pure functions, and their compilation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.model.bert import Batch
from bert_jax.model.dropout import row_keys
from bert_jax.model.flops import attended_pairs
from bert_jax.model.per_device import ROWS
from bert_jax.training import lora
from bert_jax.training.losses import Mean
from bert_jax.training.microbatches import loops_per_device, split
from bert_jax.training.objective import Metrics, Objective, SetObjective
from bert_jax.training.sharding import replicated
from bert_jax.training.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
EvaluationStep = Callable[[Any, Batch, jax.Array], Any]
Gradients = Callable[[Any, Any, Batch, Any], tuple[Any, Metrics]]
"""(trained parameters, frozen parameters, batch, per-row keys [B, 2] or None) -> (gradients, metrics)."""

# Separate key streams for training steps and for the fixed masks of evaluation.
_TRAINING_STREAM, _EVALUATION_STREAM = 0, 1

# Weight of each new loss in the running mean.
_RUNNING_WEIGHT = 0.01


def _key(seed: int, stream: int, index: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), index)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    seed: int,
    microbatches: int = 1,
    skip_above: float = 0.0,
    ema: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """Run one optimizer step on a global batch of B rows. All randomness is derived from (seed, state.step).

    The batch is split into `microbatches` of B / microbatches rows. It is prepared and its normalizers are counted before the split, so
    the gradient is that of the full batch.

    If the loss or the gradient is not finite, or the loss exceeds `skip_above` (if not 0) times its running mean, the update is skipped:
    everything but the step number is unchanged, and the metric `skipped_updates` is 1.

    Of metrics, it adds to those of the objective `gradient_norm`, `skipped_updates` and `attended_pairs` (see `bert_jax.model.flops`).

    If the state has an average, it is an exponential moving average of the parameters with decay `ema`. The decay is lower in the first
    steps, so that the average forgets the initial parameters.
    """
    prepare_key, dropout_key = jax.random.split(_key(seed, _TRAINING_STREAM, state.step))
    batch = objective.prepare(objective.augment(batch, jax.random.fold_in(prepare_key, 1)), prepare_key)
    normalizers = objective.normalizers(batch)

    def normalized(metrics: Metrics) -> jax.Array:
        # A batch without targets for one of the heads contributes zero, not 0 / 0.
        return sum((metrics[name].total / jnp.maximum(normalizers[name], 1.0) for name in objective.losses), start=jnp.float32(0))

    def loss(params: Any, frozen: Any, part: Batch, keys: jax.Array) -> tuple[jax.Array, Metrics]:
        metrics = objective.metrics(lora.merge(params, frozen), part, keys)
        return normalized(metrics), metrics

    gradients = jax.grad(loss, has_aux=True)
    keys = row_keys(dropout_key, batch["tokens"].shape[0])
    if microbatches == 1:
        grads, metrics = gradients(state.params, state.frozen, batch, keys)
    else:
        grads, metrics = _accumulate(gradients, state.params, state.frozen, batch, keys, microbatches)
    total, norm = normalized(metrics), optax.tree.norm(grads)
    valid = jnp.isfinite(total) & jnp.isfinite(norm)
    running_loss = state.running_loss
    if running_loss is not None:
        valid &= total <= skip_above * running_loss
        mean = jnp.where(jnp.isinf(running_loss), total, running_loss + _RUNNING_WEIGHT * (total - running_loss))
        running_loss = jnp.where(valid, mean, running_loss)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and floats, which strict dtype promotion forbids
        updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.params, valid=valid)
    params = jax.tree.map(partial(jnp.where, valid), optax.apply_updates(state.params, updates), state.params)
    average = state.average
    if average is not None:
        average = jax.tree.map(partial(jnp.where, valid), _averaged(average, params, ema, state.step), average)
    metrics["gradient_norm"] = Mean(norm, jnp.float32(1))
    metrics["attended_pairs"] = Mean(attended_pairs(batch), jnp.float32(1))
    metrics["skipped_updates"] = Mean(1 - valid.astype(jnp.float32), jnp.float32(1))
    return TrainState(state.step + 1, params, optimizer_state, running_loss, average, state.frozen), metrics


def _averaged(average: Any, params: Any, ema: float, step: jax.Array) -> Any:
    # The decay of the first steps is 0.1, 0.18, 0.25, ..., as in TensorFlow's ExponentialMovingAverage.
    steps = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(ema, (1 + steps) / (10 + steps))
    return jax.tree.map(lambda mean, new: mean + rate.astype(mean.dtype) * (new - mean), average, params)


def _accumulate(
    gradients: Gradients, params: Any, frozen: Any, batch: Batch, keys: jax.Array | None, microbatches: int
) -> tuple[Any, Metrics]:
    """Sum gradients and metrics over microbatches in a compiled loop, then once over the data axis of the mesh."""

    def local_sum(params: Any, frozen: Any, batch: Batch, keys: jax.Array | None) -> tuple[Any, Metrics]:
        parts = jax.tree.map(lambda x: split(x, microbatches), (batch, keys))
        shapes = jax.eval_shape(gradients, params, frozen, *jax.tree.map(lambda part: part[0], parts))
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total: tuple[Any, Metrics], part: tuple[Batch, jax.Array]) -> tuple[tuple[Any, Metrics], None]:
            return jax.tree.map(jnp.add, total, gradients(params, frozen, *part)), None

        return jax.lax.scan(add, zero, parts)[0]

    def global_sum(params: Any, frozen: Any, batch: Batch, keys: jax.Array | None) -> tuple[Any, Metrics]:
        return jax.tree.map(lambda local: jax.lax.psum(local, "data"), local_sum(params, frozen, batch, keys))

    if loops_per_device():
        everywhere, rows = PartitionSpec(), PartitionSpec("data")
        specs = (everywhere, everywhere, rows, rows)
        summed = jax.shard_map(global_sum, in_specs=specs, out_specs=everywhere, axis_names={"data"}, check_vma=False)
        grads, metrics = summed(params, frozen, batch, keys)
    else:
        grads, metrics = local_sum(params, frozen, batch, keys)
    # `real_tokens` is a sum over the step, not a mean over microbatches.
    return grads, metrics | {"real_tokens": Mean(metrics["real_tokens"].total, jnp.float32(1))}


def evaluation_step(params: Any, batch: Batch, index: jax.Array, *, objective: Objective, seed: int, microbatches: int = 1) -> Any:
    """Compute the metrics of one evaluation batch without dropout. Masks depend only on (seed, index), so they are fixed.

    The batch is computed in as many parts as a training step, so that what can be trained can be evaluated; that of a `SetObjective` is
    computed at once.

    Returns:
        The metrics; for a `SetObjective`, a tuple of the metrics and the arrays that it needs of every batch.
    """
    prepared = objective.prepare(batch, _key(seed, _EVALUATION_STREAM, index))
    if isinstance(objective, SetObjective):
        return objective.evaluated(params, prepared)

    def metrics(params: Any, frozen: Any, part: Batch, keys: jax.Array | None) -> tuple[Any, Metrics]:
        return (), objective.metrics(params, part, keys)

    if microbatches == 1:
        return metrics(params, None, prepared, None)[1]
    return _accumulate(metrics, params, None, prepared, None, microbatches)[1]


def compile_steps(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    state: TrainState,
    mesh: Mesh,
    seed: int,
    microbatches: int = 1,
    skip_above: float = 0.0,
    ema: float = 0.0,
) -> tuple[TrainStep, EvaluationStep]:
    """Compile both steps for the mesh. The state is donated and keeps its sharding; metrics are replicated."""
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    batch_sharding = NamedSharding(mesh, ROWS)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for kernels, which XLA cannot partition
            return train_step(
                state, batch, objective=objective, optimizer=optimizer, seed=seed, microbatches=microbatches, skip_above=skip_above, ema=ema
            )

    def evaluate(params: Any, batch: Batch, index: jax.Array) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return evaluation_step(params, batch, index, objective=objective, seed=seed, microbatches=microbatches)

    train = jax.jit(
        step, in_shardings=(state_shardings, batch_sharding), out_shardings=(state_shardings, replicated(mesh)), donate_argnums=0
    )
    evaluation = jax.jit(
        evaluate,
        in_shardings=(state_shardings.base, batch_sharding, NamedSharding(mesh, PartitionSpec())),
        out_shardings=replicated(mesh),
    )
    return train, evaluation
