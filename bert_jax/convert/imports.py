"""Imports models from a Hugging Face directory, the Hugging Face Hub, or one of Google's original checkpoints."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.convert import google, hub
from bert_jax.convert.configuration import architectures, class_names, encoder_config, problem_type, vocabulary_size
from bert_jax.convert.layouts import laid_out, tensor_shapes, to_parameters
from bert_jax.convert.sentence_transformers import MODULES, embedding_config, encoder_directory, lowers_case
from bert_jax.convert.tensor_files import INDEX, PICKLES, SINGLE, TensorFiles
from bert_jax.errors import InputError
from bert_jax.families import FAMILIES, family_of
from bert_jax.families.base import Entry, Family
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.modalities.text.tokenizer_files import declarations, tokenizer_length
from bert_jax.model import directory as model_directory
from bert_jax.model.batch import zero_row
from bert_jax.model.directory import MOST_SPARE_ROWS, ModelDescription, read_json, write_json
from bert_jax.storage.files import on_disk, resolve_path, seal
from bert_jax.tasks import TASKS
from bert_jax.tasks.base import Task
from bert_jax.tasks.published import BARE, ENCODER, REFUSED, Published
from bert_jax.tasks.stored import build, parameter_shapes

CONFIG, ORIGIN, ADAPTER = "config.json", "import.json", "adapter_config.json"


class Tensors(Protocol):
    """Tensors by their `transformers` names, read one at a time."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Imported:
    """An imported model.

    Attributes:
        description, tokenizer: as in a bert_jax model directory.
        params: the parameters, float32 NumPy arrays.
        unused: names of the source's tensors that no part of the model uses.
        initialized: parts of the model that the source lacks and that were initialized randomly.
    """

    description: ModelDescription
    tokenizer: Tokenizer
    params: dict[str, Any]
    unused: tuple[str, ...]
    initialized: tuple[str, ...]


def is_foreign(source: str | Path) -> bool:
    """Return whether `source` is a model to import: a directory with model files of another library, or a name on the Hub."""
    directory = resolve_path(source)
    if not directory.is_dir():
        return not directory.exists() and hub.is_name(str(source))
    if (directory / model_directory.FILE).exists():
        return False
    patterns = (SINGLE, INDEX, *PICKLES, MODULES, ADAPTER, google.CONFIG, "*.ckpt.index")
    if any(next(directory.glob(pattern), None) for pattern in patterns):
        return True
    return (directory / CONFIG).is_file() and not read_json(directory / CONFIG).keys().isdisjoint(("model_type", "architectures"))


def read_source(source: str | Path, initialize_missing: bool = False, families: Sequence[Family] = FAMILIES) -> Imported:
    """Read a model to import. Heads that it lacks are listed in `description.absent`, or initialized randomly on request.

    Args:
        source: a directory, or a name on the Hugging Face Hub.
        initialize_missing: whether to initialize missing heads randomly.
        families: the supported families; the model must belong to one of them.

    Raises:
        InputError: files are missing, damaged or pickles; the architecture is not supported; the source is a PEFT adapter; tensors
            contradict the configuration; tokens have no row in the token table, or the vocabulary is much smaller than the table;
            a head is incomplete; or the Hub cannot be reached.
    """
    source_directory = on_disk(source, "A model to import,")
    if not source_directory.is_dir():
        source_directory = hub.fetch(str(source))
    directory = encoder_directory(source_directory)
    if not directory.is_dir():
        raise InputError(f"{source_directory} keeps its encoder in {directory}, which does not exist. Download that folder too.")
    if (directory / ADAPTER).exists():
        raise InputError(
            f"{directory} has a PEFT adapter ({ADAPTER}), which changes the model's weights and is not supported. Merge it with PEFT's "
            "merge_and_unload(), save the complete model and import that directory."
        )
    open_tensors: Callable[[Path, Family], Tensors]
    if (directory / google.CONFIG).is_file() and not (directory / CONFIG).is_file():
        file, open_tensors = directory / google.CONFIG, google.open_checkpoint
    else:
        file, open_tensors = directory / CONFIG, TensorFiles
        if not file.is_file():
            found = ", ".join(sorted(entry.name for entry in directory.iterdir())[:10]) or "nothing"
            raise InputError(f"{directory} has no {CONFIG}, which describes the model; it contains {found}. Download the missing file.")
    values = read_json(file)
    # Read the configuration first, so that an unsupported architecture gets a clear error.
    family = family_of(values, file, families)
    config = encoder_config(family, values, file)
    embedding = embedding_config(source_directory)
    imported = _assemble(_Source(directory, file, values, family, config, open_tensors(directory, family)), initialize_missing)
    if embedding is None:
        return imported
    tokenizer = imported.tokenizer.behind_lower_case() if lowers_case(directory) else imported.tokenizer
    return replace(imported, description=replace(imported.description, embedding=embedding), tokenizer=tokenizer)


def import_model(
    source: str | Path, directory: str | Path, initialize_missing: bool = False, families: Sequence[Family] = FAMILIES
) -> Imported:
    """Import a model into `directory`, as a model directory like those that training writes.

    Raises:
        InputError: `directory` is not empty; see also `read_source`.
    """
    # Imported here, because reading a model should not wait for Optax.
    from bert_jax.training.checkpoints.saving import Checkpoints, check_name
    from bert_jax.training.state import TrainState

    directory = resolve_path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} already exists and is not an empty directory: choose another one.")
    check_name(directory)
    imported = read_source(source, initialize_missing, families)
    checkpoints = Checkpoints(directory / "checkpoints", keep=1, model=model_directory.identity(imported.description, imported.tokenizer))
    state = TrainState(jnp.int32(0), jax.tree.map(jnp.asarray, imported.params), optimizer_state=())
    checkpoints.save(0, state, {"imported": str(source)})
    checkpoints.close()
    write_json(directory / ORIGIN, {"source": str(source), "initialized": imported.initialized, "unused": imported.unused})
    # Written last: this file is what makes the directory a model.
    model_directory.write(directory, imported.description, imported.tokenizer)
    seal(directory)
    return imported


@dataclass(frozen=True)
class _Source:
    """The contents of a source directory: the configuration `values` of `file`, parsed as `config`, and the tensors."""

    directory: Path
    file: Path
    values: Mapping[str, Any]
    family: Family
    config: EncoderConfig
    tensors: Tensors


def _assemble(source: _Source, initialize_missing: bool) -> Imported:
    family, config, file, tensors = source.family, source.config, source.file, source.tensors
    tokenizer = _tokenizer(source.directory, family)
    vocab_size = vocabulary_size(family, source.values, file)
    _check_vocabulary(tokenizer, vocab_size, source.directory, file)
    task, parts = _task_and_parts(source)
    all_parts, entries = task.published[0].parts, family.entries(config, parts)
    _check_names(tensors.shapes, entries, file)
    description = ModelDescription(
        task.kind,
        config,
        config.max_positions,
        next_sentence="nsp" if "next_sentence" in (all_parts if initialize_missing else parts) else "none",
        labels=_labels(source, task.published[0], family.parts(config)),
        spare_rows=vocab_size - tokenizer.vocab_size,
        tokenizer_length=tokenizer_length(source.directory, config.max_positions),
    )
    shapes = tensor_shapes(parameter_shapes(description, tokenizer.vocab_size), entries)
    _check_shapes(tensors.shapes, shapes, file)
    missing = tuple(part for part in all_parts if part not in parts)
    params = to_parameters(_Reader(tensors), entries)
    unused = _unused(source, parts, entries)
    if not initialize_missing:
        return Imported(replace(description, absent=missing), tokenizer, params, unused, ())
    initialized = _random_parameters(description, tokenizer.vocab_size) if missing else {}
    return Imported(description, tokenizer, params | {part: initialized[part] for part in missing}, unused, missing)


def _task_and_parts(source: _Source) -> tuple[Task, tuple[str, ...]]:
    """Return the model's task and the parts that the source has; embeddings and encoder are always included.

    The classes that the configuration names take precedence, because the heads of several tasks share tensor names: the head of
    a class that no task publishes is not read. If no class is named, or only a bare encoder, the tensors determine the task.

    Raises:
        InputError: a class is named that is refused.
    """
    all_parts = source.family.parts(source.config)
    present = {part for part, entries in all_parts.items() if any(entry.name in source.tensors.shapes for entry in entries)}
    named = architectures(source.values, source.file)
    if refused := [suffix for suffix in REFUSED if source.family.prefix + suffix in named]:
        raise InputError(
            f"{source.file} describes a {source.family.prefix}{refused[0]}, which {REFUSED[refused[0]]}. To import its encoder without the "
            f'head, set "architectures" to ["{source.family.prefix}{BARE.suffix}"] there and remove the classifier\'s tensors.'
        )

    def is_named(rows: Iterable[Published]) -> bool:
        return any(source.family.prefix + row.suffix in named for row in rows)

    def has_type(row: Published) -> bool:
        return not row.problem_type or row.problem_type == problem_type(source.values, _outputs(source, row, all_parts), source.file)

    first, *others = (task for task in TASKS if task.published)
    any_task = not named or is_named([BARE])
    candidates = (task for task in others if has_type(task.published[0]) and (any_task or is_named(task.published)))
    task = next((task for task in candidates if present & set(task.published[0].parts) - set(BARE.parts)), first)
    return task, tuple(part for part in task.published[0].parts if part in (*ENCODER, *present))


def _outputs(source: _Source, published: Published, parts: Mapping[str, Sequence[Entry]]) -> int:
    """Return the number of outputs of the published class's head, by its tensor; 0 if the source has none."""
    entries = [entry for own in parts.values() for entry in own if entry.path == published.outputs and entry.name in source.tensors.shapes]
    return math.prod(laid_out(source.tensors.shapes[entries[0].name], entries[0].layout.to_ours)[-1:]) if entries else 0


def _labels(source: _Source, published: Published, parts: Mapping[str, Sequence[Entry]]) -> tuple[str, ...]:
    """Return the names of the outputs."""
    outputs = _outputs(source, published, parts)
    tensors = [entry.name for own in parts.values() for entry in own if entry.path[:1] == published.outputs[:1]]
    if outputs and not published.labeled and outputs != 1:
        raise InputError(
            f"{source.file} describes a {published.problem_type} head with {outputs} outputs, but only one output is supported. To import "
            f"the encoder only, remove the tensors {' and '.join(f'`{name}`' for name in tensors)}."
        )
    return class_names(source.values, outputs, source.file, tensors) if outputs and published.labeled else ()


class _Reader(Mapping[str, np.ndarray]):
    """A mapping that reads each tensor on access and keeps none in memory."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors.read(name)

    def __iter__(self) -> Any:
        return iter(self._tensors.shapes)

    def __len__(self) -> int:
        return len(self._tensors.shapes)


def _tokenizer(directory: Path, family: Family) -> Tokenizer:
    if not any((directory / name).is_file() for name in family.vocabulary_files):
        found = ", ".join(sorted(entry.name for entry in directory.iterdir())[:10])
        names = " nor ".join(family.vocabulary_files)
        raise InputError(f"{directory} has neither {names}; it contains {found}. Download one of them.")
    return Tokenizer.load(directory)


def _check_vocabulary(tokenizer: Tokenizer, rows: int, directory: Path, file: Path) -> None:
    """Check that every token has a row in the token table, and that the table has no more extra rows than padding explains."""
    if tokenizer.vocab_size + MOST_SPARE_ROWS < rows:
        raise InputError(
            f"The vocabulary in {directory} has {tokenizer.vocab_size:,} tokens and {file} says vocab_size={rows:,}: they are from "
            "different models. Download the tokenizer files that belong to the weights."
        )
    if rowless := tokenizer.token_lines().decode().split("\n")[rows : min(tokenizer.vocab_size, rows + 3)]:
        shown = "; ".join(f"{token!r} in {' and '.join(declarations(directory, token)) or 'its files'}" for token in rowless)
        more = f" and {tokenizer.vocab_size - rows - 3:,} more" if tokenizer.vocab_size > rows + 3 else ""
        raise InputError(
            f"The tokenizer in {directory} has {tokenizer.vocab_size:,} tokens and {file} says vocab_size={rows:,}, so these tokens have "
            f"no row in the token table: {shown}{more}. Download the weights that belong to this tokenizer, or remove the tokens from its "
            "files."
        )


def _check_names(found: Mapping[str, tuple[int, ...]], entries: Iterable[Entry], file: Path) -> None:
    missing = [entry.name for entry in entries if entry.name not in found]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"The weights next to {file} lack {', '.join(missing[:3])}{more}, which its configuration requires: the files are incomplete "
            "or from different models. Download them again."
        )


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], file: Path) -> None:
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(
                f"The tensor {name} has the shape {found[name]} but {file} asks for {shape}: they are from different models. "
                "Download both again."
            )


def _unused(source: _Source, parts: Iterable[str], entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return the tensors that no part uses, except copies of tied tensors; raise `InputError` if a copy differs from its original."""
    family, tensors = source.family, source.tensors
    tied = {name: other for part in parts for name, other in family.tied.get(part, {}).items()}
    for name, other in tied.items():
        if name in tensors.shapes and not np.array_equal(tensors.read(name), tensors.read(other)):
            raise InputError(
                f"The tensor {name} in {source.directory} differs from {other}, to which {family.title} ties it: this model has an untied "
                "vocabulary head, which is not supported."
            )
    used = {entry.name for entry in entries} | set(family.ignored) | set(tied)
    return tuple(name for name in tensors.shapes if name not in used)


def _random_parameters(description: ModelDescription, vocab_size: int) -> dict[str, Any]:
    model = build(description, vocab_size, ComputeConfig())
    return dict(jax.device_get(jax.jit(model.init)(jax.random.key(0), zero_row())["params"]))


def summary(imported: Imported) -> str:
    """Return a summary of a few lines: sizes, heads, missing parts and unused tensors."""
    description = imported.description
    config = description.encoder
    count = sum(leaf.size for leaf in jax.tree.leaves(imported.params))
    heads = _names(part for part in imported.params if part not in ENCODER)
    lines = [
        f"{config.layers} layers of width {config.width}, {imported.tokenizer.vocab_size:,} tokens"
        + (f" and {description.spare_rows:,} spare rows" if description.spare_rows else "")
        + f", {count / 1e6:.1f}M parameters",
        f"heads: {heads or 'none'}",
    ]
    if description.labels:
        lines.append(f"classes: {', '.join(description.labels)}")
    if description.absent:
        lines.append(f"missing: {_names(description.absent)} (--initialize-missing initializes them randomly)")
    if imported.initialized:
        lines.append(f"initialized randomly: {_names(imported.initialized)}")
    if imported.unused:
        lines.append(f"unused tensors: {', '.join(imported.unused)}")
    return "\n".join(lines)


def _names(parts: Iterable[str]) -> str:
    return ", ".join(part.replace("_", " ") for part in parts)
