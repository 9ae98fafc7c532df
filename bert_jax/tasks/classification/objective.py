"""The loss, metrics and probabilities of classification."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.model.bert import Batch, ClassificationModel
from bert_jax.training.losses import classification_metrics, weighted_mean
from bert_jax.training.objective import Metrics


@partial(jax.jit, static_argnames="model")
def class_probabilities(model: ClassificationModel, params: Any, batch: Any) -> jax.Array:
    """Return the class probabilities, float32 [B, E, C]. Compiled once per architecture and batch shape, for any parameters."""
    return jax.nn.softmax(model.apply({"params": params}, batch), axis=-1)


def measure(scores: jax.Array, batch: Batch, class_weights: Sequence[float] = (), smoothing: float = 0.0) -> Metrics:
    """Return the cross-entropy loss and accuracy of logits [B, E, C].

    Args:
        scores: the logits.
        batch: has the classes `labels` [B, E] and `example_weights` [B, E].
        class_weights: the weight of each class in the loss, C numbers; none for 1.
        smoothing: the share of each label that is spread evenly over all classes (Szegedy et al. 2016, section 7).
    """
    labels, weights = batch["labels"], batch["example_weights"]
    metrics = classification_metrics("class", scores, labels, weights)
    loss = metrics["class_loss"]
    if class_weights or smoothing:
        importance = jnp.asarray(class_weights or [1.0] * scores.shape[-1], jnp.float32)
        surprises = -jax.nn.log_softmax(scores) * importance
        own = jnp.take_along_axis(surprises, labels[..., None], axis=-1)[..., 0]
        loss = weighted_mean((1 - smoothing) * own + smoothing * surprises.mean(-1), weights)
    return {"loss": loss, "accuracy": metrics["class_accuracy"]}


def balanced(classes: np.ndarray, count: int) -> tuple[float, ...]:
    """Return weights of `count` classes with which all have the same share in the loss of examples of these `classes`, int32 [n].

    Their mean over the examples is 1. As scikit-learn's `class_weight="balanced"`; a class without examples has the weight 1.
    """
    numbers = np.bincount(classes, minlength=count)
    present = np.count_nonzero(numbers)
    return tuple(len(classes) / (present * number) if number else 1.0 for number in numbers.tolist())
