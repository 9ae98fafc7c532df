"""What the tests of model and training share: a model of a few thousand parameters, documents in memory, a job."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from bert_jax.config import ComputeConfig, EncoderConfig, LoopConfig, LoraConfig, MaskingConfig, OptimizerConfig, RowsConfig
from bert_jax.data.pipeline import evaluation_batches, pretraining_batches
from bert_jax.data.records.record import Document
from bert_jax.model.batch import zero_row
from bert_jax.model.bert import PretrainingModel
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.training.loop import Job
from bert_jax.training.lora import add_factors
from bert_jax.training.optimizer import learning_rate_schedule, make_optimizer
from bert_jax.training.sharding import AXES

# Longer forms of what the other tests look at too, such as kills at more moments.
long = pytest.mark.skipif("LONG_TESTS" not in os.environ, reason="takes minutes: LONG_TESTS=1 pytest")


VOCABULARY = 100
PAD, UNK, CLS, SEP, MASK = SPECIAL_IDS = (0, 1, 2, 3, 4)
ORDINARY_IDS = tuple(range(5, VOCABULARY))
ENCODER = EncoderConfig(
    layers=2, width=32, heads=4, feed_forward=64, max_positions=40, dropout=0.0, attention_dropout=0.0, initializer_range=0.1
)
WITH_DROPOUT = dataclasses.replace(ENCODER, dropout=0.1, attention_dropout=0.1)
IN_JOBS = dataclasses.replace(WITH_DROPOUT, layers=1)
COMPUTE = ComputeConfig()
ROWS = RowsConfig(length=32, examples_per_row=3)
MASKING = MaskingConfig()


class Special:
    """The ids that rows need."""

    pad_id, cls_id, sep_id = PAD, CLS, SEP


class MemorySource:
    """Documents of made-up text: each token tends to be followed by its successor, so there is something to learn."""

    def __init__(self, documents: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._documents = [self._document(rng) for _ in range(documents)]
        self.tokens = sum(len(document.tokens) for document in self._documents)
        self.single_sentence_documents = 0

    @staticmethod
    def _document(rng: np.random.Generator) -> Document:
        lengths = rng.integers(2, 9, rng.integers(2, 9))
        count = int(lengths.sum())
        steps = np.where(rng.random(count) < 0.9, 1, rng.integers(0, len(ORDINARY_IDS), count))
        tokens = ORDINARY_IDS[0] + (rng.integers(len(ORDINARY_IDS)) + np.cumsum(steps)) % len(ORDINARY_IDS)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int32)
        word_starts = rng.random(count) < 0.6
        word_starts[starts] = True
        return Document(tokens.astype(np.uint16), starts, word_starts)

    def __len__(self) -> int:
        return len(self._documents)

    def fetch(self, indices: Sequence[int]) -> list[Document]:
        return [self._documents[i] for i in indices]


@cache
def source(documents: int = 300, seed: int = 0) -> MemorySource:
    return MemorySource(documents, seed)


def batch(rows: int = 8, seed: int = 0, length: int = ROWS.length) -> dict[str, np.ndarray]:
    """One packed pre-training batch."""
    config = dataclasses.replace(ROWS, length=length)
    batches = pretraining_batches(source(), Special, config, rows, seed)
    try:
        return next(batches)
    finally:
        batches.close()


def task(encoder: EncoderConfig = ENCODER, compute: ComputeConfig = COMPUTE, masking: MaskingConfig = MASKING) -> PretrainingObjective:
    return PretrainingObjective(PretrainingModel(VOCABULARY, encoder, compute), masking, SPECIAL_IDS, MASK, ORDINARY_IDS)


@cache
def initial_parameters(encoder: EncoderConfig = ENCODER, seed: int = 0) -> Any:
    """Random parameters as numpy arrays; biases and layer norms too, so that none of them can be forgotten unseen."""
    rng = np.random.default_rng(seed)
    model = PretrainingModel(VOCABULARY, encoder, COMPUTE)
    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), zero_row())["params"])

    def draw(path: Any, leaf: Any) -> np.ndarray:
        return np.float32(0.1) * rng.standard_normal(leaf.shape, np.float32) + np.float32(path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(draw, tree)


LORA = LoraConfig(rank=3, alpha=6.0, matrices=("query", "value", "attention_output", "feed_forward"))


@cache
def factored(encoder: EncoderConfig = ENCODER) -> Any:
    """`initial_parameters` with low-rank factors, B too at random."""
    params = add_factors(jax.tree.map(jnp.asarray, initial_parameters(encoder)), LORA, jax.random.key(3))
    rng = np.random.default_rng(5)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        return np.float32(0.1) * rng.standard_normal(leaf.shape, np.float32) if path[-1].key == "lora_b" else np.asarray(leaf)

    return jax.tree_util.tree_map_with_path(draw, params)


def lenient(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The optimizer with jax's usual promotion of types: optax does not live with the strict one of these tests."""

    def update(updates: Any, state: Any, params: Any = None, **skipping: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return optax.with_extra_args_support(optimizer).update(updates, state, params, **skipping)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def one_device_mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()[:1]).reshape(1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)


def job(
    directory: Path,
    steps: int,
    mesh: Mesh | None = None,
    *,
    task: PretrainingObjective | None = None,
    optimizer: optax.GradientTransformation | None = None,
    loop: LoopConfig | None = None,
    rows: RowsConfig = ROWS,
    batch_size: int = 8,
    microbatches: int = 1,
    ema: float = 0.0,
    fingerprint: str = "made-up text",
    wrap: Callable[[Any], Any] = lambda batches: batches,
) -> Job:
    """A pre-training job on the documents in memory."""
    task = task or globals()["task"](IN_JOBS)
    config = OptimizerConfig(learning_rate=3e-3)
    processes = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    held_out = evaluation_batches(source(40, seed=1), Special, rows, batch_size, seed=0, count=2, **processes)
    return Job(
        name="tiny",
        directory=directory,
        objective=task,
        init=lambda: jax.tree.map(jnp.asarray, initial_parameters(task.model.config)),
        warm_start=None,
        optimizer=lenient(optimizer or make_optimizer(config, steps)),
        schedule=learning_rate_schedule(config, steps),
        mesh=mesh or one_device_mesh(),
        seed=7,
        steps=steps,
        microbatches=microbatches,
        batches=wrap(pretraining_batches(source(), Special, rows, batch_size, seed=7, **processes)),
        evaluation_batches=held_out,
        score=lambda metrics: -metrics["loss"],
        loop=loop or LoopConfig(log_every=2, evaluate_every=4, save_every=3, keep=2),
        data_fingerprint=fingerprint,
        ema=ema,
    )


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Every array of a tree by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_close(found: Any, wanted: Any, tolerance: float) -> None:
    """Every array of both trees equal within `tolerance` of the largest number of the wanted array."""
    found, wanted = flat(found), flat(wanted)
    assert found.keys() == wanted.keys()
    for path, right in wanted.items():
        assert found[path].shape == right.shape, path
        scale = max(float(np.abs(right).max()), 1e-6)
        worst = float(np.abs(found[path].astype(np.float64) - right).max()) / scale
        assert worst <= tolerance, f"{path or 'array'} differs by {worst:.2e} of its largest number"


def as_jax(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value) for name, value in batch.items()}


def lowered_for_gpu(function: Callable[..., Any], *arguments: Any) -> str:
    """The program of a function for an NVIDIA GPU that need not be there."""
    triton = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    return jax.export.export(jax.jit(function), platforms=["cuda"], disabled_checks=[triton])(*arguments).mlir_module()
