"""Exports a model as an ONNX graph, which ONNX Runtime and other runtimes execute without JAX. Needs the package jax2onnx."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.extend.core import jaxpr_as_fun

from bert_jax.config import ComputeConfig
from bert_jax.errors import InputError
from bert_jax.model import directory as model_directory
from bert_jax.model.batch import ENCODER_FIELDS, FIELDS
from bert_jax.model.bert import BertModel
from bert_jax.storage.files import on_disk, resolve_path
from bert_jax.tasks.stored import build, stored_parameters


def export_onnx(model: BertModel, params: Any, path: str | Path) -> None:
    """Write a model as a single ONNX file that accepts batches of any size and sequence length.

    The graph's inputs are fields of the batch layout (docs/architecture.md#one-batch-shape), all int32: `tokens`, `example_ids`,
    `positions`, `segments`, and the positions that the heads read, `cls_positions` and `masked_positions`. Its outputs are
    float32: `scores` [B, E, C], the logits of a classifier; `vectors` [B, E, D] of an embedding model; or, for a pre-training
    model, `hidden` [B, L, D] and the logits `masked_tokens` [B, M, V] and `next_sentence` [B, E, 2] of the heads that are in `params`.
    It computes in float32, without dropout.

    Raises:
        InputError: jax2onnx is not installed.
    """
    try:
        with _errors_only():
            from jax2onnx import to_onnx
    except ImportError as error:
        raise InputError("ONNX export needs the package jax2onnx, which is not installed: pip install jax2onnx.") from error
    model = model.clone(compute=ComputeConfig())
    params = jax.tree.map(jnp.asarray, jax.device_get(params))
    names = dict.fromkeys((*ENCODER_FIELDS, *(field for head, field in model.head_reads.items() if head in params)))
    scope = export.SymbolicScope()
    fields = [FIELDS[name] for name in names]
    inputs = [jax.ShapeDtypeStruct(export.symbolic_shape(f"B, {axis}", scope=scope), dtype) for axis, dtype in fields]

    def outputs(*arrays: jax.Array) -> dict[str, jax.Array]:
        return model.apply({"params": params}, dict(zip(names, arrays, strict=True)), method="outputs")

    # Trace first: jax2onnx patches jax.numpy functions while it traces, which breaks Flax's parameter check.
    traced, shapes = jax.make_jaxpr(outputs, return_shape=True)(*inputs)
    with _errors_only():
        graph = to_onnx(jaxpr_as_fun(traced), inputs, input_names=list(names), output_names=list(shapes))
    Path(path).write_bytes(graph.SerializeToString())


def export_model_to_onnx(directory: str | Path, path: str | Path) -> None:
    """Apply `export_onnx` to the model in a directory.

    Raises:
        InputError: the directory has no model or one whose input is more than ids, the file already exists, or jax2onnx is not installed.
    """
    directory, path = resolve_path(directory), on_disk(path, "OUT")
    if path.exists():
        raise InputError(f"{path} already exists: choose another file name.")
    description, tokenizer = model_directory.read(directory)
    model_directory.check_tokens(description, directory)
    params = stored_parameters(directory, description, tokenizer, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
    export_onnx(build(description, tokenizer.vocab_size, ComputeConfig()), params, path)


@contextmanager
def _errors_only() -> Iterator[None]:
    # Below ERROR, these loggers are verbose about plugins of other libraries that fail to load and shapes that are not recorded.
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
