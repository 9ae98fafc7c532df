"""A whole run in a workdir: vocabulary, records, pre-training, fine-tuning, and what it learned."""

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import jax

from bert_jax.config import RunConfig, to_dict
from bert_jax.config.overrides import differences, from_dict
from bert_jax.data.labelled import Labelled, load_labelled
from bert_jax.data.reader import Reader
from bert_jax.data.records.corpora import Prepared
from bert_jax.data.records.held_out import documents
from bert_jax.errors import InputError, as_typed
from bert_jax.modalities import find
from bert_jax.modalities.base import Modality
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import InputDescription, ModelDescription, read_json, write_json
from bert_jax.report import write_report
from bert_jax.runtime.processes import on_first_process, wait_for_all
from bert_jax.stages.finetune import finetune
from bert_jax.stages.pretrain import pretrain, pretrained_description
from bert_jax.stages.showcase import show_examples, summary_text
from bert_jax.storage.files import SEAL, check_seal, disk_folder, is_whole, made_whole, on_disk, only_writer, resolve_path, seal
from bert_jax.tasks import checked, choices, finetuning
from bert_jax.tasks.base import Task
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.training.checkpoints.saving import check_name
from bert_jax.training.host_memory import tune_malloc

CONFIG, COMMAND, SUMMARY, EXAMPLES = "config.json", "command.txt", "summary.json", "examples.json"

# What may differ between a run and its continuation: it changes how the run is computed or watched, not what is learned.
_FREE_TO_CHANGE = ("compute.", "mesh.", "pretrain.loop.", "finetune.loop.", "corpus.data_dir")


def run(
    config: RunConfig,
    workdir: str | Path,
    command: str = "",
    tasks: Sequence[Task] = (),
    modalities: Sequence[Modality[Any, Any]] = (),
) -> None:
    """Runs every stage of a configuration in `workdir`, going on from whatever is there, and prints what it learned.

    Args:
        config: what to run.
        workdir: where everything of the run is kept.
        command: what started the run, kept in the workdir for whoever asks how a model was made.
        tasks: tasks to fine-tune that do not come along.
        modalities: modalities that do not come along, for a corpus of one of them.

    Raises:
        InputError: something of the configuration, the text or the workdir that the user can mend.
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
        print(as_typed(f"The run in {workdir} is done. To run it again, remove that directory or name another --workdir."))
    else:
        with ExitStack() as held:
            on_first_process(lambda: held.enter_context(only_writer(workdir)))
            claim_workdir(config, workdir, command, tasks, modalities)
            _run_stages(_with_pretrained_encoder(config, modality), workdir, tasks, modality)
    if jax.process_index() == 0:
        print(as_typed(summary_text(config, workdir, read_json(workdir / SUMMARY), read_json(workdir / EXAMPLES), tasks)))


def _run_stages(config: RunConfig, workdir: Path, tasks: Sequence[Task], modality: Modality[Any, Any]) -> None:
    summary: dict[str, Any] = {}
    labelled = _labelled(config, tasks, modality) if config.finetune else None
    if config.pretrain:
        reader, prepared = prepare_data(config, workdir, modality)
        summary["pretrain"] = pretrain(config, workdir / "pretrain", modality, reader, prepared)
    if config.finetune and labelled:
        summary["finetune"] = _finetune(config, workdir, labelled, tasks, modality)
    if jax.process_index() == 0:
        write_json(workdir / EXAMPLES, show_examples(config, workdir, tasks, modality))
        write_json(workdir / SUMMARY, summary)
        write_report(workdir, tasks)
        seal(workdir)
    wait_for_all("run done")


def _finetune(
    config: RunConfig, workdir: Path, labelled: Labelled, tasks: Sequence[Task], modality: Modality[Any, Any]
) -> dict[str, Any]:
    stage = config.finetune
    assert stage is not None
    pretrained = resolve_path(stage.checkpoint) if stage.checkpoint else workdir / "pretrain"
    reader: Any
    if stage.from_scratch and not config.pretrain:
        reader = make_vocabulary(config, workdir, modality)
        encoder = ModelDescription(PRETRAINING.kind, config.encoder, stage.length, input=InputDescription.of(modality, reader))
        pretrained_or_none = None
    else:
        encoder, reader = model_directory.read(pretrained, [modality])
        pretrained_or_none = None if stage.from_scratch else pretrained
    result = finetune(config, workdir / "finetune", labelled, encoder, reader, pretrained_or_none, tasks)
    if stage.compare_from_scratch and not stage.from_scratch:
        scratch = finetune(config, workdir / "finetune_from_scratch", labelled, encoder, reader, None, tasks)
        result = result | {f"from_scratch_{score}": scratch[score] for score in finetuning(stage.task, tasks).scores}
    return result


def _labelled(config: RunConfig, tasks: Sequence[Task], modality: Modality[Any, Any]) -> Labelled:
    """The labelled text, with warnings of what is odd about it."""
    assert config.finetune is not None
    task = finetuning(config.finetune.task, tasks)
    labelled = load_labelled(config.finetune.data, task.labels(config.finetune.task), config.seed, modality.tables)
    if jax.process_index() == 0:
        _warn_of_labels(labelled, task.remarks(labelled))
    return labelled


def _warn_of_labels(labelled: Labelled, remarks: Sequence[str]) -> None:
    for remark in remarks:
        print(f"Beware: {remark}")
    if labelled.duplicates:
        print(f"Left out {labelled.duplicates:,} training examples: repeated texts, or texts with several labels.")
    for split, count in labelled.overlaps.items():
        if count:
            print(
                f"Beware: {count:,} {split} examples stand in the training examples too; the score is in part one of memory. "
                "--config.finetune.data.leaks=leave_out trains without them."
            )


def _with_pretrained_encoder(config: RunConfig, modality: Modality[Any, Any]) -> RunConfig:
    """The configuration with the encoder of the checkpoint that pre-training goes on from."""
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
    """Writes the configuration (and the command) into a new workdir, or checks that an old one belongs to it.

    Raises:
        InputError: the workdir belongs to another configuration, naming the fields that differ.
    """
    path = workdir / CONFIG
    if path.exists():
        before = from_dict(RunConfig, read_json(path), choices(tasks, modalities))
        changed = [line for line in differences(before, config) if not line.startswith(_FREE_TO_CHANGE)]
        if changed:
            raise InputError(
                f"The workdir {workdir} belongs to another configuration (there -> here): {'; '.join(changed)}. "
                "Name another --workdir, or give the values that it was started with."
            )
    elif jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        if command:
            (workdir / COMMAND).write_text(command + "\n", encoding="utf-8")
        write_json(path, to_dict(config))
    wait_for_all("workdir claimed")


def prepare_data(
    config: RunConfig, workdir: Path, modality: Modality[Any, Any], beam: Sequence[str] | None = None
) -> tuple[Reader, Prepared]:
    """The vocabulary and the prepared records of a run, made where they are missing; `beam` as in `Modality.prepare`."""
    reader = make_vocabulary(config, workdir, modality)
    given = config.corpus.data_dir
    # ArrayRecord reads from disks alone, so that beside a bucket every host makes records of its own.
    data_dir = on_disk(given, "corpus.data_dir") if given else disk_folder(workdir / "data")
    if not given and data_dir != workdir / "data" and jax.process_index() == 0:
        print(as_typed(f"The records are in {data_dir} of every host; --config.corpus.data_dir names another place."), file=sys.stderr)
    made: list[Prepared] = []
    on_first_process(lambda: made.append(modality.prepare(config.corpus, reader, data_dir, beam=beam)))
    return reader, made[0] if made else modality.prepare(config.corpus, reader, data_dir, show_progress=False)


def make_vocabulary(config: RunConfig, workdir: Path, modality: Modality[Any, Any]) -> Reader:
    """The run's vocabulary: that of `pretrain.checkpoint` or `vocabulary.path`, or trained once on the corpus and kept in the workdir."""
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
