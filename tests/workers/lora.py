"""Three steps of low-rank adaptation on several meshes of fake devices; prints JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny

from bert_jax.config import MeshConfig, OptimizerConfig
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.sharding import make_mesh, place_batch
from bert_jax.training.state import create_state
from bert_jax.training.steps import compile_steps


def steps(mesh: Mesh, microbatches: int) -> dict[str, Any]:
    optimizer = tiny.lenient(make_optimizer(OptimizerConfig(learning_rate=5e-3), 10))
    params = tiny.factored()
    state = create_state(lambda: jax.tree.map(jnp.asarray, params), optimizer, mesh, average=True)
    train, _ = compile_steps(tiny.task(), optimizer, state, mesh, seed=0, microbatches=microbatches, ema=0.9)
    losses = []
    for _ in range(3):
        state, metrics = train(state, place_batch(tiny.batch(), mesh))
        losses.append(float(metrics["mlm_loss"].total / metrics["mlm_loss"].count))
    query = state.params["encoder"]["layers"]["query"]
    return {
        "losses": losses,
        "kernel": np.asarray(state.model["encoder"]["layers"]["query"]["kernel"]).tolist(),
        "shards": {name: list(query[name].addressable_shards[0].data.shape) for name in query},
        "merged": list(state.model["encoder"]["layers"]["query"]["kernel"].addressable_shards[0].data.shape),
    }


def main() -> None:
    data, others = (make_mesh(axes, 8, jax.devices()[:4]) for axes in (MeshConfig(4, 1, 1), MeshConfig(1, 2, 2)))
    print(json.dumps({"one": steps(tiny.one_device_mesh(), 1), "4,1,1 twice": steps(data, 2), "1,2,2": steps(others, 1)}))


if __name__ == "__main__":
    main()
