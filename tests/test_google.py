"""Google's TensorFlow checkpoints: one is written by TensorFlow itself, with the names of google-research/bert, and read."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import tiny

import bert_jax
from bert_jax.convert.configuration import config_values
from bert_jax.convert.imports import read_source
from bert_jax.convert.layouts import to_tensors
from bert_jax.errors import InputError
from bert_jax.families.bert import BERT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of TensorFlow's own imports
    tf = pytest.importorskip("tensorflow")

_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def _variable(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """The name and layout that google-research/bert gives a tensor of transformers."""
    path = re.sub(r"layer\.(\d+)", r"layer_\1", name).split(".")
    if path[-2] in _TABLES or path[-2:] == ["predictions", "bias"] or "seq_relationship" in path:
        last = {"weight": "output_weights", "bias": "output_bias"}[path[-1]] if path[0] == "cls" else None
        return "/".join([*path[:-1], last] if last else path[:-1]), tensor
    norm = path[-2] == "LayerNorm"
    path[-1] = {("weight", True): "gamma", ("bias", True): "beta", ("weight", False): "kernel"}.get((path[-1], norm), "bias")
    return "/".join(path), tensor if norm or tensor.ndim == 1 else tensor.T


def _write(directory: Path) -> dict[str, Any]:
    """A checkpoint with the optimizer's variables beside the model's, and the parameters in our layout."""
    params = foreign.parameters(foreign.HEADS["BertForPreTraining"])
    vocabulary = foreign.tokenizer()
    vocabulary.save(directory)
    variables = dict(_variable(name, tensor) for name, tensor in to_tensors(params, BERT.entries(foreign.ENCODER, params)).items())
    moments = {f"{name}/adam_{moment}": np.ones_like(value) for name, value in variables.items() for moment in "mv"}
    saved = variables | moments | {"global_step": np.int64(1000)}
    tf.raw_ops.SaveV2(
        prefix=str(directory / "bert_model.ckpt"),
        tensor_names=list(saved),
        shape_and_slices=[""] * len(saved),
        tensors=[tf.constant(value) for value in saved.values()],
    )
    values = config_values(BERT, foreign.ENCODER, vocabulary.vocab_size, 0)
    (directory / "bert_config.json").write_text(json.dumps(values))
    return params


def test_a_checkpoint_that_tensorflow_wrote_is_read_bit_by_bit(tmp_path: Path) -> None:
    wanted = tiny.flat(_write(tmp_path))
    imported = read_source(tmp_path)
    found = tiny.flat(imported.params)
    assert found.keys() == wanted.keys()
    assert all(found[path].tobytes() == array.tobytes() for path, array in wanted.items())
    assert imported.unused == imported.initialized == ()
    assert imported.description.encoder == foreign.ENCODER
    assert len(bert_jax.load(tmp_path).fill_mask("很[MASK]", top_k=3)[0]) == 3


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
    whole = bytearray(data.read_bytes())
    whole[::100] = bytes(byte ^ 1 for byte in whole[::100])  # the optimizer's variables are not read
    for damage in (lambda: data.write_bytes(whole), lambda: data.write_bytes(whole[:100]), data.unlink):
        damage()
        with pytest.raises(InputError, match=r"bert_model.ckpt.index is damaged or its .data file is missing"):
            read_source(tmp_path)
