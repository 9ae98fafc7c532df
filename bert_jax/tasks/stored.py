"""Builds stored models, using the task that their description names, and loads their parameters."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax

from bert_jax import tasks
from bert_jax.config import ComputeConfig
from bert_jax.data.reader import Reader
from bert_jax.errors import InputError
from bert_jax.modalities.base import Modality
from bert_jax.model import directory as model_directory
from bert_jax.model.batch import zero_row
from bert_jax.model.directory import ModelDescription
from bert_jax.model.embeddings import EMBEDDINGS
from bert_jax.tasks.base import Task
from bert_jax.training.checkpoints.loading import load_parameters


def build(
    description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0, others: Iterable[Task] = ()
) -> Any:
    """Return the Flax module of a described model for a vocabulary of `vocab_size` tokens.

    Raises:
        InputError: the task or the embedding is unknown.
    """
    if (embedding := description.input.embedding) not in EMBEDDINGS:
        raise InputError(f"There is no embedding {embedding!r}. The embeddings are {', '.join(EMBEDDINGS)}.")
    task = tasks.find(description.kind, others)
    return task.model(description, vocab_size + description.spare_rows, compute, head_dropout)


def parameter_shapes(description: ModelDescription, vocab_size: int, others: Iterable[Task] = ()) -> Any:
    """Return the shapes and dtypes of the parameters in the checkpoints of a described model."""
    params = _shapes(build(description, vocab_size, ComputeConfig(), others=others), description.input.units)
    return {part: params[part] for part in params if part not in description.absent}


@lru_cache(maxsize=16)
def _shapes(model: Any, units: int) -> Any:
    # Everything inside, so that nothing is compiled.
    return jax.eval_shape(lambda: model.init(jax.random.key(0), zero_row(units)))["params"]


def load_model(
    directory: Path, sharding: jax.sharding.Sharding, others: Iterable[Task] = (), modalities: Sequence[Modality[Any, Any]] = ()
) -> tuple[ModelDescription, Any, dict[str, Any]]:
    """Load the description, the tokenizer and the verified parameters of a model directory, in this process only.

    Raises:
        InputError: the directory has no model or no checkpoint, or the checkpoint is damaged or does not match the model.
    """
    description, tokenizer = model_directory.read(directory, modalities)
    return description, tokenizer, stored_parameters(directory, description, tokenizer, sharding, others=others)


def stored_parameters(
    directory: Path,
    description: ModelDescription,
    tokenizer: Reader,
    sharding: jax.sharding.Sharding,
    parts: Iterable[str] = (),
    others: Iterable[Task] = (),
) -> dict[str, Any]:
    """Load the verified parameters of a model directory, or only those of the given `parts`; see `load_model`."""
    shapes = parameter_shapes(description, tokenizer.vocab_size, others)
    selected = {part: shapes[part] for part in parts or shapes}
    placed = jax.tree.map(lambda leaf: leaf.update(sharding=sharding), selected)
    identity, best = model_directory.identity(description, tokenizer), tasks.find(description.kind, others).best
    return dict(load_parameters(directory, placed, identity, best, alone=True))
