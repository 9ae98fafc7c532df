"""Masking, augmentation and training steps of units on meshes of four fake devices, beside one device. Prints JSON."""

import dataclasses
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
from test_augmentation import packed, pictures
from test_unit_embeddings import IMAGES, PATCHES, images, parameters

from bert_jax.config import AugmentationConfig, MaskingConfig, MeshConfig, OptimizerConfig
from bert_jax.model.bert import PretrainingModel
from bert_jax.model.per_device import ROWS
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.training.augmentation import make_augmentation
from bert_jax.training.compiled import collectives
from bert_jax.training.masking import mask_tokens
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.sharding import make_mesh, place_batch
from bert_jax.training.state import create_state
from bert_jax.training.steps import compile_steps

ENCODER = dataclasses.replace(tiny.ENCODER, layers=1, max_positions=64)
STEPS = 3


def meshes() -> dict[str, Mesh]:
    sizes = {"2,1,1": (2, 1, 1), "1,2,1": (1, 2, 1), "1,1,2": (1, 1, 2), "2,2,1": (2, 2, 1)}
    return {name: make_mesh(MeshConfig(*axes), 8, jax.devices()[: int(np.prod(axes))]) for name, axes in sizes.items()}


def masked(batch: Any) -> Any:
    config, ordinary = MaskingConfig(rate=0.3, random_share=0.2), jnp.array(tiny.ORDINARY_IDS, jnp.int32)
    arguments = (tiny.SPECIAL_IDS, tiny.MASK, ordinary, config)
    return mask_tokens(jax.random.key(0), batch["tokens"], batch["word_starts"], *arguments, batch.get("units"))


def compared(function: Callable[[Any], Any], batch: dict[str, np.ndarray]) -> dict[str, Any]:
    """Whether four devices that share the rows compute what one does, and what they send each other."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2), len(batch["tokens"]), jax.devices()[:4])
    sharding = NamedSharding(mesh, ROWS)
    program = jax.jit(function, in_shardings=sharding, out_shardings=sharding).lower(batch).compile()
    found, wanted = program(place_batch(batch, mesh)), jax.jit(function)(batch)
    equal = jax.tree.map(lambda one, other: np.array_equal(one, other), found, wanted)
    sent = {one.kind: one.sent_bytes for one in collectives(program.as_text())}
    return {"equal": all(jax.tree.leaves(equal)), "sent": sent}


def steps(mesh: Mesh) -> dict[str, Any]:
    """Losses of some steps, the change of each parameter, and the shard of the projection."""
    model = PretrainingModel(tiny.VOCABULARY, ENCODER, tiny.COMPUTE, input=IMAGES)
    task = PretrainingObjective(model, tiny.MASKING, tiny.SPECIAL_IDS, tiny.MASK, tiny.ORDINARY_IDS)
    optimizer = tiny.lenient(make_optimizer(OptimizerConfig(learning_rate=5e-3), 10))
    state = create_state(lambda: jax.tree.map(jnp.asarray, parameters(model)), optimizer, mesh)
    train, _ = compile_steps(task, optimizer, state, mesh, seed=0)
    batch = {name: value for name, value in images(16).items() if not name.startswith("masked_")}
    losses = []
    for _ in range(STEPS):
        state, metrics = train(state, place_batch(batch, mesh))
        losses.append([float(metrics[name].total) for name in ("mlm_loss", "gradient_norm")])
    embeddings = state.params["embeddings"]
    kernel = embeddings["units"]["kernel"]
    return {
        "losses": losses,
        "shard": list(kernel.addressable_shards[0].data.shape),
        "kernel": np.asarray(kernel).tolist(),
        "special": np.asarray(embeddings["tokens"])[:5].tolist(),
    }


def main() -> None:
    augment = make_augmentation(AugmentationConfig(flip=True, shift=3), PATCHES.units, PATCHES.grid)
    assert augment is not None
    print(
        json.dumps(
            {
                "masking 32": compared(masked, images(64)),
                "masking 32 without units": compared(masked, {name: value for name, value in images(64).items() if name != "units"}),
                "masking 16": compared(masked, images(32)),
                "augmentation": compared(
                    partial(augment, key=jax.random.key(0)), packed(pictures(PATCHES, 64), length=48, per_row=2).batch
                ),
                "steps": {name: steps(mesh) for name, mesh in {"one": tiny.one_device_mesh(), **meshes()}.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
