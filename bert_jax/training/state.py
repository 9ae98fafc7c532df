"""The training state, sharded from the start."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bert_jax.training import lora
from bert_jax.training.sharding import tree_shardings


@flax.struct.dataclass
class TrainState:
    """Step number (int32 scalar), parameters and optimizer state."""

    step: jax.Array
    params: Any
    optimizer_state: Any
    running_loss: jax.Array | None = None
    """Running mean of the loss (float32 scalar, infinite before the first step) if updates with loss spikes are skipped, else None."""
    average: Any = None
    """Moving average of the parameters, sharded like them, or None if disabled."""
    frozen: Any = None
    """Parameters that are not trained (`bert_jax.training.lora`), or None if `params` is the whole model."""

    @property
    def model(self) -> Any:
        """Parameters that are evaluated and saved as the model: the average if there is one, otherwise those of the last step."""
        trained = self.params if self.average is None else self.average
        if self.frozen is None:
            return trained
        return jax.jit(lora.merge, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.base))(trained, self.frozen)

    @property
    def base(self) -> Any:
        """Parameters of the model without low-rank factors, and so of the shapes, dtypes and shardings of `model`."""
        return lora.base(self.params, self.frozen)

    def started_from(self, model: Any) -> "TrainState":
        """Return the state at the start of training from the parameters of another model."""
        params, frozen = (model, None) if self.frozen is None else lora.rebase(model, self.params, self.frozen)
        # A separate copy, since the step donates the buffers of the complete state.
        average = None if self.average is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(self, params=params, average=average, frozen=frozen)


def create_state(
    init: Callable[[], Any], optimizer: optax.GradientTransformation, mesh: Mesh, *, track_loss: bool = False, average: bool = False
) -> TrainState:
    """Create an initial state, computed under its final sharding: no device ever holds a complete copy of a sharded array."""
    create = partial(_create, init, optimizer, track_loss, average)
    return jax.jit(create, out_shardings=tree_shardings(jax.eval_shape(create), mesh))()


def planned_state(
    init: Callable[[], Any], optimizer: optax.GradientTransformation, mesh: Mesh, *, track_loss: bool = False, average: bool = False
) -> TrainState:
    """Return the shapes, dtypes and shardings of the result of `create_state`, on a mesh whose devices need not exist."""
    shapes = jax.eval_shape(partial(_create, init, optimizer, track_loss, average))
    return jax.tree.map(lambda leaf, sharding: leaf.update(sharding=sharding), shapes, tree_shardings(shapes, mesh))


def _create(init: Callable[[], Any], optimizer: optax.GradientTransformation, track_loss: bool, average: bool) -> TrainState:
    params, frozen = lora.divide(init())
    running_loss = jnp.float32(jnp.inf) if track_loss else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), running_loss, params if average else None, frozen)


def abstract_state(state: TrainState) -> TrainState:
    """Return the shapes, dtypes and shardings of a state, as a target for restoring a checkpoint."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
