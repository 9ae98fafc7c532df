"""The contrastive loss and its gradients on 1, 2 and 4 fake devices, as JSON."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import test_contrastive as contrastive
import tiny
from jax.sharding import Mesh

from bert_jax.config import MeshConfig
from bert_jax.model.dropout import row_keys
from bert_jax.tasks.contrastive.objective import ContrastiveObjective
from bert_jax.training.compiled import collectives
from bert_jax.training.sharding import make_mesh, place_batch, replicated, tree_shardings


def measured(mesh: Mesh, objective: ContrastiveObjective, params: Any, batch: Any) -> dict[str, Any]:
    def loss(params: Any, batch: Any) -> jax.Array:
        keys = row_keys(jax.random.key(3), contrastive.BATCH)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return objective.metrics(params, batch, keys)["loss"].total / objective.normalizers(batch)["loss"]

    program = jax.jit(jax.value_and_grad(loss), out_shardings=replicated(mesh))
    placed = jax.device_put(params, tree_shardings(params, mesh)), place_batch(batch, mesh)
    compiled = program.lower(*placed).compile()
    value, gradients = jax.block_until_ready(compiled(*placed))
    del gradients["encoder"]["layers"]["key"]["bias"]  # no output depends on it, so its gradient is rounding alone
    return {
        "loss": float(value),
        "gradients": {path: np.asarray(leaf).tolist() for path, leaf in tiny.flat(gradients).items()},
        "memory": compiled.memory_analysis().temp_size_in_bytes,
        "all-reduced": sum(found.sent_bytes for found in collectives(compiled.as_text()) if found.kind == "all-reduce"),
    }


def main() -> None:
    model, params = contrastive.parameters(dropout=0.1)
    params = jax.tree.map(np.asarray, params)
    pairs = ContrastiveObjective(model, False, 0.05, symmetric=True)
    found: dict[str, Any] = {}
    own, scored = (contrastive.batch_of(contrastive.examples(11, scores=scores)) for scores in (None, range(11)))
    cases = {
        "pairs": (pairs, own),
        "scored pairs": (dataclasses.replace(pairs, scored=True), scored),
        "in microbatches": (dataclasses.replace(pairs, microbatches=2), own),
    }
    for axes in ((1, 1, 1), *{mesh for mesh, _ in contrastive.ON_MESHES}):
        mesh = make_mesh(MeshConfig(*axes), contrastive.BATCH, jax.devices()[: axes[0] * axes[1] * axes[2]])
        run = [case for case in cases if (axes, case) in contrastive.ON_MESHES or (mesh.size == 1 and case != "in microbatches")]
        found[str(axes)] = {case: measured(mesh, cases[case][0], params, cases[case][1]) for case in run}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
