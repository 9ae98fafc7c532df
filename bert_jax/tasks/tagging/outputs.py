"""The outputs of a tagger and their loss. Programs are compiled once per architecture and batch shape, for any parameters."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.model.bert import Batch
from bert_jax.training.losses import Mean, cross_entropy, weighted_mean


@partial(jax.jit, static_argnames="model")
def most_probable(model: Any, params: Any, batch: Any) -> jax.Array:
    """Return the most probable tag of each token and its probability, float32 [B, L, 2]."""
    probabilities = jax.nn.softmax(model.apply({"params": params}, batch))
    return jnp.stack([probabilities.argmax(-1).astype(jnp.float32), probabilities.max(-1)], -1)


def labeled_tokens(batch: Batch) -> jax.Array:
    """Return 1 for each token that has a label, and 0 for others; float32 [B, L]."""
    return (batch["labels"] >= 0).astype(jnp.float32)


def tag_metrics(logits: jax.Array, batch: Batch, outside: int = -1) -> dict[str, Mean]:
    """Return the cross-entropy, the accuracy, and the micro-averaged F1 of tags other than the one with the index `outside`."""
    labels, weights = jnp.maximum(batch["labels"], 0), labeled_tokens(batch)
    found = logits.argmax(-1).astype(jnp.int32)
    hits, true, predicted = (
        jnp.where(one, weights, 0.0).sum() for one in ((found == labels) & (labels != outside), labels != outside, found != outside)
    )
    return {
        "loss": weighted_mean(cross_entropy(logits, labels), weights),
        "accuracy": weighted_mean((found == labels).astype(jnp.float32), weights),
        "tag_f1": Mean(2 * hits, true + predicted),
    }
