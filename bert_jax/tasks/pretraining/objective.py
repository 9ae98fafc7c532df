"""The pre-training objective: masked language modeling and next-sentence prediction."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import MaskingConfig
from bert_jax.model.bert import Batch, PretrainingModel
from bert_jax.training.losses import classification_metrics
from bert_jax.training.masking import mask_tokens
from bert_jax.training.objective import Metrics, row_metrics


@dataclass(frozen=True)
class PretrainingObjective:
    """The sum of the masked-language-modeling and next-sentence losses (Devlin et al. 2019, section 3.1)."""

    model: PretrainingModel
    masking: MaskingConfig
    special_ids: tuple[int, ...]
    mask_id: int
    ordinary_ids: tuple[int, ...]

    losses = ("mlm_loss", "nsp_loss")

    def augment(self, batch: Batch, key: jax.Array) -> Batch:
        """Return the batch unchanged."""
        del key
        return batch

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Mask tokens and add `masked_positions`, `masked_labels` and `masked_weights`, each [B, M], to the batch."""
        masked = mask_tokens(
            key,
            batch["tokens"],
            batch["word_starts"],
            self.special_ids,
            self.mask_id,
            jnp.asarray(self.ordinary_ids, jnp.int32),
            self.masking,
            batch.get("units"),
        )
        return {
            **batch,
            **({} if masked.units is None else {"units": masked.units}),
            "tokens": masked.tokens,
            "masked_positions": masked.positions,
            "masked_labels": masked.labels,
            "masked_weights": masked.weights,
        }

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """Return the normalizers of the losses: the number of masked tokens and of labeled pairs in the batch."""
        return {"mlm_loss": batch["masked_weights"].sum(), "nsp_loss": batch["example_weights"].sum()}

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Return the loss and accuracy of both heads."""
        output = self.model.apply({"params": params}, batch, keys)
        return {
            **classification_metrics("mlm", output.masked_tokens, batch["masked_labels"], batch["masked_weights"]),
            **classification_metrics("nsp", output.next_sentence, batch["is_next"], batch["example_weights"]),
            **row_metrics(batch),
        }
