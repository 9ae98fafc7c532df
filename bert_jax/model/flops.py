"""Analytic FLOP counts of the model, from which model FLOPs utilization (MFU) is computed.

Only useful work counts: the matmuls of the real tokens, and attention between the tokens of each example. Padding does not count, nor
do pairs of tokens of different examples in a packed row, even where a kernel computes them; so a kernel that skips them raises the
utilization, and a batch with more padding lowers it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bert_jax.config import EncoderConfig


@dataclass(frozen=True)
class StepFlops:
    """The FLOPs of one pass over a batch, as a function of what the batch holds. A multiply-add counts as two.

    A matmul [m, k] x [k, n] takes 2mkn FLOPs. Norms, activations and softmaxes are omitted, as is customary (Chowdhery et al. 2022,
    appendix B).
    """

    per_token: int
    """For each token that is not padding."""
    per_pair: int
    """For each pair of tokens (i, j) of one example: n² for an example of n tokens."""
    fixed: int
    """For the heads at all slots of the batch for masked tokens and examples, of which packed rows leave few masked slots unused."""

    def total(self, tokens: float, pairs: float) -> float:
        """Return the FLOPs for a batch with so many real tokens and pairs (see `attended_pairs`)."""
        return self.per_token * tokens + self.per_pair * pairs + self.fixed

    def upper_bound(self, rows: int, length: int) -> float:
        """Return the FLOPs for a batch of `rows` rows that one example of `length` tokens fills: the most that such rows can hold."""
        return self.total(rows * length, rows * length**2)


def attended_pairs(batch: Mapping[str, Any]) -> Any:
    """Return the number of pairs of tokens that attend to each other, the sum of squared example lengths, as a float32 scalar.

    An example of n tokens has the positions 0 to n - 1, and the first n odd numbers add up to n². Works for NumPy and JAX arrays.
    """
    return (2 * batch["positions"] + 1).astype("float32").sum(where=batch["example_ids"] > 0)


def forward_flops(encoder: EncoderConfig, vocab_size: int, masked: int, examples: int, units: int = 0) -> StepFlops:
    """Return the FLOPs of the matmuls in one forward pass with the pre-training heads.

    Args:
        encoder: the encoder architecture.
        vocab_size: V.
        masked: the positions in the batch at which the vocabulary head runs, B * M.
        examples: the examples in the batch whose [CLS] vectors go through the pooler, B * E.
        units: U, the size of the units that are projected to vectors; 0 if the input is looked up in a table.
    """
    width, inner = encoder.width, encoder.feed_forward
    projections = 2 * (4 * width**2 + 2 * width * inner)
    masked_token = 2 * masked * (width**2 + width * vocab_size)
    next_sentence = 2 * examples * (width**2 + 2 * width)
    return StepFlops(
        per_token=encoder.layers * projections + 2 * units * width,
        per_pair=encoder.layers * 2 * 2 * width,
        fixed=masked_token + next_sentence,
    )


def training_flops(encoder: EncoderConfig, vocab_size: int, masked: int, examples: int, units: int = 0) -> StepFlops:
    """Return the FLOPs of a training step: the backward pass has two matmuls per forward matmul. Arguments as in `forward_flops`.

    The projection of the units has only one, since the units have no gradient.
    """
    forward = forward_flops(encoder, vocab_size, masked, examples, units)
    return StepFlops(3 * forward.per_token - 2 * units * encoder.width, 3 * forward.per_pair, 3 * forward.fixed)


def classification_flops(encoder: EncoderConfig, classes: int, examples: int, pooling: str, units: int = 0) -> StepFlops:
    """Return the FLOPs of a training step of a classifier with C `classes`, counted the same way; `pooling` as in `FinetuneConfig`."""
    width = encoder.width
    step = training_flops(encoder, 0, masked=0, examples=0, units=units)
    head = 2 * examples * width * classes
    if pooling == "cls":
        return StepFlops(step.per_token, step.per_pair, 3 * (head + 2 * examples * width**2))
    return StepFlops(step.per_token + 3 * 2 * width, step.per_pair, 3 * head)
