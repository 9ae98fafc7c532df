"""Pre-training: trains an encoder and its two heads on prepared documents."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import EncoderConfig, PretrainConfig, RunConfig
from bert_jax.data.pipeline import Batches, evaluation_batches, pretraining_batches
from bert_jax.data.reader import Reader
from bert_jax.data.records.corpora import Prepared
from bert_jax.errors import InputError
from bert_jax.modalities.base import Modality
from bert_jax.model import directory as model_directory
from bert_jax.model.batch import zero_row
from bert_jax.model.bert import PretrainingModel
from bert_jax.model.directory import InputDescription, ModelDescription
from bert_jax.model.flops import StepFlops, training_flops
from bert_jax.model.resolution import resolve_compute
from bert_jax.runtime.device_memory import memory_advice
from bert_jax.runtime.metrics import read_metrics
from bert_jax.stages.memory import pretraining_advice
from bert_jax.storage.files import resolve_path
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.tasks.stored import build
from bert_jax.training.checkpoints.loading import load_parameters
from bert_jax.training.loop import HostBatch, Job, Phase, train
from bert_jax.training.masking import masked_slots
from bert_jax.training.optimizer import learning_rate_schedule, make_optimizer
from bert_jax.training.sharding import make_mesh, platform


def pretrain(
    config: RunConfig, directory: Path, modality: Modality[Any, Any], reader: Reader, prepared: Prepared
) -> dict[str, Any]:
    """Run the stage in `directory`, or resume it, and return its metrics. A finished stage returns immediately.

    Args:
        config: the configuration of the run.
        directory: the directory of the stage.
        modality: the modality of the corpus.
        reader: the vocabulary of the corpus.
        prepared: the corpus as records.

    Raises:
        InputError: the corpus, the mesh or a checkpoint does not fit the configuration.
        TrainingError, Interrupted: see `bert_jax.training.loop.train`.
    """
    if result := model_directory.finished(directory):
        return result
    stage = config.pretrain
    assert stage is not None
    mesh = make_mesh(config.mesh, stage.batch_size // stage.gradient_accumulation_steps)
    parts = stage_parts(stage)
    if parts[1:]:
        # Fail now rather than days into training.
        make_mesh(config.mesh, stage.long_rows.batch_size // stage.long_rows.gradient_accumulation_steps)
    spare_rows = pretrained_description(resolve_path(stage.checkpoint), stage, modality).spare_rows if stage.checkpoint else 0
    input_description = InputDescription.of(modality, reader)
    description = ModelDescription(
        PRETRAINING.kind, config.encoder, parts[-1].rows.length, stage.rows.next_sentence, spare_rows=spare_rows, input=input_description
    )
    if jax.process_index() == 0:
        model_directory.write(directory, description, reader)
    compute = resolve_compute(config.compute, config.encoder, [part.rows.length for part in parts], platform(mesh))
    model = build(description, reader.vocab_size, compute)
    objective = _objective(model, stage, reader)
    held_out = [_held_out(part, prepared, reader, config.seed) for part in parts]
    flops = [step_flops(part, model.vocab_size, config.encoder, input_description.units) for part in parts]
    batches = [pretraining_batches(prepared.train, reader, part.rows, part.batch_size, config.seed, **_processes()) for part in parts]
    job = Job(
        name=stage.NAME,
        directory=directory,
        objective=objective,
        init=lambda: model.init(jax.random.key(config.seed), zero_row(input_description.units))["params"],
        warm_start=_warm_start(resolve_path(stage.checkpoint), stage, modality) if stage.checkpoint else None,
        optimizer=make_optimizer(stage.optimizer, stage.steps),
        schedule=learning_rate_schedule(stage.optimizer, stage.steps),
        mesh=mesh,
        seed=config.seed,
        steps=stage.steps,
        microbatches=stage.gradient_accumulation_steps,
        batches=batches[0],
        evaluation_batches=held_out[0],
        score=lambda metrics: -metrics["loss"],
        loop=stage.loop,
        data_fingerprint=prepared.fingerprint,
        former_fingerprints=(prepared.path.name,),  # identifies the record version but not the text
        skip_above=stage.optimizer.skip_above,
        ema=stage.optimizer.ema,
        flops=flops[0],
        next_phase=_next_phase(parts, batches, held_out, flops),
        model=model_directory.identity(description, reader),
    )
    try:
        with memory_advice("pre-training", pretraining_advice(parts, compute, mesh)):
            real_tokens = train(job)
    finally:
        for part in batches:
            part.close()
    result = _results(directory, stage.steps, real_tokens, held_out[-1], reader)
    if jax.process_index() == 0:
        model_directory.finish(directory, result)
    return result


def _objective(model: PretrainingModel, stage: PretrainConfig, reader: Reader) -> PretrainingObjective:
    ordinary_ids = tuple(reader.ordinary_ids.tolist())
    token_characters = () if reader.token_characters is None else tuple(reader.token_characters.tolist())
    return PretrainingObjective(model, stage.masking, reader.special_ids, reader.mask_id, ordinary_ids, token_characters)


def step_flops(part: PretrainConfig, vocab_size: int, encoder: EncoderConfig, units: int) -> StepFlops:
    """Return the FLOPs of a training step; `units` as in `bert_jax.model.flops`."""
    masked, examples = masked_slots(part.rows.length, part.masking), part.rows.examples_per_row
    return training_flops(encoder, vocab_size, part.batch_size * masked, part.batch_size * examples, units)


def _next_phase(
    parts: Sequence[PretrainConfig], batches: Sequence[Batches], held_out: Sequence[list[HostBatch]], flops: Sequence[StepFlops]
) -> Phase | None:
    """Return the phase of steps on long rows, or None if there is none."""
    if not parts[1:]:
        return None
    return Phase(parts[0].steps, parts[1].gradient_accumulation_steps, batches[1], held_out[1], flops[1])


def stage_parts(stage: PretrainConfig) -> list[PretrainConfig]:
    """Split a stage into steps on short rows and steps on long rows, each with its own rows, batch size and microbatches.

    A stage without steps on long rows is the only element of the list.
    """
    long = stage.long_rows
    steps = min(round(long.share * stage.steps), stage.steps - 1)
    if not steps:
        return [stage]
    rows = dataclasses.replace(stage.rows, length=long.length, examples_per_row=long.examples_per_row)
    return [
        dataclasses.replace(stage, steps=stage.steps - steps),
        dataclasses.replace(
            stage,
            steps=steps,
            rows=rows,
            batch_size=long.batch_size,
            gradient_accumulation_steps=long.gradient_accumulation_steps,
        ),
    ]


def _processes() -> dict[str, int]:
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def _held_out(part: PretrainConfig, prepared: Prepared, reader: Reader, seed: int) -> list[HostBatch]:
    count = part.evaluation_batches
    return [*evaluation_batches(prepared.valid, reader, part.rows, part.batch_size, seed, count=count, **_processes())]


def pretrained_description(checkpoint: Path, stage: PretrainConfig, modality: Modality[Any, Any]) -> ModelDescription:
    """Return the description of the model that pre-training continues from.

    Raises:
        InputError: there is no model, it is fine-tuned or reads another modality, or it lacks a head or a second segment type that this
            configuration trains.
    """
    description, _ = model_directory.read(checkpoint, [modality])
    model_directory.check_modality(checkpoint, description, modality)
    if description.kind != PRETRAINING.kind:
        raise InputError(f"The model in {checkpoint} is a {description.kind} model, but the {stage.NAME} stage needs a pre-trained one.")
    untrained = ("pooler", "next_sentence") if stage.rows.next_sentence == "none" else ()
    missing = [part for part in description.absent if part not in untrained]
    if missing:
        raise InputError(
            f"The model in {checkpoint} has no {' and no '.join(missing)}, which this configuration trains. Import it with "
            "--initialize-missing, which initializes them randomly"
            + ("." if "masked_token" in missing else f", or set --config.{stage.NAME}.rows.next_sentence=none.")
        )
    if stage.rows.next_sentence != "none" and description.encoder.segment_types == 1:
        raise InputError(
            f"The model in {checkpoint} has one segment type (encoder.segment_types=1), so it cannot distinguish sentence B from A, as "
            f"{stage.NAME}.rows.next_sentence={stage.rows.next_sentence!r} requires. Set --config.{stage.NAME}.rows.next_sentence=none."
        )
    return description


def _warm_start(checkpoint: Path, stage: PretrainConfig, modality: Modality[Any, Any]) -> Callable[[Any], Any]:
    """Return a function that replaces initial parameters with those of the checkpoint.

    Parameters that the checkpoint lacks keep their initial values; this configuration does not train them.
    """
    description = pretrained_description(checkpoint, stage, modality)
    identity = model_directory.identity(*model_directory.read(checkpoint, [modality]))

    def warm_start(params: Any) -> Any:
        stored = {part: params[part] for part in params if part not in description.absent}
        return params | load_parameters(checkpoint, stored, identity, PRETRAINING.best)

    return warm_start


def _results(directory: Path, steps: int, real_tokens: int, held_out: Sequence[HostBatch], reader: Reader) -> dict[str, Any]:
    lines = read_metrics(directory)
    last: Mapping[str, Any] = next((line for line in reversed(lines) if line["split"] == "valid"), {})
    training = [line for line in lines if line["split"] == "train"]
    speeds = [line["real_tokens_per_second"] for line in training]
    bits = {name: last[name] for name in ("mlm_bits_per_character",) if name in last}
    return {
        "steps": steps,
        "real_tokens": real_tokens,
        "skipped_updates": training[-1].get("skipped_updates", 0) if training else 0,
        "mlm_loss": last.get("mlm_loss"),
        **bits,
        "mlm_accuracy": last.get("mlm_accuracy"),
        "mlm_accuracy_floor": most_frequent_token_share(held_out, reader),
        "nsp_accuracy": last.get("nsp_accuracy"),
        "real_tokens_per_second": statistics.median(speeds) if speeds else None,
        "nouns": reader.nouns._asdict(),
    }


def most_frequent_token_share(batches: Sequence[HostBatch], reader: Reader) -> float:
    """Return the masked-token accuracy of always predicting the most frequent ordinary token of these batches."""
    counts = np.zeros(reader.vocab_size, np.int64)
    for batch in batches:
        counts += np.bincount(batch["tokens"][batch["example_ids"] > 0], minlength=reader.vocab_size)
    counts[list(reader.special_ids)] = 0
    return float(counts.max() / max(1, counts.sum()))
