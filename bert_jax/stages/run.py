"""A complete run in a workdir: vocabulary, records, pre-training, fine-tuning and results."""

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import jax
import numpy as np

from bert_jax.config import RunConfig, to_dict
from bert_jax.config.overrides import differences, from_dict
from bert_jax.data.folds import Folds, load_folds
from bert_jax.data.labelled import Labelled, load_labelled
from bert_jax.data.reader import Reader
from bert_jax.data.records.corpora import Prepared
from bert_jax.data.records.held_out import documents
from bert_jax.data.records.source import Raw
from bert_jax.errors import InputError, as_typed
from bert_jax.modalities import find
from bert_jax.modalities.base import Modality
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import InputDescription, ModelDescription, read_json, write_json
from bert_jax.report import write_report
from bert_jax.runtime.processes import on_first_process, wait_for_all
from bert_jax.stages.adapt import TrainingTexts, adaptation
from bert_jax.stages.finetune import finetune
from bert_jax.stages.pretrain import pretrain, pretrained_description
from bert_jax.stages.repeated import Repeated, compared_with_scratch
from bert_jax.stages.showcase import show_examples, summary_text
from bert_jax.storage.files import SEAL, check_seal, disk_folder, is_whole, made_whole, on_disk, only_writer, resolve_path, seal
from bert_jax.tasks import checked, choices, finetuning
from bert_jax.tasks.base import Task
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.training.checkpoints.saving import check_name
from bert_jax.training.host_memory import tune_malloc

CONFIG, COMMAND, SUMMARY, EXAMPLES = "config.json", "command.txt", "summary.json", "examples.json"

# Options that may change when a run is resumed: they affect how it is computed or monitored, not what is learned.
_FREE_TO_CHANGE = (
    "compute.", "mesh.", "pretrain.loop.", "pretrain.gradient_accumulation_steps", "pretrain.long_rows.gradient_accumulation_steps",
    "adapt.loop.", "adapt.gradient_accumulation_steps", "adapt.long_rows.gradient_accumulation_steps", "finetune.loop.", "corpus.data_dir",
)  # fmt: skip


def run(
    config: RunConfig,
    workdir: str | Path,
    command: str = "",
    tasks: Sequence[Task] = (),
    modalities: Sequence[Modality[Any, Any]] = (),
) -> None:
    """Run every stage of a configuration in `workdir`, resuming from what is already there, and print the results.

    Args:
        config: the configuration of the run.
        workdir: the directory that holds all files of the run.
        command: the command line that started the run, stored in the workdir as a record of how the model was made.
        tasks: fine-tuning tasks that are not part of this package.
        modalities: modalities that are not part of this package, if the corpus is of one.

    Raises:
        InputError: the configuration, the text or the workdir has a problem that the user can fix.
        TrainingError, Interrupted: see `bert_jax.training.loop.train`.
    """
    workdir, config = resolve_path(workdir), checked(config, tasks, modalities)
    modality = find(config.corpus.modality, modalities)
    check_name(workdir)
    tune_malloc()
    if config.compute.cpu_devices > 1:
        jax.config.update("jax_num_cpu_devices", config.compute.cpu_devices)
    if (workdir / SUMMARY).exists() and (workdir / SEAL).exists():
        claim_workdir(config, workdir, tasks=tasks, modalities=modalities)
        check_seal(workdir, made_anew_without=workdir / SUMMARY)
        print(as_typed(f"The run in {workdir} is done. To run it again, remove that directory or specify another --workdir."))
    else:
        with ExitStack() as held:
            on_first_process(lambda: held.enter_context(only_writer(workdir)))
            claim_workdir(config, workdir, command, tasks, modalities)
            _run_stages(_with_pretrained_encoder(config, modality), workdir, tasks, modality)
    if jax.process_index() == 0:
        print(as_typed(summary_text(config, workdir, read_json(workdir / SUMMARY), read_json(workdir / EXAMPLES), tasks)))


def _run_stages(config: RunConfig, workdir: Path, tasks: Sequence[Task], modality: Modality[Any, Any]) -> None:
    summary: dict[str, Any] = {}
    if config.finetune and config.finetune.checkpoint:
        checkpoint = resolve_path(config.finetune.checkpoint)
        model_directory.check_modality(checkpoint, model_directory.read(checkpoint, [modality])[0], modality)
    labelled, folds = _labelled(config, tasks, modality) if config.finetune else (None, None)
    texts = TrainingTexts(labelled.train, modality) if config.adapt and labelled else None
    if config.pretrain:
        reader, prepared = prepare_data(config, workdir, modality)
        summary["pretrain"] = pretrain(config, workdir / "pretrain", modality, reader, prepared)
    if texts:
        adapting, reader, prepared = prepare_adaptation(config, workdir, modality, texts)
        summary["adapt"] = pretrain(adapting, workdir / "adapt", modality, reader, prepared)
    if config.finetune and labelled:
        summary["finetune"] = _finetune(config, workdir, labelled, folds, tasks, modality)
    if jax.process_index() == 0:
        write_json(workdir / EXAMPLES, show_examples(config, workdir, tasks, modality, labelled))
        write_json(workdir / SUMMARY, summary)
        write_report(workdir, tasks)
        seal(workdir)
    wait_for_all("run done")


def _pretrained(config: RunConfig, workdir: Path) -> Path:
    """Return the directory of the pre-trained model."""
    return resolve_path(config.finetune.checkpoint) if config.finetune and config.finetune.checkpoint else workdir / "pretrain"


def _finetune(
    config: RunConfig, workdir: Path, labelled: Labelled, folds: Folds | None, tasks: Sequence[Task], modality: Modality[Any, Any]
) -> dict[str, Any]:
    stage = config.finetune
    assert stage is not None
    pretrained = workdir / "adapt" if config.adapt else _pretrained(config, workdir)
    reader: Any
    if stage.from_scratch and not config.pretrain:
        reader = make_vocabulary(config, workdir, modality)
        encoder = ModelDescription(PRETRAINING.kind, config.encoder, stage.length, input=InputDescription.of(modality, reader))
        pretrained_or_none = None
    else:
        encoder, reader = model_directory.read(pretrained, [modality])
        pretrained_or_none = None if stage.from_scratch else pretrained
    task = finetuning(stage.task, tasks)
    repeated = Repeated(config, task, labelled, folds)
    train = partial(finetune, encoder=encoder, tokenizer=reader, tasks=tasks)
    result = repeated.finetune(workdir / "finetune", partial(train, pretrained=pretrained_or_none))
    if stage.compare_from_scratch and not stage.from_scratch:
        scratch = repeated.finetune(workdir / "finetune_from_scratch", partial(train, pretrained=None), final=False)
        result = compared_with_scratch(result, scratch, task.scores)
    if stage.compare_linear:
        parts = [fold.labelled for fold in folds.parts] if folds else [labelled]
        linear = [task.linear_scores(part, partial(plain_features, part, modality, reader)) for part in parts]
        known = [score for score in linear[0] if all(score in one for one in linear)]
        result = result | {f"linear_{score}": fmean(one[score] for one in linear) for score in known}
    return result


def plain_features(labelled: Labelled, modality: Modality[Any, Any], reader: Reader) -> tuple[Any, Any]:
    """Return the features of the training and the test examples for a linear model, those of both texts of pairs side by side."""
    import scipy.sparse

    train, test = labelled.train, labelled.test
    first = modality.features(reader, train.texts, test.texts)
    if train.pairs is None or test.pairs is None:
        return first
    second = modality.features(reader, train.pairs, test.pairs)
    stack = np.hstack if isinstance(first[0], np.ndarray) else scipy.sparse.hstack
    return stack([first[0], second[0]]), stack([first[1], second[1]])


def _labelled(config: RunConfig, tasks: Sequence[Task], modality: Modality[Any, Any]) -> tuple[Labelled, Folds | None]:
    """Load the labeled examples, and warn about anything unusual in it."""
    assert config.finetune is not None
    task, data, options = finetuning(config.finetune.task, tasks), config.finetune.data, config.finetune.task
    source = (data, task.labels(options), config.seed, modality.tables, task.read_rows(options) or modality.read_rows)
    folds = load_folds(*source) if data.folds else None
    labelled = folds.whole if folds else load_labelled(*source)
    if jax.process_index() == 0:
        _warn_about_labels(labelled, (*labelled.notes, *task.remarks(labelled)), modality.nouns.input)
    return labelled, folds


def _warn_about_labels(labelled: Labelled, remarks: Sequence[str], noun: str) -> None:
    for remark in remarks:
        print(f"Warning: {remark}")
    if labelled.duplicates:
        print(f"Excluded {labelled.duplicates:,} training examples: repeated {noun}s, or {noun}s with conflicting labels.")
    for split, count in labelled.overlaps.items():
        if count:
            print(
                f"Warning: {count:,} {split} examples also appear in the training examples, so the score partly measures memorization. "
                "Set --config.finetune.data.leaks=leave_out to exclude them from training."
            )


def _with_pretrained_encoder(config: RunConfig, modality: Modality[Any, Any]) -> RunConfig:
    """Return the configuration with the encoder of the checkpoint that pre-training continues from, if there is one."""
    if not (config.pretrain and config.pretrain.checkpoint):
        return config
    encoder = pretrained_description(resolve_path(config.pretrain.checkpoint), config.pretrain, modality).encoder
    return dataclasses.replace(config, encoder=encoder)


def claim_workdir(
    config: RunConfig,
    workdir: Path,
    command: str = "",
    tasks: Sequence[Task] = (),
    modalities: Sequence[Modality[Any, Any]] = (),
) -> None:
    """Write the configuration (and the command) to a new workdir, or check that an existing workdir has the same configuration.

    Raises:
        InputError: the workdir has a different configuration; the message names the fields that differ.
    """
    path = workdir / CONFIG
    if path.exists():
        before = from_dict(RunConfig, read_json(path), choices(tasks, modalities))
        changed = [line for line in differences(before, config) if not line.startswith(_FREE_TO_CHANGE)]
        if changed:
            raise InputError(
                f"The workdir {workdir} belongs to another configuration (workdir -> this command): {'; '.join(changed)}. "
                "Specify another --workdir, or restore the values that it was started with."
            )
    elif jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        if command:
            (workdir / COMMAND).write_text(command + "\n", encoding="utf-8")
        write_json(path, to_dict(config))
    wait_for_all("workdir claimed")


def prepare_adaptation(
    config: RunConfig, workdir: Path, modality: Modality[Any, Any], texts: TrainingTexts
) -> tuple[RunConfig, Reader, Prepared]:
    """Return the adapt stage as a run of its own, its vocabulary, and its texts as records, creating them if they do not exist."""
    adapting = _with_pretrained_encoder(adaptation(config, _pretrained(config, workdir)), modality)
    return adapting, *prepare_data(adapting, workdir, modality, raw=texts)


def prepare_data(
    config: RunConfig,
    workdir: Path,
    modality: Modality[Any, Any],
    beam: Sequence[str] | None = None,
    raw: Raw[Any, Any] | None = None,
) -> tuple[Reader, Prepared]:
    """Return the vocabulary and the records of a run, creating them if they do not exist; `beam` and `raw` as in `Modality.prepare`."""
    reader = make_vocabulary(config, workdir, modality)
    given = config.corpus.data_dir
    # ArrayRecord reads only from disks, so if the workdir is in a bucket, every host creates its own records.
    data_dir = on_disk(given, "corpus.data_dir") if given else disk_folder(workdir / "data")
    if not given and data_dir != workdir / "data" and jax.process_index() == 0:
        notice = f"Each host stores the records in its own {data_dir}; set --config.corpus.data_dir to store them elsewhere."
        print(as_typed(notice), file=sys.stderr)
    prepared: list[Prepared] = []
    on_first_process(lambda: prepared.append(modality.prepare(config.corpus, reader, data_dir, beam=beam, raw=raw)))
    return reader, prepared[0] if prepared else modality.prepare(config.corpus, reader, data_dir, show_progress=False, raw=raw)


def make_vocabulary(config: RunConfig, workdir: Path, modality: Modality[Any, Any]) -> Reader:
    """Return the run's vocabulary.

    It is that of `pretrain.checkpoint` or `vocabulary.path`, or else it is trained once on the corpus and stored in the workdir.
    """
    vocabulary = config.vocabulary
    if config.pretrain and config.pretrain.checkpoint:
        return cast(Reader, model_directory.read(resolve_path(config.pretrain.checkpoint), [modality])[1])
    if vocabulary.path:
        return modality.load_given(vocabulary)
    directory = workdir / "vocabulary"

    def train_once() -> None:
        if is_whole(directory):
            return
        training = documents(modality, config.corpus, "train")
        with made_whole(directory) as unfinished:
            modality.learn(training, config.corpus, vocabulary).save(unfinished)

    on_first_process(train_once)
    check_seal(directory)
    return modality.load(directory)
