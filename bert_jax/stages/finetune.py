"""Fine-tuning: trains a task's model on labeled texts, starting from a pre-trained encoder, and predicts the test set."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import FinetuneConfig, RunConfig
from bert_jax.data.labelled import Labelled, LabelledExamples
from bert_jax.data.labelled_batches import LabelledBatches, labelled_batches, labelled_evaluation
from bert_jax.data.reader import Reader
from bert_jax.errors import InputError
from bert_jax.model import directory as model_directory
from bert_jax.model.bert import SHARED_PARAMETERS
from bert_jax.model.directory import ModelDescription
from bert_jax.model.resolution import resolve_compute
from bert_jax.runtime.device_memory import memory_advice
from bert_jax.stages import outputs
from bert_jax.stages.memory import finetuning_advice
from bert_jax.tasks import find
from bert_jax.tasks.base import FinetuningTask, Scorer, Task, Tuned
from bert_jax.tasks.stored import build
from bert_jax.training import lora
from bert_jax.training.augmentation import make_augmentation
from bert_jax.training.checkpoints.loading import load_parameters
from bert_jax.training.checkpoints.verification import steps_in
from bert_jax.training.loop import HostBatch, Job, train
from bert_jax.training.optimizer import learning_rate_schedule, make_optimizer
from bert_jax.training.sharding import make_mesh, place_batch, platform, replicated
from bert_jax.training.state import abstract_state, create_state

PREDICTIONS = "predictions.jsonl"

_Evaluation: TypeAlias = Sequence[tuple[HostBatch, np.ndarray]]
"""Batches, and what the outputs of each are about (`bert_jax.data.labelled_batches.EncodedExamples.rows`)."""


def finetune(
    config: RunConfig,
    directory: Path,
    labelled: Labelled,
    encoder: ModelDescription,
    tokenizer: Reader,
    pretrained: Path | None,
    tasks: Sequence[Task] = (),
) -> dict[str, Any]:
    """Train a model of the task in `directory`, or resume its training, and evaluate the best checkpoint on the test set.

    The prediction for every test example is written to `directory/predictions.jsonl`.

    Args:
        config: the configuration of the run, with validated task options.
        directory: the directory of the stage.
        labelled: the labeled examples.
        encoder: the description of the model that provides the encoder.
        tokenizer: the vocabulary that encodes the inputs.
        pretrained: the model directory to load the encoder's parameters from; None to initialize them randomly.
        tasks: tasks that are not part of this package.

    Returns:
        The metrics of the stage. If the stage is already finished, they are returned immediately.

    Raises:
        InputError: rows are longer than the encoder's position table, the encoder lacks a head that the task needs, pairs are given
            for an encoder with one segment type, or the mesh or a checkpoint does not fit.
        TrainingError, Interrupted: see `bert_jax.training.loop.train`.
    """
    if result := model_directory.finished(directory):
        return result
    stage = config.finetune
    assert stage is not None
    task = find(stage.task.name, tasks)
    assert isinstance(task, FinetuningTask)
    train_examples, together = task.inputs(labelled.train)
    _check(stage, task, train_examples, encoder, pretrained)
    mesh = make_mesh(config.mesh, stage.batch_size)
    description = task.description(stage, encoder, labelled.label_names)
    if jax.process_index() == 0:
        model_directory.write(directory, description, tokenizer)
    compute = resolve_compute(config.compute, encoder.encoder, [stage.length], platform(mesh))
    model = build(description, tokenizer.vocab_size, compute, stage.dropout, tasks)
    batches = labelled_batches(
        train_examples, tokenizer, stage.length, stage.examples_per_row, stage.packing, stage.batch_size, config.seed, stage.epochs,
        task.kind, jax.process_index(), jax.process_count(), task.encode, together,
    )  # fmt: skip
    if jax.process_index() == 0:
        about_encoder = task.encoder_remarks(stage.task, encoder) if pretrained else ()
        for remark in (*about_encoder, *remarks(stage, batches.steps, batches.filling_examples)):
            print(remark)
    start = partial(_warm_start, pretrained, encoder, tokenizer, tasks) if pretrained else None
    job = _job(config, stage, task, directory, labelled, tokenizer, description, model, mesh, start, batches)
    # Before training, so that an input that cannot be read is found now.
    test = _evaluation(task, labelled.test, tokenizer, stage)
    with memory_advice("fine-tuning", finetuning_advice(stage, compute, task.memory_advice(stage))):
        try:
            train(job)
        finally:
            batches.close()
        result = _score(job, task, model, labelled, tokenizer, test, stage)
    result |= {"truncated_texts": batches.truncated, "duplicates_left_out": labelled.duplicates, "overlaps": labelled.overlaps}
    if labelled.notes:
        result["notes"] = labelled.notes
    result |= {"nouns": tokenizer.nouns._asdict()}
    result |= task.data_fields(labelled)
    if jax.process_index() == 0:
        model_directory.finish(directory, result)
    return result


def remarks(stage: FinetuneConfig, steps: int, filling_examples: int) -> Iterator[str]:
    """Yield what may be worth changing in the configuration of a stage of so many steps; see `LabelledBatches` for the last argument."""
    if filling_examples:
        yield (
            f"Rows are {stage.examples_per_row / filling_examples:.0%} full, since a row holds at most {stage.examples_per_row} examples. "
            f"--config.finetune.examples_per_row={filling_examples} fills them."
        )
    # The first evaluation is the best one so far, and the last step needs no early end.
    if stage.patience and (stage.patience + 1) * stage.loop.evaluate_every >= steps:
        yield (
            f"finetune.patience={stage.patience} cannot end these {steps:,} steps early, with an evaluation every "
            f"{stage.loop.evaluate_every:,}: lower --config.finetune.loop.evaluate_every."
        )


def _check(
    stage: FinetuneConfig, task: FinetuningTask[Any], train: LabelledExamples, encoder: ModelDescription, pretrained: Path | None
) -> None:
    if stage.length > encoder.encoder.max_positions:
        raise InputError(
            f"finetune.length={stage.length} exceeds the {encoder.encoder.max_positions} positions of the encoder in {pretrained}. "
            f"Set --config.finetune.length to at most {encoder.encoder.max_positions}."
        )
    if stage.optimizer.frozen_layers > encoder.encoder.layers:
        raise InputError(
            f"finetune.optimizer.frozen_layers={stage.optimizer.frozen_layers} exceeds the {encoder.encoder.layers} layers of the encoder. "
            f"Set --config.finetune.optimizer.frozen_layers to at most {encoder.encoder.layers}."
        )
    if stage.lora.rank:
        lora.check_rank(stage.lora, encoder.encoder)
    for need in task.needs(stage.task):
        if pretrained and need.part in encoder.absent:
            raise InputError(
                f"The model in {pretrained} has no {need.part}, which {need.option} needs. Set {need.otherwise}, or import the model with "
                "--initialize-missing."
            )
    if train.pairs is not None and encoder.encoder.segment_types == 1:
        raise InputError(
            f"The encoder{f' in {pretrained}' if pretrained else ''} has one segment type (encoder.segment_types=1), so it cannot "
            "distinguish the text of finetune.data.text_pair from the first text. Start from a model with two segment types, or put both "
            "texts in one column and leave text_pair empty."
        )


def _job(
    config: RunConfig, stage: FinetuneConfig, task: FinetuningTask[Any], directory: Path, labelled: Labelled, tokenizer: Reader,
    description: ModelDescription, model: Any, mesh: Mesh, warm_start: Callable[[Any], Any] | None, batches: LabelledBatches,
) -> Job:  # fmt: skip
    dev = [_own_rows(batch) for batch, _ in _evaluation(task, labelled.dev, tokenizer, stage)]

    def init() -> Any:
        row = {name: value[:1] for name, value in dev[0].items()}
        params = task.initialized(model.init(jax.random.key(config.seed), row)["params"], labelled.train)
        return lora.add_factors(params, stage.lora, jax.random.key(config.seed)) if stage.lora.rank else params

    return Job(
        name=directory.name.replace("_", " "),
        directory=directory,
        objective=task.objective(
            model, stage.task, labelled, make_augmentation(stage.augmentation, tokenizer.units, tokenizer.grid)
        ),
        init=init,
        warm_start=warm_start,
        optimizer=make_optimizer(stage.optimizer, batches.steps),
        schedule=learning_rate_schedule(stage.optimizer, batches.steps),
        mesh=mesh,
        seed=config.seed,
        steps=batches.steps,
        microbatches=1,
        batches=batches,
        evaluation_batches=dev,
        score=task.score,
        loop=stage.loop,
        data_fingerprint=labelled.fingerprint,
        skip_above=stage.optimizer.skip_above,
        ema=stage.optimizer.ema,
        patience=stage.patience,
        # LoRA does not compute the gradients of most parameters, so the FLOPs of a usual step would overstate the utilization.
        flops=None if stage.lora.rank else task.flops(description, stage),
        model=model_directory.identity(description, tokenizer),
    )


def _warm_start(pretrained: Path, encoder: ModelDescription, tokenizer: Reader, tasks: Sequence[Task], params: Any) -> Any:
    shared = {name: params[name] for name in SHARED_PARAMETERS if name in params}
    identity = model_directory.identity(encoder, tokenizer)
    return params | load_parameters(pretrained, shared, identity, find(encoder.kind, tasks).best)


def _evaluation(task: FinetuningTask[Any], examples: LabelledExamples, tokenizer: Reader, stage: FinetuneConfig) -> _Evaluation:
    inputs, together = task.inputs(examples)
    return labelled_evaluation(
        inputs, tokenizer, stage.length, stage.examples_per_row, stage.packing, stage.batch_size, task.encode, together
    )


def _own_rows(batch: HostBatch) -> HostBatch:
    """Return the rows of a global batch that belong to this process."""
    rows = len(batch["tokens"]) // jax.process_count()
    start = jax.process_index() * rows
    return {name: value[start : start + rows] for name, value in batch.items()}


def _score(
    job: Job, task: FinetuningTask[Any], model: Any, labelled: Labelled, tokenizer: Reader, test: _Evaluation, stage: FinetuneConfig
) -> dict[str, Any]:
    state = abstract_state(create_state(job.init, job.optimizer, job.mesh))
    params = load_parameters(job.directory, state.base, job.model, task.best)
    scorer = task.scorer(labelled, stage.task)
    predict = jax.jit(partial(task.predict, model), out_shardings=replicated(job.mesh))

    def predicted(batches: _Evaluation) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch, indices in batches:
            found = np.asarray(predict(params, place_batch(_own_rows(batch), job.mesh)))
            yield indices[indices >= 0], found[indices >= 0]

    def gathered(examples: LabelledExamples, batches: _Evaluation) -> tuple[np.ndarray, np.ndarray]:
        items, found = map(np.concatenate, zip(*predicted(batches), strict=True))
        return task.gathered(stage, examples, tokenizer, items, found)

    held_out = None
    if isinstance(scorer, Tuned):
        own, found = gathered(labelled.dev, _evaluation(task, labelled.dev, tokenizer, stage))
        held_out = labelled.dev.targets[own], found
        scorer.tune(*held_out)
    tested = gathered(labelled.test, test)
    scorer.add(*tested)
    if jax.process_index() == 0:
        write_predictions(job.directory / PREDICTIONS, labelled.test, scorer)
        if stage.data.folds:
            outputs.keep(job.directory, tested, held_out)
    steps = steps_in(job.directory / "checkpoints")[-1]  # fewer than planned if training ended early
    return {"train_examples": len(labelled.train), "test_examples": len(labelled.test), **scorer.result(), "steps": steps}


def write_predictions(path: Path, examples: LabelledExamples, scorer: Scorer) -> None:
    """Write the scorer's line for each example, after its text."""
    pairs: Sequence[Any] = examples.pairs or [None] * len(examples)
    with path.open("w", encoding="utf-8") as file:
        for i, (text, pair) in enumerate(zip(examples.texts, pairs, strict=True)):
            line: dict[str, Any] = {"text": str(text)} | ({"text_pair": str(pair)} if pair is not None else {})
            file.write(json.dumps(line | scorer.line(i), ensure_ascii=False) + "\n")
