"""The losses of a whole batch of texts, in which every text is compared with those of the other pairs, on all devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from bert_jax.model.batch import ENCODER_FIELDS
from bert_jax.model.bert import Batch
from bert_jax.model.per_device import by_rows
from bert_jax.model.pooling import unit_length
from bert_jax.tasks.contrastive.pairs import ANCHOR, NEGATIVE, POSITIVE
from bert_jax.tasks.contrastive.scores import held_out_scores
from bert_jax.training.losses import Mean, weighted_mean
from bert_jax.training.microbatches import encode_in_parts
from bert_jax.training.objective import LabeledObjective, Metrics, row_metrics

_FIELDS = (*ENCODER_FIELDS, "units", "cls_positions")
_EXCLUDED = -1e9
"""The logit of what is no candidate: finite, so that a slot without candidates has finite gradients."""


@dataclass(frozen=True)
class ContrastiveObjective(LabeledObjective):
    """In-batch negatives for pairs, or CoSENT for scored pairs, over a global batch with the targets of `single_texts`.

    Attributes:
        model: returns vectors, float32 [B, E, D].
        scored: whether the pairs have scores.
        temperature: divides the cosines.
        symmetric: whether positives are also matched to anchors.
        microbatches: encode the batch in so many parts (gradient caching).
    """

    scored: bool
    temperature: float
    symmetric: bool = False
    microbatches: int = 1

    def normalizers(self, batch: Batch) -> dict[str, jax.Array]:
        """Count the pairs, or the batch: CoSENT is one number for all its pairs."""
        return {"loss": jnp.float32(1) if self.scored else _weights(batch, ANCHOR).sum()}

    def metrics(self, params: Any, batch: Batch, keys: jax.Array | None) -> Metrics:
        """Return the loss and, for pairs, `in_batch_accuracy`: how many anchors are nearest to their own positive."""
        return self._measure(self.vectors(params, batch, keys), batch)

    def evaluated(self, params: Any, batch: Batch) -> tuple[Metrics, Any]:
        """Return the metrics of a held-out batch, and its vectors with their targets and weights."""
        vectors = self.vectors(params, batch, None)
        return self._measure(vectors, batch), (vectors, batch["labels"], batch["example_weights"])

    def together(self, outputs: Sequence[Any]) -> dict[str, float]:
        """Return how well the vectors of all held-out batches retrieve positives, or rank pairs."""
        slots = [[part.reshape(-1, *part.shape[2:]) for part in batch] for batch in outputs]
        vectors, targets, weights = map(np.concatenate, zip(*slots, strict=True))
        return held_out_scores(vectors[weights > 0], targets[weights > 0], self.scored)

    def vectors(self, params: Any, batch: Batch, keys: jax.Array | None) -> jax.Array:
        """Return the vectors of the batch, float32 [B, E, D].

        Raises:
            InputError: the rows of a device cannot be divided into microbatches.
        """

        def encode(params: Any, batch: Batch, keys: jax.Array | None) -> jax.Array:
            return self.model.apply({"params": params}, batch, keys)

        fields = {name: batch[name] for name in _FIELDS if name in batch}
        if self.microbatches == 1:
            return encode(params, fields, keys)
        return encode_in_parts(encode, params, fields, keys, self.microbatches)

    def _measure(self, vectors: jax.Array, batch: Batch) -> Metrics:
        slots = batch["example_weights"].size
        vectors = unit_length(by_rows(vectors).reshape(slots, -1))
        cosines = jnp.matmul(vectors, _on_every_device(vectors).T, precision="highest")  # divided by a small temperature
        loss = self._ranking(cosines, batch) if self.scored else self._matching(cosines, batch)
        return {**loss, **row_metrics(batch)}

    def _ranking(self, cosines: jax.Array, batch: Batch) -> Metrics:
        """CoSENT (Huang et al. 2024, equation 6): every pair of pairs with different scores should have cosines in the same order."""
        _, _, _, rank = _slots(batch)
        own = jnp.where(_own(batch), cosines, 0.0).sum(1) / self.temperature
        anchor = _weights(batch, ANCHOR) > 0
        wrong = own[:, None] - own[None, :]
        comparable = anchor[:, None] & anchor[None, :] & (rank[:, None] < rank[None, :])
        differences = jnp.where(comparable, wrong, _EXCLUDED)
        return {"loss": Mean(jax.nn.logsumexp(jnp.append(differences.ravel(), jnp.float32(0))), jnp.float32(1))}

    def _matching(self, cosines: jax.Array, batch: Batch) -> Metrics:
        """Cross entropy of each anchor's positive among all texts of the second and third column (Henderson et al. 2017, section 4.4).

        The temperature is that of van den Oord et al. 2018, and the mean with the loss of the positives among the anchors, if symmetric,
        that of CLIP (Radford et al. 2021).
        """
        _, _, text, positive = _slots(batch)
        of_anchors, of_positives, of_negatives = (_weights(batch, role) for role in (ANCHOR, POSITIVE, NEGATIVE))
        anchor, own = of_anchors > 0, _own(batch)
        # Known pairs: i has the text of an anchor whose positive has the text of j.
        same_anchor = (anchor[:, None] & anchor[None, :] & (text[:, None] == text[None, :])).astype(jnp.float32)
        its_positive = (anchor[:, None] & (positive[:, None] == text[None, :])).astype(jnp.float32)
        related = (same_anchor @ its_positive > 0) | (text[:, None] == text[None, :])
        logits = cosines / self.temperature

        def entropy(logits: jax.Array, own: jax.Array, candidate: jax.Array, related: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = jnp.where(own | (candidate[None, :] & ~related), logits, _EXCLUDED)
            target = jnp.where(own, logits, 0.0).sum(1)
            return jax.nn.logsumexp(logits, axis=1) - target, (target >= logits.max(1)).astype(jnp.float32)

        losses, correct = entropy(logits, own, of_positives + of_negatives > 0, related)
        loss = weighted_mean(losses, of_anchors)
        if self.symmetric:
            backward, _ = entropy(logits.T, own.T, anchor, related.T)
            reverse = weighted_mean(backward, of_positives)
            loss = Mean((loss.total + reverse.total) / 2, loss.count)
        return {"loss": loss, "in_batch_accuracy": weighted_mean(correct, of_anchors)}


def _slots(batch: Batch) -> tuple[jax.Array, ...]:
    """Return the four targets of each slot, int32 [B * E] each; see `single_texts`."""
    pair, role, text, of_pair = batch["labels"].reshape(-1, 4).T
    return pair, role, text, of_pair


def _weights(batch: Batch, wanted: int) -> jax.Array:
    """Return the weights of the slots with texts of a role, and 0 for others, float32 [B * E]."""
    _, role, _, _ = _slots(batch)
    return jnp.where(role == wanted, batch["example_weights"].ravel(), 0.0)


def _own(batch: Batch) -> jax.Array:
    """Return whether slot j has the positive of the anchor in slot i, bool [B * E, B * E]."""
    pair, _, _, _ = _slots(batch)
    anchor, positive = (_weights(batch, role) > 0 for role in (ANCHOR, POSITIVE))
    return anchor[:, None] & positive[None, :] & (pair[:, None] == pair[None, :])


def _on_every_device(x: jax.Array) -> jax.Array:
    """Gather an array from all devices of the context mesh, if there is one."""
    return x if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(x, PartitionSpec())
