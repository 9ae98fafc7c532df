"""The outputs of a question answering model and their loss. Programs are compiled once per architecture and batch shape."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.model.bert import Batch
from bert_jax.tasks.answering.passages import END, START
from bert_jax.training.losses import Mean, weighted_mean

_NEVER = -1e30
"""Instead of minus infinity, which is not a number if all tokens have it, as in empty slots."""


@partial(jax.jit, static_argnames="model")
def span_logits(model: Any, params: Any, batch: Any) -> jax.Array:
    """Return the logits of each token as the start and as the end of the answer, and those of its example's [CLS]; float32 [B, L, 4]."""
    logits = model.apply({"params": params}, batch)
    cls = _cls_logits(logits, batch)
    own = jnp.take_along_axis(cls, jnp.maximum(batch["example_ids"] - 1, 0)[..., None], axis=1)
    return jnp.concatenate([logits, own], -1)


def span_metrics(logits: jax.Array, batch: Batch) -> dict[str, Mean]:
    """Return the mean cross-entropy of starts and ends over the tokens of each window (Devlin et al. 2019, section 4.2), and the share of
    windows of which both are the most probable. Without an answer, both are at [CLS] (section 4.3).

    Args:
        logits: float32 [B, L, 2].
        batch: with labels int32 [B, L] of the bits `START` and `END`; those of special tokens are negative.
    """  # fmt: skip
    slots = jnp.arange(1, 1 + batch["cls_positions"].shape[1], dtype=jnp.int32)
    inside = (batch["example_ids"][:, None] == slots[:, None])[..., None]  # [B, E, L, 1]
    labels = jnp.maximum(batch["labels"], 0)
    true = inside & (jnp.stack([labels & START, labels & END], -1) > 0)[:, None]  # [B, E, L, 2]
    # A sum with a single term is exact, unlike a product of matrices.
    chosen = jnp.where(true, logits[:, None], 0).sum(2)
    expected = jnp.where(true.any(2).all(-1, keepdims=True), chosen, _cls_logits(logits, batch))  # [B, E, 2]
    among = jnp.where(inside, logits[:, None], _NEVER)
    weights = batch["example_weights"]
    losses = (jax.nn.logsumexp(among, axis=2) - expected).mean(-1)
    right = (expected >= among.max(2)).all(-1)
    return {
        "loss": weighted_mean(jnp.where(weights > 0, losses, 0), weights),
        "accuracy": weighted_mean(right.astype(jnp.float32), weights),
    }


def _cls_logits(logits: jax.Array, batch: Batch) -> jax.Array:
    """Return the logits of each example's [CLS], [B, E, 2]."""
    return jnp.take_along_axis(logits, batch["cls_positions"][..., None], axis=1)
