"""Shows the batches of skipped updates, by reading the same rows from the data again."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bert_jax.config import AdaptConfig, PretrainConfig, RunConfig
from bert_jax.config.overrides import from_dict
from bert_jax.data.labelled import load_labelled
from bert_jax.data.labelled_batches import labelled_batches
from bert_jax.data.pipeline import Batches, pretraining_batches
from bert_jax.data.reader import Reader
from bert_jax.data.records.corpora import Prepared
from bert_jax.modalities import find
from bert_jax.modalities.base import Modality
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import read_json
from bert_jax.stages.adapt import TrainingTexts
from bert_jax.stages.pretrain import stage_parts
from bert_jax.stages.run import CONFIG, prepare_adaptation, prepare_data
from bert_jax.tasks import choices, finetuning


def describe_skipped(path: Path, modalities: Sequence[Modality[Any, Any]] = ()) -> Iterator[str]:
    """Yield lines of text that describe each skipped step in a stage's `skipped.json`, with the examples of each row before masking.

    Args:
        path: the path of the `skipped.json` file.
        modalities: modalities that are not part of this package, if the run used one.

    Raises:
        InputError: the file or the run's configuration is damaged, or the data has changed.
    """
    report: Any = read_json(path)
    config = from_dict(RunConfig, read_json(path.parent.parent / CONFIG), choices(modalities=modalities))
    parts, reader = _batches(config, path.parent, find(config.corpus.modality, modalities))
    try:
        for skipped in report["skipped"]:
            step = skipped.pop("step")
            batches = next(batches for last, batches in parts if step <= last)
            batches.set_state(skipped.pop("batch"))
            batch = next(batches)
            numbers = (f"{name} {'not finite' if value is None else f'{value:.4g}'}" for name, value in skipped.items())
            yield f"step {step}  {'  '.join(numbers)}"
            for row, (tokens, examples) in enumerate(zip(batch["tokens"], batch["example_ids"], strict=True)):
                for example in range(1, int(examples.max()) + 1):
                    yield f"  row {row}  {reader.decode(tokens[examples == example])}"
    finally:
        for _, batches in parts:
            batches.close()


def _batches(config: RunConfig, directory: Path, modality: Modality[Any, Any]) -> tuple[list[tuple[float, Batches]], Reader]:
    """Return the global batches of a stage, as a single process reads them, with the last step of each batch shape; and the reader."""
    if directory.name == PretrainConfig.NAME:
        return _pretraining_batches(config, *prepare_data(config, directory.parent, modality))
    stage = config.finetune
    assert stage is not None
    _, tokenizer = model_directory.read(directory, [modality])
    task = finetuning(stage.task)
    read_rows = task.read_rows(stage.task) or modality.read_rows
    labelled = load_labelled(stage.data, task.labels(stage.task), config.seed, modality.tables, read_rows)
    if directory.name == AdaptConfig.NAME:
        return _pretraining_batches(*prepare_adaptation(config, directory.parent, modality, TrainingTexts(labelled.train, modality)))
    train, together = task.inputs(labelled.train)
    examples = labelled_batches(
        train, tokenizer, stage.length, stage.examples_per_row, stage.packing, stage.batch_size, config.seed, stage.epochs,
        task.kind, encode=task.encode, together=together,
    )  # fmt: skip
    return [(examples.steps, examples)], tokenizer


def _pretraining_batches(config: RunConfig, reader: Reader, prepared: Prepared) -> tuple[list[tuple[float, Batches]], Reader]:
    assert config.pretrain is not None
    parts = stage_parts(config.pretrain)
    batches = [pretraining_batches(prepared.train, reader, part.rows, part.batch_size, config.seed) for part in parts]
    return list(zip((parts[0].steps, config.pretrain.steps), batches, strict=False)), reader
