"""Fine-tuning: labelled texts and a pre-trained encoder in, a classifier and its predictions out."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bert_jax.config import FinetuneConfig, RunConfig
from bert_jax.data.labelled import ClassificationBatches, Labelled, LabelledExamples, classification_batches, classification_evaluation
from bert_jax.errors import InputError
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.model.attention import resolve_attention
from bert_jax.model.bert import SHARED_PARAMETERS, ClassificationModel
from bert_jax.model.directory import ModelDescription
from bert_jax.model.flops import classification_flops
from bert_jax.tasks.classification import ClassificationTask
from bert_jax.tasks.scores import FEW_CLASSES, LIKELIEST, likeliest_classes, score_classes
from bert_jax.training.checkpoints.loading import load_parameters
from bert_jax.training.loop import HostBatch, Job, train
from bert_jax.training.optimizer import learning_rate_schedule, make_optimizer
from bert_jax.training.sharding import make_mesh, place_batch, platform, replicated
from bert_jax.training.state import abstract_state, create_state

PREDICTIONS = "predictions.jsonl"


def finetune(
    config: RunConfig, directory: Path, labelled: Labelled, encoder: ModelDescription, tokenizer: Tokenizer, pretrained: Path | None
) -> dict[str, Any]:
    """Trains a classifier in `directory`, or goes on with it, and scores the best checkpoint by dev accuracy on the test set.

    Args:
        encoder: the architecture of the encoder.
        pretrained: the model directory that the encoder's parameters come from; None starts from random ones.

    Returns:
        The stage's figures; a finished stage returns them at once. Every test row's prediction is in
        `directory/predictions.jsonl`, with the probability of every class, or of the likeliest where there are many.

    Raises:
        InputError: rows longer than the encoder's position table, pairs for an encoder with one segment type, a mesh or a checkpoint
            that does not fit.
        TrainingError, Interrupted: see `bert_jax.training.loop.train`.
    """
    if result := model_directory.finished(directory):
        return result
    stage = config.finetune
    assert stage is not None
    if stage.length > encoder.encoder.max_positions:
        raise InputError(
            f"finetune.length={stage.length} is longer than the position table of the encoder in {pretrained}, "
            f"{encoder.encoder.max_positions}. Set --config.finetune.length to at most that."
        )
    if pretrained and stage.pooling == "cls" and "pooler" in encoder.absent:
        raise InputError(
            f"The model in {pretrained} has no pooler, through which finetune.pooling='cls' reads a text. Set "
            "--config.finetune.pooling=mean, or import the model with --initialize-missing."
        )
    if labelled.train.pairs is not None and encoder.encoder.segment_types == 1:
        raise InputError(
            f"The encoder{f' in {pretrained}' if pretrained else ''} has one segment type (encoder.segment_types=1), so it cannot tell the "
            "text of finetune.data.text_pair from the first. Start from a model with two segment types, or put both texts in one column "
            "and leave text_pair empty."
        )
    mesh = make_mesh(config.mesh, stage.batch_size)
    description = ModelDescription(
        "classification", encoder.encoder, stage.length, labels=labelled.label_names, pooling=stage.pooling, spare_rows=encoder.spare_rows
    )
    if jax.process_index() == 0:
        model_directory.write(directory, description, tokenizer)
    compute = resolve_attention(config.compute, encoder.encoder, [stage.length], platform(mesh))
    model = description.build(tokenizer.vocab_size, compute, stage.dropout)
    assert isinstance(model, ClassificationModel)
    batches = classification_batches(
        labelled.train, tokenizer, stage.length, stage.examples_per_row, stage.packing, stage.batch_size, config.seed, stage.epochs,
        jax.process_index(), jax.process_count(),
    )  # fmt: skip
    start = partial(_warm_start, pretrained, model_directory.identity(encoder, tokenizer)) if pretrained else None
    job = _job(config, stage, directory, labelled, tokenizer, description, model, mesh, start, batches)
    try:
        train(job)
    finally:
        batches.close()
    result = _score(job, model, labelled, tokenizer, stage)
    result |= {"truncated_texts": batches.truncated, "duplicates_left_out": labelled.duplicates, "overlaps": labelled.overlaps}
    if untrained := labelled.untrained:
        result["untrained_classes"] = untrained
    if jax.process_index() == 0:
        model_directory.finish(directory, result)
    return result


def _job(
    config: RunConfig, stage: FinetuneConfig, directory: Path, labelled: Labelled, tokenizer: Tokenizer,
    description: ModelDescription, model: ClassificationModel, mesh: Mesh, warm_start: Callable[[Any], Any] | None,
    batches: ClassificationBatches,
) -> Job:  # fmt: skip
    dev = [_own_rows(batch) for batch, _ in _evaluation(labelled.dev, tokenizer, stage)]

    def init() -> Any:
        row = {name: value[:1] for name, value in dev[0].items()}
        return model.init(jax.random.key(config.seed), row)["params"]

    return Job(
        name=directory.name.replace("_", " "),
        directory=directory,
        task=ClassificationTask(model),
        init=init,
        warm_start=warm_start,
        optimizer=make_optimizer(stage.optimizer, batches.steps),
        schedule=learning_rate_schedule(stage.optimizer, batches.steps),
        mesh=mesh,
        seed=config.seed,
        steps=batches.steps,
        accumulation=1,
        batches=batches,
        evaluation_batches=dev,
        score=lambda metrics: metrics["accuracy"],
        loop=stage.loop,
        data_fingerprint=labelled.fingerprint,
        skip_above=stage.optimizer.skip_above,
        ema=stage.optimizer.ema,
        flops=classification_flops(
            model.config, len(labelled.label_names), stage.batch_size, stage.length, stage.examples_per_row, stage.pooling
        ),
        model=model_directory.identity(description, tokenizer),
    )


def _warm_start(pretrained: Path, identity: Mapping[str, Any], params: Any) -> Any:
    shared = {name: params[name] for name in SHARED_PARAMETERS if name in params}
    return params | load_parameters(pretrained, shared, identity)


def _evaluation(examples: LabelledExamples, tokenizer: Tokenizer, stage: FinetuneConfig) -> Sequence[tuple[HostBatch, np.ndarray]]:
    return classification_evaluation(examples, tokenizer, stage.length, stage.examples_per_row, stage.packing, stage.batch_size)


def _own_rows(batch: HostBatch) -> HostBatch:
    """The rows of a global batch that this process places."""
    rows = len(batch["tokens"]) // jax.process_count()
    start = jax.process_index() * rows
    return {name: value[start : start + rows] for name, value in batch.items()}


def _best_parameters(job: Job) -> Any:
    state = abstract_state(create_state(job.init, job.optimizer, job.mesh))
    return load_parameters(job.directory, state.params, job.model)


def _score(job: Job, model: ClassificationModel, labelled: Labelled, tokenizer: Tokenizer, stage: FinetuneConfig) -> dict[str, Any]:
    params = _best_parameters(job)
    test = labelled.test
    predict = jax.jit(
        lambda params, batch: jax.nn.softmax(model.apply({"params": params}, batch), axis=-1), out_shardings=replicated(job.mesh)
    )
    kept = LIKELIEST if len(labelled.label_names) > FEW_CLASSES else len(labelled.label_names)
    classes, probabilities = np.zeros((len(test), kept), np.int32), np.zeros((len(test), kept), np.float32)
    for batch, indices in _evaluation(test, tokenizer, stage):
        rows = indices[indices >= 0]
        found = np.asarray(predict(params, place_batch(_own_rows(batch), job.mesh)))[indices >= 0]
        classes[rows] = likeliest_classes(found)
        probabilities[rows] = np.take_along_axis(found, classes[rows], -1)
    predicted = np.take_along_axis(classes, probabilities.argmax(-1, keepdims=True), -1)[:, 0]
    if jax.process_index() == 0:
        _write_predictions(job.directory / PREDICTIONS, test, predicted, classes, probabilities, labelled.label_names)
    figures = score_classes(test.labels, predicted, labelled.label_names)
    return {"train_examples": len(labelled.train), "test_examples": len(test), **figures, "steps": job.steps}


def _write_predictions(
    path: Path, examples: LabelledExamples, predicted: np.ndarray, classes: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    pairs: Sequence[str | None] = examples.pairs or [None] * len(examples)
    with path.open("w", encoding="utf-8") as file:
        for i, (text, pair) in enumerate(zip(examples.texts, pairs, strict=True)):
            line: dict[str, Any] = {"text": text} | ({"text_pair": pair} if pair is not None else {})
            line |= {"label": names[examples.labels[i]], "predicted": names[predicted[i]]}
            shares = zip(classes[i].tolist(), probabilities[i].tolist(), strict=True)
            line |= {"probabilities": {names[kind]: round(share, 6) for kind, share in shares}}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
