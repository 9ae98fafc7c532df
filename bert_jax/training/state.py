"""What training carries from step to step, born sharded."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bert_jax.training.sharding import tree_shardings


@flax.struct.dataclass
class TrainState:
    """Step number (int32 scalar), parameters, and the optimizer's state."""

    step: jax.Array
    params: Any
    optimizer_state: Any
    running_loss: jax.Array | None = None
    """Running mean of the loss (float32 scalar, infinite before the first), where updates far above it are skipped."""
    average: Any = None
    """The moving average of the parameters, where one is kept; it lies as they do."""

    @property
    def model(self) -> Any:
        """The parameters that are evaluated and saved as the model: the average, or those of the last step."""
        return self.params if self.average is None else self.average


def create_state(
    init: Callable[[], Any], optimizer: optax.GradientTransformation, mesh: Mesh, *, track_loss: bool = False, average: bool = False
) -> TrainState:
    """A fresh state, computed where it will live: no device ever holds a whole copy of a sharded array."""
    create = partial(_create, init, optimizer, track_loss, average)
    return jax.jit(create, out_shardings=tree_shardings(jax.eval_shape(create), mesh))()


def planned_state(
    init: Callable[[], Any], optimizer: optax.GradientTransformation, mesh: Mesh, *, track_loss: bool = False, average: bool = False
) -> TrainState:
    """The shapes, types and shardings that `create_state` would give, on a mesh whose devices need not exist."""
    shapes = jax.eval_shape(partial(_create, init, optimizer, track_loss, average))
    return jax.tree.map(lambda leaf, sharding: leaf.update(sharding=sharding), shapes, tree_shardings(shapes, mesh))


def _create(init: Callable[[], Any], optimizer: optax.GradientTransformation, track_loss: bool, average: bool) -> TrainState:
    params = init()
    running_loss = jnp.float32(jnp.inf) if track_loss else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), running_loss, params if average else None)


def abstract_state(state: TrainState) -> TrainState:
    """The same tree of shapes, types and shardings without the numbers, for restoring into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
