"""Classification: one class of several for each example."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from bert_jax.model.bert import Batch, ClassificationModel
from bert_jax.training.losses import classification_metrics
from bert_jax.training.objective import Metrics, row_metrics


@partial(jax.jit, static_argnames="model")
def class_probabilities(model: ClassificationModel, params: Any, batch: Any) -> jax.Array:
    """Float32 [B, E, C]; compiled once for each architecture and shape, whatever the parameters."""
    return jax.nn.softmax(model.apply({"params": params}, batch), axis=-1)


@dataclass(frozen=True)
class ClassificationObjective:
    """Cross entropy over the classes of each example."""

    model: ClassificationModel

    losses = ("loss",)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch as it is."""
        del key
        return batch

    def normalisers(self, batch: Batch) -> dict[str, jax.Array]:
        """Labelled examples in the batch."""
        return {"loss": batch["example_weights"].sum()}

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Loss and accuracy of the classifier."""
        scores = self.model.apply({"params": params}, batch, keys)
        found = classification_metrics("class", scores, batch["labels"], batch["example_weights"])
        return {"loss": found["class_loss"], "accuracy": found["class_accuracy"], **row_metrics(batch)}
