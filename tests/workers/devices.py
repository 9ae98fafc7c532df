"""Ten training steps on several meshes of eight fake devices, beside one device. Prints JSON."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny

from bert_jax.config import MeshConfig, OptimizerConfig
from bert_jax.errors import InputError
from bert_jax.model.dropout import dropout, row_keys
from bert_jax.training.compiled import collectives
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.sharding import make_mesh, place_batch, tree_shardings
from bert_jax.training.state import create_state
from bert_jax.training.steps import compile_steps

ENCODER = dataclasses.replace(tiny.ENCODER, layers=1)
METRICS = ("mlm_loss", "nsp_loss", "gradient_norm", "real_tokens")


def shards(tree: Any) -> dict[str, list[int]]:
    """The shape of each array on one device."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.addressable_shards[0].data.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def four(mesh: MeshConfig, batch_size: int) -> Mesh:
    return make_mesh(mesh, batch_size, jax.devices()[:4])


def ten_steps(mesh: Mesh, microbatches: int) -> dict[str, Any]:
    optimizer = tiny.lenient(make_optimizer(OptimizerConfig(learning_rate=5e-3), 10))
    task = tiny.task(ENCODER)
    state = create_state(lambda: jax.tree.map(jnp.asarray, tiny.initial_parameters(ENCODER)), optimizer, mesh, average=True)
    born = shards(state.params)
    train, _ = compile_steps(task, optimizer, state, mesh, seed=0, microbatches=microbatches, ema=0.9)
    losses, rows = [], None
    for _ in range(10):
        batch = place_batch(tiny.batch(), mesh)
        rows = batch["tokens"].addressable_shards[0].data.shape[0]
        state, metrics = train(state, batch)
        losses.append([float(metrics[name].total / metrics[name].count) for name in METRICS])
    spoilt = tiny.batch()
    spoilt["example_weights"][0] = float("nan")
    before = tiny.flat((state.params, state.optimizer_state, state.average))
    state, metrics = train(state, place_batch(spoilt, mesh))
    after = tiny.flat((state.params, state.optimizer_state, state.average))
    adam = next(part for part in jax.tree.leaves(state.optimizer_state, is_leaf=lambda part: hasattr(part, "mu")) if hasattr(part, "mu"))
    return {
        "losses": losses,
        "rows": rows,
        "born": born,
        "shards": shards(state.params),
        "average": shards(state.average),
        "average of a kernel": np.asarray(state.average["pooler"]["dense"]["kernel"]).tolist(),
        "moments": [shards(adam.mu), shards(adam.nu)],
        "programs": train._cache_size(),
        "skipped": float(metrics["skipped_updates"].total),
        "unchanged by a skip": all((after[path] == before[path]).all() for path in before),
    }


def sent_by_a_device(mesh: Mesh, microbatches: int) -> float:
    """Bytes in one step."""
    optimizer, task = tiny.lenient(make_optimizer(OptimizerConfig(), 10)), tiny.task(ENCODER)
    state = create_state(lambda: jax.tree.map(jnp.asarray, tiny.initial_parameters(ENCODER)), optimizer, mesh)
    train, _ = compile_steps(task, optimizer, state, mesh, seed=0, microbatches=microbatches)
    program = train.lower(state, place_batch(tiny.batch(16), mesh)).compile()  # type: ignore[attr-defined]
    return sum(found.sent_bytes for found in collectives(program.as_text()))


def dropout_on(mesh: Mesh) -> list[float]:
    sharding = NamedSharding(mesh, PartitionSpec("data", None, "tensor"))
    x = jnp.ones((8, 6, 10), jnp.float32)
    return np.asarray(jax.jit(lambda x: dropout(x, 0.3, row_keys(jax.random.key(0), 8)), out_shardings=sharding)(x)).ravel().tolist()


def message(mesh: MeshConfig, batch_size: int) -> str:
    try:
        four(mesh, batch_size)
    except InputError as error:
        return str(error)
    return ""


def main() -> None:
    meshes = {"4,1,1": (4, 1, 1), "2,2,1": (2, 2, 1), "1,2,2": (1, 2, 2)}
    built = {name: four(MeshConfig(*axes), 8) for name, axes in meshes.items()}
    found = {"one": ten_steps(tiny.one_device_mesh(), 1)}
    found |= {name: ten_steps(mesh, 1) for name, mesh in built.items()}
    all_axes = make_mesh(MeshConfig(2, 2, 2), 8)
    found |= {"2,2,2": ten_steps(all_axes, 1), "2,2,2 twice": ten_steps(all_axes, 2)}
    found["2,2,1 twice"] = ten_steps(built["2,2,1"], 2)
    odd = tree_shardings({"embeddings": {"tokens": jax.ShapeDtypeStruct((99, 32), jnp.float32)}}, built["1,2,2"])
    print(
        json.dumps(
            {
                "runs": found,
                "dropout": {name: dropout_on(mesh) for name, mesh in {"one": tiny.one_device_mesh(), **built}.items()},
                "sent": {rounds: sent_by_a_device(built["4,1,1"], rounds) for rounds in (1, 4)},
                "odd vocabulary": list(odd["embeddings"]["tokens"].shard_shape((99, 32))),
                "left over": dict(four(MeshConfig(tensor=2), 8).shape),
                "product": message(MeshConfig(data=3), 8),
                "indivisible": message(MeshConfig(fsdp=3), 8),
                "batch": message(MeshConfig(data=2, fsdp=2), 6),
            }
        )
    )


if __name__ == "__main__":
    main()
