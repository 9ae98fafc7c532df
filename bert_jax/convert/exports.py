"""A model directory -> a directory that `transformers` loads, with a model card."""

import shutil
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from bert_jax.convert.huggingface import CLASSIFICATION_PARTS, PRETRAINING_PARTS, config_values, to_tensors
from bert_jax.convert.model_card import model_card
from bert_jax.convert.sentence_transformers import write_modules
from bert_jax.convert.tensor_files import SINGLE
from bert_jax.errors import InputError
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import EmbeddingConfig, ModelDescription, write_json
from bert_jax.storage.files import on_disk, resolve_path
from bert_jax.tasks.stored import stored_parameters

ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "BertForPreTraining": PRETRAINING_PARTS,
    "BertForMaskedLM": ("embeddings", "encoder", "masked_token"),
    "BertForNextSentencePrediction": ("embeddings", "encoder", "pooler", "next_sentence"),
    "BertForSequenceClassification": CLASSIFICATION_PARTS,
    "BertModel": ("embeddings", "encoder", "pooler"),
}
"""The classes of transformers that can be written, and the parts of the model that each holds."""

_PREFIX = "bert."


def export_model(directory: str | Path, out: str | Path, license_name: str = "", architecture: str = "") -> str:
    """Writes the model in `directory` (the newest checkpoint, of a classifier the best) to the new directory `out`.

    Args:
        architecture: one of `ARCHITECTURES`, to write the parts that it has alone; empty writes all that there are.

    Returns:
        The name of the `transformers` class whose weights these are.

    Raises:
        InputError: there is no model, `out` is not empty, the architecture is unknown, or the model has no equivalent in `transformers`.
    """
    directory, out = resolve_path(directory), on_disk(out, "OUT")
    if architecture and architecture not in ARCHITECTURES:
        raise InputError(f"There is no architecture {architecture!r} to write: choose one of {', '.join(ARCHITECTURES)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already and is not an empty directory: name another one.")
    description, tokenizer = model_directory.read(directory)
    architecture, parts = _architecture(directory, description, architecture)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    params = stored_parameters(directory, description, tokenizer, device, parts)
    tensors = to_tensors(jax.tree.map(np.asarray, params), description.encoder.layers, parts)
    if architecture == "BertModel":
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    rows = tokenizer.vocab_size + description.spare_rows
    values = {"architectures": [architecture], **config_values(description.encoder, rows, tokenizer.pad_id)}
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
    (unfinished / "README.md").write_text(model_card(directory, description, tokenizer, architecture, license_name), encoding="utf-8")
    if out.exists():
        out.rmdir()
    unfinished.rename(out)
    return architecture


def _architecture(directory: Path, description: ModelDescription, wanted: str) -> tuple[str, tuple[str, ...]]:
    """The class of `transformers` with these heads, or the wanted one, and the parts of the model that it holds."""
    if description.kind == "classification" and description.pooling != "cls":
        raise InputError(
            f"The classifier in {directory} reads the mean of all tokens (finetune.task.pooling=mean), and transformers' "
            "BertForSequenceClassification reads [CLS] alone, so it cannot be exported. Fine-tune with --config.finetune.task.pooling=cls."
        )
    whole = CLASSIFICATION_PARTS if description.kind == "classification" else PRETRAINING_PARTS
    # Trained without the next-sentence task, its head and the pooler are still the random numbers they began as.
    untrained = description.kind == "pretraining" and description.next_sentence == "none" and not description.absent
    left_out = ("pooler", "next_sentence") if untrained else description.absent
    there = tuple(part for part in whole if part not in left_out)
    if wanted:
        missing = [part for part in ARCHITECTURES[wanted] if part not in there]
        if missing:
            raise InputError(f"The model in {directory} has no {' and no '.join(missing)}, so it cannot be written as a {wanted}.")
        return wanted, ARCHITECTURES[wanted]
    # A bare encoder is a BertModel with or without its pooler.
    names = {parts: name for name, parts in ARCHITECTURES.items()} | {("embeddings", "encoder"): "BertModel"}
    if there not in names:
        raise InputError(
            f"The model in {directory} has the parts {', '.join(there)}, and no class of transformers has just these. Name one that has "
            "some of them with --architecture, or import the model with --initialize-missing."
        )
    return names[there], there
