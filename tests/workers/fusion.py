"""The gradient of a model with kernels and dropout on four devices, beside one; prints the largest difference."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny

from bert_jax.config import ComputeConfig, MeshConfig
from bert_jax.model.bert import PretrainingModel
from bert_jax.model.dropout import row_keys
from bert_jax.training.sharding import make_mesh, place_batch, tree_shardings

ENCODER = dataclasses.replace(tiny.WITH_DROPOUT, attention_dropout=0.0, layers=1)
COMPUTE = ComputeConfig(fused=("gelu", "norm", "qkv"), attention="flash")
params, keys = tiny.initial_parameters(ENCODER), row_keys(jax.random.key(0), 8)
batch = {name: value for name, value in tiny.batch().items() if name in ("tokens", "example_ids", "positions", "segments")}
params = {name: params[name] for name in ("embeddings", "encoder")}


def loss(params: Any, batch: Any) -> jax.Array:
    hidden, _ = PretrainingModel(tiny.VOCABULARY, ENCODER, COMPUTE).apply({"params": params}, batch, keys, method="encode")
    return jnp.sin(hidden * (batch["example_ids"] > 0)[:, :, None].astype(jnp.float32)).sum()


wanted, worst = tiny.flat(jax.device_get(jax.jit(jax.grad(loss))(params, batch))), 0.0
for axes in ({"data": 2, "tensor": 2}, {"data": 1, "fsdp": 4}):
    mesh = make_mesh(MeshConfig(**axes), 8)
    spread = jax.device_put(params, tree_shardings(params, mesh)), place_batch(batch, mesh)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        found = tiny.flat(jax.device_get(jax.jit(jax.grad(loss))(*spread)))
    worst = max(worst, *(np.abs(found[name] - x).max() / max(np.abs(x).max(), 1) for name, x in wanted.items()))
print(worst)
