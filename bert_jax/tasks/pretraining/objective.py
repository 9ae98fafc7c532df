"""The pre-training objective: masked language modeling and next-sentence prediction."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bert_jax.config import MaskingConfig
from bert_jax.model.bert import Batch, PretrainingModel
from bert_jax.training.losses import Mean, classification_metrics
from bert_jax.training.masking import mask_tokens
from bert_jax.training.objective import Metrics, row_metrics


@dataclass(frozen=True)
class PretrainingObjective:
    """The sum of the masked-language-modeling and next-sentence losses (Devlin et al. 2019, section 3.1).

    Attributes:
        token_characters: how many characters each token stands for, [V]; empty if tokens do not stand for text.
    """

    model: PretrainingModel
    masking: MaskingConfig
    special_ids: tuple[int, ...]
    mask_id: int
    ordinary_ids: tuple[int, ...]
    token_characters: tuple[int, ...] = ()

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
        """Return the loss and accuracy of both heads, and in evaluation also the masked tokens' bits per character."""
        output = self.model.apply({"params": params}, batch, keys)
        masked = classification_metrics("mlm", output.masked_tokens, batch["masked_labels"], batch["masked_weights"])
        if keys is None and self.token_characters:
            masked["mlm_bits_per_character"] = self._bits_per_character(batch, masked["mlm_loss"])
        return {
            **masked,
            **classification_metrics("nsp", output.next_sentence, batch["is_next"], batch["example_weights"]),
            **row_metrics(batch),
        }

    def _bits_per_character(self, batch: Batch, loss: Mean) -> Mean:
        """Return the bits of all masked tokens over the characters that these tokens stand for.

        Unlike the loss, which is per token, it can be compared between vocabularies (see docs/vocabularies.md).
        """
        characters = jnp.asarray(self.token_characters, jnp.float32)[batch["masked_labels"]]
        return Mean(loss.total / math.log(2), (characters * batch["masked_weights"]).sum())
