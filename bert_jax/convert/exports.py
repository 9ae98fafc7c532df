"""Exports a model directory to a directory that `transformers` can load, with a model card."""

import shutil
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from bert_jax.convert.configuration import COMMON_PROBLEM_TYPE, config_values
from bert_jax.convert.layouts import to_tensors
from bert_jax.convert.model_card import model_card
from bert_jax.convert.sentence_transformers import write_modules
from bert_jax.convert.tensor_files import SINGLE
from bert_jax.errors import InputError
from bert_jax.families import FAMILIES
from bert_jax.families.base import Family
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import EmbeddingConfig, ModelDescription, write_json
from bert_jax.storage.files import on_disk, resolve_path
from bert_jax.tasks import TASKS, find
from bert_jax.tasks.published import BARE, ENCODER, Published
from bert_jax.tasks.stored import stored_parameters

DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def export_model(
    directory: str | Path,
    out: str | Path,
    license_name: str = "",
    architecture: str = "",
    family: Family = FAMILIES[0],
    dtype: str = "float32",
) -> str:
    """Write the model in `directory` (its newest checkpoint, or its best one for a classifier) to the new directory `out`.

    Args:
        architecture: one of the family's classes, to write only the parts that it has; if empty, all parts of the model are written.
        family: the family whose naming the files use; the default is BERT, the first of `FAMILIES`.
        dtype: of the weights, one of `DTYPES`; those of two bytes are rounded and take half the space.

    Returns:
        The name of the `transformers` class that the weights belong to.

    Raises:
        InputError: `directory` has no model, `out` is not empty, the architecture is unknown, `transformers` has no such model or no
            tokenizer for its vocabulary, or a weight is too large for the dtype.
    """
    directory, out = resolve_path(directory), on_disk(out, "OUT")
    if dtype not in DTYPES:
        raise InputError(f"There is no dtype {dtype!r} of weights: choose one of {', '.join(DTYPES)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already exists and is not an empty directory: choose another one.")
    description, tokenizer = model_directory.read(directory)
    model_directory.check_tokens(description, directory)
    _check_segmenter(tokenizer, directory)
    classes = _classes(family, description)
    if architecture and architecture not in classes:
        raise InputError(f"The architecture {architecture!r} cannot be written: choose one of {', '.join(classes)}.")
    published, parts = _published(directory, description, family, classes.get(architecture))
    architecture = family.prefix + published.suffix
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    params = stored_parameters(directory, description, tokenizer, device, parts)
    tensors = to_tensors(jax.tree.map(np.asarray, params), family.entries(description.encoder, parts))
    if published is BARE:
        tensors = {name.removeprefix(family.base): tensor for name, tensor in tensors.items()}
    tensors = {name: _rounded(name, tensor, dtype) for name, tensor in tensors.items()}
    values = _configuration(description, tokenizer, family, published, dtype)
    # Write to a temporary directory and rename it, so that `out` is either complete or absent.
    unfinished = out.with_name(out.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    tokenizer.save(unfinished, description.tokenizer_length or description.encoder.max_positions)
    save_file(tensors, unfinished / SINGLE, metadata={"format": "pt"})
    write_json(unfinished / "config.json", values)
    if description.embedding != EmbeddingConfig():
        write_modules(unfinished, description.embedding, description.encoder)
    card = model_card(directory, description, tokenizer, family, published, license_name)
    (unfinished / "README.md").write_text(card, encoding="utf-8")
    if out.exists():
        out.rmdir()
    unfinished.rename(out)
    return architecture


def _configuration(
    description: ModelDescription, tokenizer: Tokenizer, family: Family, published: Published, dtype: str
) -> dict[str, Any]:
    """Return the content of config.json."""
    rows = tokenizer.vocab_size + description.spare_rows
    sizes = config_values(family, description.encoder, rows, tokenizer.pad_id)
    values: dict[str, Any] = {"architectures": [family.prefix + published.suffix], **sizes, "dtype": dtype}
    if published.problem_type not in ("", COMMON_PROBLEM_TYPE):
        values["problem_type"] = published.problem_type
    if published.outputs and not published.labeled:
        values["num_labels"] = 1
    if description.labels:
        values["id2label"] = {str(index): label for index, label in enumerate(description.labels)}
        values["label2id"] = {label: index for index, label in enumerate(description.labels)}
    return values


def _rounded(name: str, tensor: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = tensor.astype(DTYPES[dtype])
    if not np.isfinite(found).all():
        if not np.isfinite(tensor).all():
            raise InputError(f"The tensor {name} has values that are not finite, so the model computes nothing of use: train it again.")
        raise InputError(f"The tensor {name} has values up to {np.abs(tensor).max():.3g}, too large for {dtype}: export it as float32.")
    return found


def _check_segmenter(tokenizer: Tokenizer, directory: Path) -> None:
    if tokenizer.segmenter:
        raise InputError(
            f"The vocabulary of the model in {directory} has Chinese words as the segmenter {tokenizer.segmenter} finds them, and "
            "transformers has no tokenizer that does, so the model cannot be exported. Pre-train with --config.vocabulary.kind=wordpiece, "
            "characters or bytes, or with --config.corpus.segmenter=characters."
        )


def _classes(family: Family, description: ModelDescription) -> dict[str, Published]:
    """Return the `transformers` classes that can be written: those whose parts all have names in the family."""
    named = family.parts(description.encoder).keys()
    rows = (*(row for task in TASKS for row in task.published), BARE)
    return {family.prefix + row.suffix: row for row in rows if named >= set(row.parts)}


def _published(
    directory: Path, description: ModelDescription, family: Family, requested: Published | None
) -> tuple[Published, tuple[str, ...]]:
    """Return the `transformers` class to write (`requested`, or the one that matches the model's heads) and the parts that it holds."""
    task = find(description.kind)
    rows = task.published
    if not rows or (reason := task.why_not_exportable(description)):
        raise InputError(f"The model in {directory} {reason if rows else 'is for a task that transformers has no class for.'}")
    # Without the next-sentence task, its head and the pooler still have their random initial values.
    untrained = "next_sentence" in rows[0].parts and description.next_sentence == "none" and not description.absent
    left_out = ("pooler", "next_sentence") if untrained else description.absent
    present = tuple(part for part in rows[0].parts if part not in left_out)
    if requested:
        optional = {"pooler"} - {*rows[0].parts} if requested is BARE else set()
        parts = tuple(part for part in requested.parts if part not in optional)
        missing = [part for part in parts if part not in present]
        if missing:
            name = family.prefix + requested.suffix
            raise InputError(f"The model in {directory} has no {' and no '.join(missing)}, so it cannot be written as a {name}.")
        return requested, parts
    # `BARE` also fits an encoder without its pooler.
    matching = next((row for row in (*rows, BARE) if row.parts == present), BARE if present == ENCODER else None)
    if matching is None or not set(present) <= family.parts(description.encoder).keys():
        raise InputError(
            f"The model in {directory} has the parts {', '.join(present)}, and no transformers class has exactly these parts. Use "
            "--architecture to name a class that has some of them, or import the model with --initialize-missing."
        )
    return matching, present
