"""Writes `bert_tiny.npz`: what `transformers`' `BertForPreTraining` computes from random weights on a padded batch.

    python tests/reference/make_reference.py

It needs torch and transformers (requirements-dev.txt). The arrays are names of the state dict under `weights/` and
`gradients/`, the batch under `inputs/`, and under `outputs/` hidden states, pooler output, both heads' scores and the
losses. `steps/` holds ten AdamW steps on this batch: the losses, and the norm of each tensor's change.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForPreTraining

from bert_jax.config import EncoderConfig

FILE = Path(__file__).with_name("bert_tiny.npz")
VOCABULARY = 99
ENCODER = EncoderConfig(layers=2, width=32, heads=4, feed_forward=64, max_positions=40, dropout=0.0, attention_dropout=0.0)
LEARNING_RATE, WEIGHT_DECAY, EPSILON, CLIP_NORM = 1e-3, 0.01, 1e-6, 1.0

Arrays = dict[str, np.ndarray]


def build(encoder: EncoderConfig, vocabulary: int, seed: int) -> BertForPreTraining:
    """A model without dropout in which every parameter is random: biases and layer norms start as constants otherwise."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=encoder.width,
        num_hidden_layers=encoder.layers,
        num_attention_heads=encoder.heads,
        intermediate_size=encoder.feed_forward,
        max_position_embeddings=encoder.max_positions,
        type_vocab_size=encoder.segment_types,
        layer_norm_eps=encoder.norm_epsilon,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        hidden_act="gelu",
        pad_token_id=0,
        attn_implementation="eager",
    )
    model = BertForPreTraining(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def make_batch(vocabulary: int, rows: int, length: int, masked: int, seed: int) -> Arrays:
    """Rows of one example each, of different lengths, in the names of the one batch shape; 4 is [MASK]."""
    rng = np.random.default_rng(seed)
    lengths = np.linspace(length, masked + 6, rows).astype(int)
    real = np.arange(length) < lengths[:, None]
    tokens = np.where(real, rng.integers(5, vocabulary, (rows, length)), 0)
    split = lengths // 2
    tokens[:, 0] = 2
    tokens[np.arange(rows), split] = tokens[np.arange(rows), lengths - 1] = 3
    ordinary = [np.flatnonzero(row >= 5) for row in tokens]
    positions = np.stack([np.sort(rng.choice(places, masked, replace=False)) for places in ordinary])
    labels = np.take_along_axis(tokens, positions, axis=1)
    weights = np.ones((rows, masked), np.float32)
    weights[-1, -1] = 0
    np.put_along_axis(tokens, positions[:, : masked - 1], 4, axis=1)
    return {
        "tokens": tokens.astype(np.int32),
        "example_ids": real.astype(np.int32),
        "positions": np.where(real, np.arange(length), 0).astype(np.int32),
        "segments": ((np.arange(length) > split[:, None]) & real).astype(np.int32),
        "cls_positions": np.zeros((rows, 1), np.int32),
        "is_next": rng.integers(0, 2, (rows, 1)).astype(np.int32),
        "example_weights": np.ones((rows, 1), np.float32),
        "masked_positions": positions.astype(np.int32),
        "masked_labels": labels.astype(np.int32),
        "masked_weights": weights,
    }


def forward(model: BertForPreTraining, batch: Arrays, labels: bool = True) -> Any:
    """The model's own output on the batch; its next-sentence class 0 means that B follows A."""
    dense = np.full(batch["tokens"].shape, -100, np.int64)
    np.put_along_axis(dense, batch["masked_positions"], np.where(batch["masked_weights"] > 0, batch["masked_labels"], -100), axis=1)
    given = {
        "labels": torch.from_numpy(dense),
        "next_sentence_label": torch.from_numpy(1 - batch["is_next"][:, 0].astype(np.int64)),
    }
    return model(
        input_ids=torch.from_numpy(batch["tokens"].astype(np.int64)),
        attention_mask=torch.from_numpy((batch["example_ids"] > 0).astype(np.int64)),
        token_type_ids=torch.from_numpy(batch["segments"].astype(np.int64)),
        output_hidden_states=True,
        **(given if labels else {}),
    )


def state(model: BertForPreTraining) -> Arrays:
    """The parameters as numpy arrays, tied ones once."""
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def outputs(model: BertForPreTraining, batch: Arrays) -> Arrays:
    """Hidden states [N + 1, B, L, D], pooler output [B, D], scores [B, L, V] and [B, 2]."""
    with torch.no_grad():
        found = forward(model, batch, labels=False)
        return {
            "hidden": torch.stack(found.hidden_states).numpy(),
            "pooled": model.bert.pooler(found.hidden_states[-1]).numpy(),
            "masked_tokens": found.prediction_logits.numpy(),
            "next_sentence": found.seq_relationship_logits.numpy(),
        }


def loss_and_gradients(model: BertForPreTraining, batch: Arrays) -> tuple[float, Arrays]:
    """The sum of both losses, and its gradient by parameter name."""
    model.zero_grad()
    loss = forward(model, batch).loss
    loss.backward()
    return loss.item(), {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}


def adamw_steps(model: BertForPreTraining, batch: Arrays, count: int, learning_rate: float = LEARNING_RATE) -> tuple[np.ndarray, Arrays]:
    """The loss before each of some AdamW steps, and the norm by which each parameter has moved after them."""
    before = state(model)
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}], lr=learning_rate, eps=EPSILON
    )
    losses = []
    for _ in range(count):
        model.zero_grad()
        loss = forward(model, batch).loss
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
    after = state(model)
    return np.array(losses, np.float32), {name: np.linalg.norm(after[name] - before[name]).astype(np.float32) for name in before}


def main() -> None:
    batch = make_batch(VOCABULARY, rows=3, length=16, masked=4, seed=0)
    model = build(ENCODER, VOCABULARY, seed=0)
    groups: dict[str, Arrays] = {"inputs": batch, "weights": state(model), "outputs": outputs(model, batch)}
    loss, groups["gradients"] = loss_and_gradients(model, batch)
    groups["outputs"]["loss"] = np.float32(loss)
    losses, moved = adamw_steps(model, batch, 10)
    groups["steps"] = {"losses": losses} | {f"moved/{name}": value for name, value in moved.items()}
    np.savez_compressed(FILE, **{f"{group}/{name}": value for group, arrays in groups.items() for name, value in arrays.items()})
    print(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
