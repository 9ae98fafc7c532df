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


def create_state(init: Callable[[], Any], optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A fresh state, computed where it will live: no device ever holds a whole copy of a sharded array."""

    shardings = tree_shardings(jax.eval_shape(partial(_create, init, optimizer)), mesh)
    return jax.jit(partial(_create, init, optimizer), out_shardings=shardings)()


def _create(init: Callable[[], Any], optimizer: optax.GradientTransformation) -> TrainState:
    params = init()
    return TrainState(jnp.int32(0), params, optimizer.init(params))


def planned_state(init: Callable[[], Any], optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """The shapes, types and shardings that `create_state` would give, on a mesh whose devices need not exist."""
    shapes = jax.eval_shape(partial(_create, init, optimizer))
    return jax.tree.map(lambda leaf, sharding: leaf.update(sharding=sharding), shapes, tree_shardings(shapes, mesh))


def abstract_state(state: TrainState) -> TrainState:
    """The same tree of shapes, types and shardings without the numbers, for restoring into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
