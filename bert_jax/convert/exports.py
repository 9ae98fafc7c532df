"""A model directory -> a directory that `transformers` loads, with a model card."""

import shutil
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from bert_jax.convert.configuration import config_values
from bert_jax.convert.layouts import to_tensors
from bert_jax.convert.model_card import model_card
from bert_jax.convert.sentence_transformers import write_modules
from bert_jax.convert.tensor_files import SINGLE
from bert_jax.errors import InputError
from bert_jax.families import FAMILIES
from bert_jax.families.base import Family
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import EmbeddingConfig, ModelDescription, write_json
from bert_jax.storage.files import on_disk, resolve_path
from bert_jax.tasks import TASKS, find
from bert_jax.tasks.published import BARE, ENCODER, Published
from bert_jax.tasks.stored import stored_parameters


def export_model(
    directory: str | Path, out: str | Path, license_name: str = "", architecture: str = "", family: Family = FAMILIES[0]
) -> str:
    """Writes the model in `directory` (the newest checkpoint, of a classifier the best) to the new directory `out`.

    Args:
        architecture: one of the family's classes, to write the parts that it has alone; empty writes all that there are.
        family: whose names the files have; the first is what our encoder computes.

    Returns:
        The name of the `transformers` class whose weights these are.

    Raises:
        InputError: there is no model, `out` is not empty, the architecture is unknown, or the model has no equivalent in `transformers`.
    """
    directory, out = resolve_path(directory), on_disk(out, "OUT")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already and is not an empty directory: name another one.")
    description, tokenizer = model_directory.read(directory)
    classes = _classes(family, description)
    if architecture and architecture not in classes:
        raise InputError(f"There is no architecture {architecture!r} to write: choose one of {', '.join(classes)}.")
    published, parts = _published(directory, description, family, classes.get(architecture))
    architecture = family.prefix + published.suffix
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    params = stored_parameters(directory, description, tokenizer, device, parts)
    tensors = to_tensors(jax.tree.map(np.asarray, params), family.entries(description.encoder, parts))
    if published is BARE:
        tensors = {name.removeprefix(family.base): tensor for name, tensor in tensors.items()}
    rows = tokenizer.vocab_size + description.spare_rows
    values = {"architectures": [architecture], **config_values(family, description.encoder, rows, tokenizer.pad_id)}
    if description.labels:
        values["id2label"] = {str(index): label for index, label in enumerate(description.labels)}
        values["label2id"] = {label: index for index, label in enumerate(description.labels)}
    # Whole or not there at all.
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


def _classes(family: Family, description: ModelDescription) -> dict[str, Published]:
    """The classes of `transformers` that can be written: those of which the family names every part."""
    named = family.parts(description.encoder).keys()
    rows = (*(row for task in TASKS for row in task.published), BARE)
    return {family.prefix + row.suffix: row for row in rows if named >= set(row.parts)}


def _published(
    directory: Path, description: ModelDescription, family: Family, wanted: Published | None
) -> tuple[Published, tuple[str, ...]]:
    """The class of `transformers` with these heads, or the wanted one, and the parts of the model that it holds."""
    task = find(description.kind)
    rows = task.published
    if not rows or (fault := task.unpublished(description)):
        raise InputError(f"The model in {directory} {fault if rows else 'is of a task that transformers has no class for'}")
    # Trained without the next-sentence task, its head and the pooler are still the random numbers they began as.
    untrained = "next_sentence" in rows[0].parts and description.next_sentence == "none" and not description.absent
    left_out = ("pooler", "next_sentence") if untrained else description.absent
    there = tuple(part for part in rows[0].parts if part not in left_out)
    if wanted:
        missing = [part for part in wanted.parts if part not in there]
        if missing:
            name = family.prefix + wanted.suffix
            raise InputError(f"The model in {directory} has no {' and no '.join(missing)}, so it cannot be written as a {name}.")
        return wanted, wanted.parts
    # A bare encoder is a model with or without its pooler.
    found = next((row for row in (*rows, BARE) if row.parts == there), BARE if there == ENCODER else None)
    if found is None or not set(there) <= family.parts(description.encoder).keys():
        raise InputError(
            f"The model in {directory} has the parts {', '.join(there)}, and no class of transformers has just these. Name one that has "
            "some of them with --architecture, or import the model with --initialize-missing."
        )
    return found, there
