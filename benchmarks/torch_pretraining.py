"""The PyTorch loops of the pre-training benchmark, over transformers' `BertForPreTraining`.

`PlainLoop` is the loop of most tutorials. `PackedLoop` does the same work as bert_jax's step, on the same arrays, as fast as PyTorch
can on a CPU.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from machine import CORES
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForPreTraining

from bert_jax.config import EncoderConfig, MaskingConfig, OptimizerConfig
from bert_jax.convert.configuration import config_values
from bert_jax.families.bert import BERT

Arrays = Mapping[str, np.ndarray]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.set_num_threads(CORES)


def _model(encoder: EncoderConfig, vocab_size: int) -> BertForPreTraining:
    torch.manual_seed(0)
    return BertForPreTraining(BertConfig(**config_values(BERT, encoder, vocab_size, 0), attn_implementation="sdpa"))


class Loop:
    """A model and its optimizer; a subclass adds the loss."""

    def __init__(self, model: torch.nn.Module, optimizer: OptimizerConfig, dtype: str, fused: bool) -> None:
        self.model = model.train().to(DEVICE)
        self.precision = torch.autocast(DEVICE.type, torch.bfloat16, enabled=dtype == "bfloat16")
        self.clip_norm = optimizer.clip_norm
        betas, decay = (optimizer.beta1, optimizer.beta2), optimizer.weight_decay
        parameters = self.model.parameters()
        self.optimizer = torch.optim.AdamW(
            parameters, optimizer.learning_rate, betas, optimizer.epsilon, decay, fused=True if fused else None
        )

    def update(self, loss: torch.Tensor) -> torch.Tensor:
        """Clip the gradient and update the parameters; return the loss, for which a GPU need not have been awaited."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return loss.detach()


class PlainLoop(Loop):
    """Pairs padded to the row length, masked when they are read, logits at every position, AdamW."""

    def __init__(
        self,
        encoder: EncoderConfig,
        vocab_size: int,
        optimizer: OptimizerConfig,
        dtype: str,
        masking: MaskingConfig,
        mask_id: int,
        specials: int,
    ) -> None:
        super().__init__(_model(encoder, vocab_size), optimizer, dtype, fused=False)
        self.vocab_size, self.masking, self.mask_id, self.specials = vocab_size, masking, mask_id, specials

    def step(self, batch: Arrays) -> torch.Tensor:
        """One step on rows with one pair each."""
        read = {name: torch.from_numpy(batch[name]).long().to(DEVICE) for name in ("tokens", "example_ids", "segments", "is_next")}
        masked, labels = self._mask(read["tokens"])
        with self.precision:
            output = self.model(
                input_ids=masked,
                attention_mask=(read["example_ids"] > 0).long(),
                token_type_ids=read["segments"],
                labels=labels,
                next_sentence_label=1 - read["is_next"][:, 0],  # in transformers, class 0 is "B follows A"
            )
        return self.update(output.loss)

    def _mask(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks as transformers' collator for language modeling does."""
        chosen = (torch.rand(tokens.shape, device=DEVICE) < self.masking.rate) & (tokens >= self.specials)
        labels = torch.where(chosen, tokens, -100)
        draw = torch.rand(tokens.shape, device=DEVICE)
        masked = torch.where(chosen & (draw < self.masking.mask_share), self.mask_id, tokens)
        replaced = chosen & (draw >= self.masking.mask_share) & (draw < self.masking.mask_share + self.masking.random_share)
        return torch.where(replaced, torch.randint(self.specials, self.vocab_size, tokens.shape, device=DEVICE), masked), labels


class PackedLoop(Loop):
    """Packed rows whose examples do not attend to each other, logits at masked positions only, fused attention and AdamW."""

    def __init__(self, encoder: EncoderConfig, vocab_size: int, optimizer: OptimizerConfig, dtype: str, compiled: bool) -> None:
        super().__init__(_model(encoder, vocab_size), optimizer, dtype, fused=True)
        self._loss = torch.compile(self._compute) if compiled else self._compute

    def load(self, tensors: Arrays) -> None:
        """Load parameters by their names in transformers, without the tied ones."""
        self.model.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}, strict=False)

    def step(self, batch: Arrays) -> torch.Tensor:
        """One step on a prepared batch, whose tokens are already masked."""
        with self.precision:
            loss = self._loss(_on_device(batch))
        return self.update(loss)

    def loss(self, batch: Arrays) -> float:
        """Without dropout."""
        self.model.eval()
        with torch.inference_mode(), self.precision:
            value = self._compute(_on_device(batch)).item()
        self.model.train()
        return float(value)

    def _compute(self, batch: Mapping[str, Any]) -> torch.Tensor:
        bert, heads = self.model.bert, self.model.cls
        ids = batch["example_ids"]
        vectors = bert.embeddings(input_ids=batch["tokens"], token_type_ids=batch["segments"], position_ids=batch["positions"])
        same_example = ids[:, None, :, None] == ids[:, None, None, :]
        hidden = bert.encoder(vectors, attention_mask=same_example).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        scores = heads.predictions(hidden[rows, batch["masked_positions"]])
        follows = heads.seq_relationship(bert.pooler.activation(bert.pooler.dense(hidden[rows, batch["cls_positions"]])))
        masked = _weighted(scores, batch["masked_labels"], batch["masked_weights"])
        return masked + _weighted(follows, 1 - batch["is_next"], batch["example_weights"])


def _on_device(batch: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(field).to(DEVICE) for name, field in batch.items()}


def _weighted(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    each = cross_entropy(scores.flatten(0, 1), labels.flatten().long(), reduction="none")
    return (each * weights.flatten()).sum() / weights.sum().clamp(min=1)


def torch_steps(loop: PackedLoop | PlainLoop, batches: Sequence[Arrays], counted: Sequence[Arrays], count: int) -> int:
    """Run `count` steps over batches in memory; return the number of real tokens, from `counted`, the same rows."""
    for index in range(count):
        loss = loop.step(batches[index % len(batches)])
    loss.item()  # waits for the device
    return sum(int((counted[index % len(counted)]["example_ids"] > 0).sum()) for index in range(count))
