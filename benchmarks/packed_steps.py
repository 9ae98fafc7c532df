"""What the benchmarks of pre-training steps time: bert_jax's step on packed rows of real text."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bert_jax.config import ComputeConfig, EncoderConfig, MaskingConfig, MeshConfig, OptimizerConfig, RowsConfig
from bert_jax.data.pipeline import pretraining_batches
from bert_jax.data.records.corpora import Prepared
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model.bert import PretrainingModel
from bert_jax.model.flops import attended_pairs, training_flops
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.training.masking import masked_slots
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.sharding import make_mesh, place_batch
from bert_jax.training.state import create_state
from bert_jax.training.steps import compile_steps

OPTIMIZER, MASKING, EXAMPLES = OptimizerConfig(), MaskingConfig(), 8
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What is compared: one model size at one row length."""

    size: str
    length: int
    rows: int
    encoder: EncoderConfig
    compute: ComputeConfig
    tokenizer: Tokenizer
    prepared: Prepared

    def batches(self, packing: bool) -> Iterator[Batch]:
        rows = RowsConfig(length=self.length, packing=packing, examples_per_row=EXAMPLES if packing else 1)
        return pretraining_batches(self.prepared.train, self.tokenizer, rows, self.rows, seed=0)

    def objective(self) -> PretrainingObjective:
        """The objective of pre-training, with its model."""
        tokenizer = self.tokenizer
        model = PretrainingModel(tokenizer.vocab_size, self.encoder, self.compute)
        ordinary = tuple(tokenizer.ordinary_ids.tolist())
        return PretrainingObjective(model, MASKING, tokenizer.special_ids, tokenizer.mask_id, ordinary)

    def masked(self, batches: Sequence[Batch]) -> list[Batch]:
        """The masked batches, which are the input of the model and of `PackedLoop`."""
        prepare = jax.jit(self.objective().prepare)
        masked = [jax.device_get(prepare(batch, jax.random.key(1))) for batch in batches]
        return [{name: np.array(field) for name, field in batch.items()} for batch in masked]  # torch warns about read-only memory

    def flops(self, batches: Sequence[Batch]) -> float:
        """The mean FLOPs of a training step on packed batches: useful work alone, as `bert_jax.model.flops` counts it."""
        slots = masked_slots(self.length, MASKING)
        step = training_flops(self.encoder, self.tokenizer.vocab_size, self.rows * slots, self.rows * EXAMPLES)
        return statistics.fmean(step.total(int((batch["example_ids"] > 0).sum()), float(attended_pairs(batch))) for batch in batches)


class Ours:
    """bert_jax's training step on a number of devices."""

    def __init__(self, setting: Setting, devices: int, first: Batch) -> None:
        self.task = setting.objective()
        self.mesh = make_mesh(MeshConfig(), setting.rows, jax.devices()[:devices])
        row = {name: value[:1] for name, value in first.items()}
        row["masked_positions"] = np.zeros((1, masked_slots(setting.length, MASKING)), np.int32)
        optimizer = make_optimizer(OPTIMIZER, steps=1000)
        self.state = create_state(lambda: self.task.model.init(jax.random.key(0), row)["params"], optimizer, self.mesh)
        self.train_step, _ = compile_steps(self.task, optimizer, self.state, self.mesh, seed=0)

    def loss(self, masked: Batch) -> float:
        metrics = jax.jit(lambda params, batch: self.task.metrics(params, batch, None))(self.state.params, masked)
        return sum(float(metrics[name].total) / float(metrics[name].count) for name in self.task.losses)

    def steps(self, batches: Iterator[Batch] | Sequence[Batch], count: int) -> int:
        """Run `count` steps as the training loop does, one dispatched ahead; return their number of real tokens."""
        tokens, pending = 0, None
        for _, batch in zip(range(count), batches, strict=False):
            self.state, metrics = self.train_step(self.state, place_batch(batch, self.mesh))
            if pending is not None:
                tokens += int(pending["real_tokens"].total)
            pending = metrics
        return tokens + int(pending["real_tokens"].total)


def timed(run: Callable[[int], Any], count: int) -> tuple[Any, float]:
    """The result of a run, and its seconds."""
    begun = time.perf_counter()
    result = run(count)
    return result, time.perf_counter() - begun
