"""BERT models: the encoder with heads, for pre-training and over examples or tokens, or with pooling alone, for embeddings."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.model.directory import InputDescription
from bert_jax.model.dropout import dropout, split_rows
from bert_jax.model.embeddings import EMBEDDINGS
from bert_jax.model.encoder import Encoder
from bert_jax.model.heads import LinearHead, MaskedTokenHead, Pooler, example_mean, gather_positions
from bert_jax.model.per_device import by_rows
from bert_jax.model.pooling import pool, pooling_modes, unit_length

Batch: TypeAlias = Mapping[str, jax.Array]

# Parameters that a classifier inherits from a pre-trained model.
SHARED_PARAMETERS = ("embeddings", "encoder", "pooler")


class PretrainingOutput(NamedTuple):
    """Float32 logits: of every token at the masked positions [B, M, V], and of (not next, next) [B, E, 2]."""

    masked_tokens: jax.Array
    next_sentence: jax.Array


class BertModel(nn.Module):
    """Embeddings and encoder, shared by all BERT models; subclasses add the heads."""

    vocab_size: int
    config: EncoderConfig
    compute: ComputeConfig
    input: InputDescription = dataclasses.field(default=InputDescription(), kw_only=True)
    """What enters the encoder, which selects the embeddings."""

    head_reads: ClassVar[Mapping[str, str]] = {}
    """For each head, by the top-level name of its parameters, the batch field that it reads in addition to the encoder's."""

    def setup(self) -> None:
        embeddings = EMBEDDINGS[self.input.embedding]
        self.embeddings = embeddings(self.vocab_size, self.config, jnp.dtype(self.compute.dtype), self.input.grid)
        self.encoder = Encoder(self.config, self.compute)

    def embed(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Return the vectors [B, L, D] of a batch, as they enter the encoder."""
        vectors: jax.Array = self.embeddings(**{name: batch[name] for name in self.embeddings.reads}, keys=keys)
        return vectors

    def encode(self, batch: Batch, keys: jax.Array | None = None, every_layer: bool = False) -> tuple[jax.Array, jax.Array | None]:
        """Return the hidden states [B, L, D] of a batch and, if `every_layer`, those of the embeddings and all layers [N + 1, B, L, D].

        A batch that has them as the field `hidden` was encoded by another inference engine; one that has `vectors` [B, L, D] was embedded.
        """
        if "hidden" in batch:
            return batch["hidden"], None
        vector_keys, layer_keys = split_rows(keys, 2)
        vectors = batch["vectors"] if "vectors" in batch else self.embed(batch, vector_keys)
        hidden, states = self.encoder(vectors, batch["example_ids"], layer_keys, every_layer)
        return hidden, None if states is None else jnp.concatenate([vectors[None], states])

    def queries_and_keys(self, batch: Batch) -> jax.Array:
        """Return the queries and keys of every layer, float32 [B, L, N, 2, D]; those of the H heads are consecutive in D."""
        _, states = self.encode(batch, every_layer=True)
        assert states is not None
        return self.encoder.queries_and_keys(states[:-1])


class PretrainingModel(BertModel):
    """BERT with its two pre-training heads (Devlin et al. 2019, section 3.1)."""

    head_reads: ClassVar[Mapping[str, str]] = {"masked_token": "masked_positions", "next_sentence": "cls_positions"}

    def setup(self) -> None:
        super().setup()
        dtype = jnp.dtype(self.compute.dtype)
        self.pooler = Pooler(self.config, dtype)
        self.masked_token = MaskedTokenHead(self.config, dtype, "scores" in self.compute.fused)
        self.next_sentence = LinearHead(2, self.config)

    def masked_token_logits(self, vectors: jax.Array) -> jax.Array:
        """Return the logits of every token: [..., D] -> float32 [..., V]."""
        return self.masked_token(vectors, self.embeddings.table())

    def next_sentence_logits(self, hidden: jax.Array, cls_positions: jax.Array) -> jax.Array:
        """Return the logits of (not next, next): [B, L, D], [B, E] -> float32 [B, E, 2]."""
        return self.next_sentence(self.pooler(gather_positions(hidden, cls_positions)))

    def masked_token_scores(self, vectors: jax.Array) -> jax.Array:
        """Deprecated alias of `masked_token_logits`."""
        warnings.warn("masked_token_scores is now masked_token_logits.", DeprecationWarning, stacklevel=2)
        return self.masked_token_logits(vectors)

    def next_sentence_scores(self, hidden: jax.Array, cls_positions: jax.Array) -> jax.Array:
        """Deprecated alias of `next_sentence_logits`."""
        warnings.warn("next_sentence_scores is now next_sentence_logits.", DeprecationWarning, stacklevel=2)
        return self.next_sentence_logits(hidden, cls_positions)

    def outputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Return the hidden states [B, L, D], and the logits of each head whose field is in the batch, by name."""
        hidden, _ = self.encode(batch)
        found = {"hidden": hidden}
        if "masked_positions" in batch:
            found["masked_tokens"] = self.masked_token_logits(gather_positions(hidden, batch["masked_positions"]))
        if "cls_positions" in batch:
            found["next_sentence"] = self.next_sentence_logits(hidden, batch["cls_positions"])
        return found

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> PretrainingOutput:
        """Apply both heads to a batch that includes `masked_positions` [B, M]; per-row keys [B, 2] enable dropout."""
        hidden, _ = self.encode(batch, keys)
        return PretrainingOutput(
            self.masked_token_logits(gather_positions(hidden, batch["masked_positions"])),
            self.next_sentence_logits(hidden, batch["cls_positions"]),
        )


class ClassificationModel(BertModel):
    """Encoder with a linear layer over each example's pooled [CLS] vector or its mean vector."""

    head_reads: ClassVar[Mapping[str, str]] = {"classifier": "cls_positions"}

    classes: int = 2
    pooling: Literal["cls", "mean"] = "cls"
    head_dropout: float = 0.0

    def setup(self) -> None:
        super().setup()
        if self.pooling == "cls":
            self.pooler = Pooler(self.config, jnp.dtype(self.compute.dtype))
        self.classifier = LinearHead(self.classes, self.config)

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Return float32 class logits [B, E, C]; per-row keys [B, 2] enable dropout."""
        encoder_keys, head_keys = split_rows(keys, 2)
        hidden, _ = self.encode(batch, encoder_keys)
        if self.pooling == "cls":
            pooled = self.pooler(gather_positions(hidden, batch["cls_positions"])).astype(jnp.float32)
        else:
            pooled = example_mean(hidden, batch["example_ids"], batch["cls_positions"].shape[1])
        return self.classifier(dropout(pooled, self.head_dropout, head_keys))

    def outputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Return the logits [B, E, C] by name."""
        return {"scores": self(batch)}


class TokenModel(BertModel):
    """Encoder with a linear layer over the vector of every token, whose parameters are called `head`."""

    classes: int = 2
    head: str = "head"
    head_dropout: float = 0.0

    def setup(self) -> None:
        super().setup()
        setattr(self, self.head, LinearHead(self.classes, self.config))

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Return float32 logits [B, L, C]; per-row keys [B, 2] enable dropout."""
        encoder_keys, head_keys = split_rows(keys, 2)
        hidden, _ = self.encode(batch, encoder_keys)
        logits: jax.Array = getattr(self, self.head)(dropout(hidden, self.head_dropout, head_keys))
        return logits

    def outputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Return the logits [B, L, C] by name."""
        return {"scores": self(batch)}


class EmbeddingModel(BertModel):
    """Encoder whose hidden states are pooled into one vector per example, without a head."""

    head_reads: ClassVar[Mapping[str, str]] = {"encoder": "cls_positions"}

    pooling: str = "mean"
    normalize: bool = True

    def __call__(self, batch: Batch, keys: jax.Array | None = None) -> jax.Array:
        """Return vectors, float32 [B, E, D * modes], of length 1 if the model normalizes; per-row keys [B, 2] enable dropout."""
        hidden, _ = self.encode(batch, keys)
        ids, positions, cls_positions = (batch[name] for name in ("example_ids", "positions", "cls_positions"))
        vectors = pool(by_rows(hidden), ids, positions, cls_positions, pooling_modes(self.pooling), jnp.int32(0))
        vectors = jnp.where(jnp.isneginf(vectors), 0.0, vectors)  # the maximum over the tokens of an empty slot
        return unit_length(vectors) if self.normalize else vectors

    def outputs(self, batch: Batch) -> dict[str, jax.Array]:
        """Return the vectors by name."""
        return {"vectors": self(batch)}
