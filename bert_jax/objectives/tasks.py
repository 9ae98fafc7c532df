"""The two things a step can learn: pre-training (masked tokens, next sentence) and classification.

A task turns a batch into sums and counts. Its loss is the sum over `losses` of total / normaliser, where the normalisers
are counted over the whole batch before it is cut for accumulation, so accumulating changes no gradient.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bert_jax.config import MaskingConfig
from bert_jax.model.bert import Batch, ClassificationModel, PretrainingModel
from bert_jax.objectives.losses import Mean, classification_metrics
from bert_jax.objectives.masking import mask_tokens

Metrics = dict[str, Mean]


class Task(Protocol):
    """What the training step needs to know of a task."""

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the metrics whose means are added up to the loss."""

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch as the model sees it (corrupted, for instance), drawn from `key`."""

    def normalisers(self, batch: Batch) -> dict[str, jax.Array]:
        """The count of each loss over a prepared batch."""

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Sums and counts over a prepared batch; keys of its rows [B] turn dropout on."""


def row_metrics(batch: Batch) -> Metrics:
    """How full the rows are: `real_tokens` (a sum over one step) and `padding` (a share)."""
    slots = jnp.float32(batch["example_ids"].size)
    real = (batch["example_ids"] > 0).sum().astype(jnp.float32)
    return {"real_tokens": Mean(real, jnp.float32(1)), "padding": Mean(slots - real, slots)}


@dataclass(frozen=True)
class PretrainingTask:
    """Masked language model and next-sentence prediction, added up (Devlin et al. 2019, section 3.1)."""

    model: PretrainingModel
    masking: MaskingConfig
    special_ids: tuple[int, ...]
    mask_id: int
    ordinary_ids: tuple[int, ...]

    losses = ("mlm_loss", "nsp_loss")

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Covers tokens: adds `masked_positions`, `masked_labels`, `masked_weights` [B, M]."""
        masked = mask_tokens(
            key,
            batch["tokens"],
            batch["word_starts"],
            self.special_ids,
            self.mask_id,
            jnp.asarray(self.ordinary_ids, jnp.int32),
            self.masking,
        )
        return {
            **batch,
            "tokens": masked.tokens,
            "masked_positions": masked.positions,
            "masked_labels": masked.labels,
            "masked_weights": masked.weights,
        }

    def normalisers(self, batch: Batch) -> dict[str, jax.Array]:
        """Masked tokens and labelled pairs in the batch."""
        return {"mlm_loss": batch["masked_weights"].sum(), "nsp_loss": batch["example_weights"].sum()}

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Loss and accuracy of both heads."""
        output = self.model.apply({"params": params}, batch, keys)
        return {
            **classification_metrics("mlm", output.masked_tokens, batch["masked_labels"], batch["masked_weights"]),
            **classification_metrics("nsp", output.next_sentence, batch["is_next"], batch["example_weights"]),
            **row_metrics(batch),
        }


@dataclass(frozen=True)
class ClassificationTask:
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
