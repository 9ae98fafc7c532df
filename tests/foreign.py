"""Hugging Face directories for tests: written by hand from random numbers, in the forms that are found in the wild."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import random_parameters
from safetensors.numpy import save_file

from bert_jax.config import EncoderConfig, VocabularyConfig
from bert_jax.convert.configuration import config_values
from bert_jax.convert.layouts import to_tensors
from bert_jax.families.bert import BERT
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model.directory import ModelDescription

ENCODER = EncoderConfig(layers=2, width=32, heads=2, feed_forward=64, max_positions=48)
LABELS = ("bad", "so so", "good")
TEXT = ["这家酒店的服务很好。房间也很干净", "再也不来了,太差", "the cat sat on the mat, good"]

HEADS = {
    "BertForPreTraining": ("pooler", "masked_token", "next_sentence"),
    "BertForMaskedLM": ("masked_token",),
    "BertForNextSentencePrediction": ("pooler", "next_sentence"),
    "BertForSequenceClassification": ("pooler", "classifier"),
    "BertModel": ("pooler",),
}
"""The classes of transformers and the parts of the model that each has beside embeddings and encoder."""


def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT, VocabularyConfig(size=100, min_frequency=1), show_progress=False)


def parameters(heads: Iterable[str], seed: int = 0) -> dict[str, Any]:
    """Random parameters of a model with these heads, as numpy arrays."""
    heads = tuple(heads)
    kind: Any = "classification" if "classifier" in heads else "pretraining"
    description = ModelDescription(kind, ENCODER, 48, labels=LABELS if kind == "classification" else ())
    params = random_parameters(description, tokenizer().vocab_size, seed)
    return {part: to_numpy(params[part]) for part in ("embeddings", "encoder", *heads)}


def to_numpy(tree: Any) -> Any:
    return {name: to_numpy(value) for name, value in tree.items()} if isinstance(tree, dict) else np.asarray(tree)


def write(
    directory: Path,
    architecture: str = "BertForPreTraining",
    heads: Iterable[str] | None = None,
    rename: Callable[[str], str] = lambda name: name,
    dtype: Any = np.float32,
    shards: int = 1,
    **config: Any,
) -> dict[str, Any]:
    """Writes a directory as `save_pretrained` does, and returns the parameters in our layout."""
    params = parameters(HEADS[architecture] if heads is None else heads)
    vocabulary = tokenizer()
    vocabulary.save(directory)
    tensors = {rename(name): tensor.astype(dtype) for name, tensor in to_tensors(params, BERT.entries(ENCODER, params)).items()}
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        parts = {f"model-{i + 1:05d}-of-{shards:05d}.safetensors": names[i::shards] for i in range(shards)}
        for file, members in parts.items():
            save_file({name: tensors[name] for name in members}, directory / file)
        index = {"metadata": {}, "weight_map": {name: file for file, members in parts.items() for name in members}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    values = {"architectures": [architecture], **config_values(BERT, ENCODER, vocabulary.vocab_size, 0), "dtype": "float32"}
    if "classifier" in params:
        values["id2label"] = {str(i): label for i, label in enumerate(LABELS)}
    (directory / "config.json").write_text(json.dumps({name: value for name, value in (values | config).items() if value is not None}))
    return params
