"""A model from elsewhere: a Hugging Face directory, a name on its hub, or Google's original checkpoint -> ours."""

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
from bert_jax.convert.configuration import architectures, class_names, encoder_config, vocabulary_size
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
from bert_jax.tasks.published import BARE, ENCODER, Published
from bert_jax.tasks.stored import build, parameter_shapes
from bert_jax.training.checkpoints.saving import Checkpoints, check_name
from bert_jax.training.state import TrainState

CONFIG, ORIGIN, ADAPTER = "config.json", "import.json", "adapter_config.json"


class Tensors(Protocol):
    """Tensors by the names that `transformers` gives them, read one at a time."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere.

    Attributes:
        description, tokenizer: as in a model directory of ours.
        params: the parameters, float32 numpy arrays.
        unused: tensors of the source that no part of the model takes.
        initialized: parts of the model that the source lacks and that start from random numbers.
    """

    description: ModelDescription
    tokenizer: Tokenizer
    params: dict[str, Any]
    unused: tuple[str, ...]
    initialized: tuple[str, ...]


def is_foreign(source: str | Path) -> bool:
    """Whether this names a model from elsewhere: a directory with files of one, or a name on the hub."""
    directory = resolve_path(source)
    if not directory.is_dir():
        return not directory.exists() and hub.is_name(str(source))
    if (directory / model_directory.FILE).exists():
        return False
    of_one = (SINGLE, INDEX, *PICKLES, MODULES, ADAPTER, google.CONFIG, "*.ckpt.index")
    if any(next(directory.glob(pattern), None) for pattern in of_one):
        return True
    return (directory / CONFIG).is_file() and not read_json(directory / CONFIG).keys().isdisjoint(("model_type", "architectures"))


def read_source(source: str | Path, initialize_missing: bool = False, families: Sequence[Family] = FAMILIES) -> Imported:
    """Reads a model from elsewhere; heads that it lacks are `description.absent`, or start from random numbers if asked.

    Args:
        families: one of these the model must belong to.

    Raises:
        InputError: files are missing, damaged or pickles; another architecture; an adapter; tensors that contradict the
            configuration; tokens without a row of the token table, or a vocabulary far smaller; part of a head only; the hub
            cannot be reached.
    """
    source_directory = on_disk(source, "A model from elsewhere,")
    if not source_directory.is_dir():
        source_directory = hub.fetch(str(source))
    directory = encoder_directory(source_directory)
    if not directory.is_dir():
        raise InputError(f"{source_directory} keeps its encoder in {directory}, which is not there. Fetch that folder too.")
    if (directory / ADAPTER).exists():
        raise InputError(
            f"{directory} holds an adapter of PEFT ({ADAPTER}), which changes the model's weights and is not read. Merge it with peft's "
            "merge_and_unload(), save the whole model and name that directory."
        )
    open_tensors: Callable[[Path, Family], Tensors]
    if (directory / google.CONFIG).is_file() and not (directory / CONFIG).is_file():
        file, open_tensors = directory / google.CONFIG, google.open_checkpoint
    else:
        file, open_tensors = directory / CONFIG, TensorFiles
        if not file.is_file():
            found = ", ".join(sorted(entry.name for entry in directory.iterdir())[:10]) or "nothing"
            raise InputError(f"{directory} has no {CONFIG}, which says what model it is; it holds {found}. Fetch the missing file.")
    values = read_json(file)
    # The configuration comes first: it says in one word that this is another architecture.
    family = family_of(values, file, families)
    config = encoder_config(family, values, file)
    embedding = embedding_config(source_directory)
    imported = _assembled(_Source(directory, file, values, family, config, open_tensors(directory, family)), initialize_missing)
    if embedding is None:
        return imported
    tokenizer = imported.tokenizer.behind_lower_case() if lowers_case(directory) else imported.tokenizer
    return replace(imported, description=replace(imported.description, embedding=embedding), tokenizer=tokenizer)


def import_model(
    source: str | Path, directory: str | Path, initialize_missing: bool = False, families: Sequence[Family] = FAMILIES
) -> Imported:
    """Writes a model from elsewhere into `directory` as a model directory like those of training.

    Raises:
        InputError: `directory` is not empty; see `read_source`.
    """
    directory = resolve_path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} exists already and is not an empty directory: name another one.")
    check_name(directory)
    imported = read_source(source, initialize_missing, families)
    checkpoints = Checkpoints(directory / "checkpoints", keep=1, model=model_directory.identity(imported.description, imported.tokenizer))
    state = TrainState(jnp.int32(0), jax.tree.map(jnp.asarray, imported.params), optimizer_state=())
    checkpoints.save(0, state, {"imported": str(source)})
    checkpoints.close()
    write_json(directory / ORIGIN, {"source": str(source), "initialized": imported.initialized, "unused": imported.unused})
    # Last: what makes it a model.
    model_directory.write(directory, imported.description, imported.tokenizer)
    seal(directory)
    return imported


@dataclass(frozen=True)
class _Source:
    """What a directory holds: the configuration `values` of `file`, read as `config`, and the tensors beside it."""

    directory: Path
    file: Path
    values: Mapping[str, Any]
    family: Family
    config: EncoderConfig
    tensors: Tensors


def _assembled(source: _Source, initialize_missing: bool) -> Imported:
    family, config, file, tensors = source.family, source.config, source.file, source.tensors
    tokenizer = _tokenizer(source.directory, family)
    vocab_size = vocabulary_size(family, source.values, file)
    _check_vocabulary(tokenizer, vocab_size, source.directory, file)
    task, parts = _task_and_parts(source)
    whole, entries = task.published[0].parts, family.entries(config, parts)
    _check_names(tensors.shapes, entries, file)
    description = ModelDescription(
        task.kind,
        config,
        config.max_positions,
        next_sentence="nsp" if "next_sentence" in (whole if initialize_missing else parts) else "none",
        labels=_labels(source, task.published[0], entries),
        spare_rows=vocab_size - tokenizer.vocab_size,
        tokenizer_length=tokenizer_length(source.directory, config.max_positions),
    )
    shapes = tensor_shapes(parameter_shapes(description, tokenizer.vocab_size), entries)
    _check_shapes(tensors.shapes, shapes, file)
    missing = tuple(part for part in whole if part not in parts)
    params = to_parameters(_Reader(tensors), entries)
    unused = _unused(source, parts, entries)
    if not initialize_missing:
        return Imported(replace(description, absent=missing), tokenizer, params, unused, ())
    fresh = _fresh_parameters(description, tokenizer.vocab_size) if missing else {}
    return Imported(description, tokenizer, params | {part: fresh[part] for part in missing}, unused, missing)


def _task_and_parts(source: _Source) -> tuple[Task, tuple[str, ...]]:
    """The task of the model, and those of its parts that the source holds; embeddings and encoder always count.

    The classes that the configuration names come first, because the heads of several tasks have tensors of the same names: the
    head of a class that no task publishes is not read. Without a class, or under that of a bare encoder, the tensors decide.
    """
    every = source.family.parts(source.config)
    there = {part for part, entries in every.items() if any(entry.name in source.tensors.shapes for entry in entries)}
    named = architectures(source.values, source.file)

    def is_named(rows: Iterable[Published]) -> bool:
        return any(source.family.prefix + row.suffix in named for row in rows)

    first, *others = (task for task in TASKS if task.published)
    free = not named or is_named([BARE])
    found = (task for task in others if free or is_named(task.published))
    task = next((task for task in found if there & set(task.published[0].parts) - set(BARE.parts)), first)
    return task, tuple(part for part in task.published[0].parts if part in (*ENCODER, *there))


def _labels(source: _Source, published: Published, entries: Iterable[Entry]) -> tuple[str, ...]:
    """The names of the classes, as many as the head's tensor says."""
    head = [entry for entry in entries if entry.path[:1] == published.labels[:1]]
    if not head:
        return ()
    shape = next(laid_out(source.tensors.shapes[entry.name], entry.layout.to_ours) for entry in head if entry.path == published.labels)
    return class_names(source.values, math.prod(shape[-1:]), source.file, [entry.name for entry in head])


class _Reader(Mapping[str, np.ndarray]):
    """Tensors as a mapping that holds none of them."""

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
        raise InputError(f"{directory} has neither {names}; it holds {found}. Fetch one of them.")
    return Tokenizer.load(directory)


def _check_vocabulary(tokenizer: Tokenizer, rows: int, directory: Path, file: Path) -> None:
    """That every token has a row of the token table, and that the rows behind them are what a table is padded by."""
    if tokenizer.vocab_size + MOST_SPARE_ROWS < rows:
        raise InputError(
            f"The vocabulary in {directory} has {tokenizer.vocab_size:,} tokens and {file} says vocab_size={rows:,}: they are not of one "
            "model. Fetch the tokenizer's files that belong to the weights."
        )
    if without := tokenizer.token_lines().decode().split("\n")[rows : min(tokenizer.vocab_size, rows + 3)]:
        shown = "; ".join(f"{token!r} in {' and '.join(declarations(directory, token)) or 'its files'}" for token in without)
        more = f" and {tokenizer.vocab_size - rows - 3:,} more" if tokenizer.vocab_size > rows + 3 else ""
        raise InputError(
            f"The tokenizer in {directory} has {tokenizer.vocab_size:,} tokens and {file} says vocab_size={rows:,}, so these have no row "
            f"in the token table: {shown}{more}. Fetch the weights that belong to this tokenizer, or take the tokens out of its files."
        )


def _check_names(found: Mapping[str, tuple[int, ...]], entries: Iterable[Entry], file: Path) -> None:
    missing = [entry.name for entry in entries if entry.name not in found]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"The weights beside {file} lack {', '.join(missing[:3])}{more}, which its configuration asks for: the files are not whole, or "
            "not of one model. Fetch them again."
        )


def _check_shapes(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], file: Path) -> None:
    for name, shape in wanted.items():
        if found[name] != shape:
            raise InputError(
                f"The tensor {name} has the shape {found[name]} and {file} asks for {shape}: they are not of one model. Fetch both again."
            )


def _unused(source: _Source, parts: Iterable[str], entries: Iterable[Entry]) -> tuple[str, ...]:
    """The names that no part takes; the copies of tied tensors, which must be copies, are not among them."""
    family, tensors = source.family, source.tensors
    tied = {name: other for part in parts for name, other in family.tied.get(part, {}).items()}
    for name, other in tied.items():
        if name in tensors.shapes and not np.array_equal(tensors.read(name), tensors.read(other)):
            raise InputError(
                f"The tensor {name} in {source.directory} is not equal to what it is tied to in {family.title}, {other}: this model has a "
                "vocabulary head of its own, which is not supported."
            )
    taken = {entry.name for entry in entries} | set(family.ignored) | set(tied)
    return tuple(name for name in tensors.shapes if name not in taken)


def _fresh_parameters(description: ModelDescription, vocab_size: int) -> dict[str, Any]:
    model = build(description, vocab_size, ComputeConfig())
    return dict(jax.device_get(jax.jit(model.init)(jax.random.key(0), zero_row())["params"]))


def summary(imported: Imported) -> str:
    """What was read, in a few lines: sizes, heads, what is missing and what is not used."""
    description = imported.description
    config = description.encoder
    count = sum(leaf.size for leaf in jax.tree.leaves(imported.params))
    heads = _words(part for part in imported.params if part not in ENCODER)
    lines = [
        f"{config.layers} layers of width {config.width}, {imported.tokenizer.vocab_size:,} tokens"
        + (f" and {description.spare_rows:,} spare rows" if description.spare_rows else "")
        + f", {count / 1e6:.1f}M parameters",
        f"heads: {heads or 'none'}",
    ]
    if description.labels:
        lines.append(f"classes: {', '.join(description.labels)}")
    if description.absent:
        lines.append(f"missing: {_words(description.absent)} (--initialize-missing starts them from random numbers)")
    if imported.initialized:
        lines.append(f"started from random numbers: {_words(imported.initialized)}")
    if imported.unused:
        lines.append(f"not used: {', '.join(imported.unused)}")
    return "\n".join(lines)


def _words(parts: Iterable[str]) -> str:
    return ", ".join(part.replace("_", " ") for part in parts)
