"""The loss, metrics and probabilities of classification."""

from functools import partial
from typing import Any

import jax

from bert_jax.model.bert import Batch, ClassificationModel
from bert_jax.training.losses import classification_metrics
from bert_jax.training.objective import Metrics


@partial(jax.jit, static_argnames="model")
def class_probabilities(model: ClassificationModel, params: Any, batch: Any) -> jax.Array:
    """Return the class probabilities, float32 [B, E, C]. Compiled once per architecture and batch shape, for any parameters."""
    return jax.nn.softmax(model.apply({"params": params}, batch), axis=-1)


def measure(scores: jax.Array, batch: Batch) -> Metrics:
    """Return the cross-entropy loss and accuracy of logits [B, E, C]."""
    metrics = classification_metrics("class", scores, batch["labels"], batch["example_weights"])
    return {"loss": metrics["class_loss"], "accuracy": metrics["class_accuracy"]}
