"""Analytic FLOP counts of the model, from which model FLOPs utilization (MFU) is computed."""

from bert_jax.config import EncoderConfig


def forward_flops(encoder: EncoderConfig, vocab_size: int, rows: int, length: int, masked: int, examples: int, units: int = 0) -> int:
    """Return the FLOPs of the matmuls in one forward pass with the pre-training heads; a multiply-add counts as two.

    A matmul [m, k] x [k, n] takes 2mkn FLOPs. Attention is counted as computed, between all pairs of positions in a row, and the
    vocabulary head only at the masked positions. Norms, activations and softmaxes are omitted, as is customary (Chowdhery et al. 2022,
    appendix B).

    Args:
        encoder: the encoder architecture.
        vocab_size: V.
        rows: B, of `length` tokens each.
        length: L.
        masked: M, the positions per row at which the vocabulary head runs.
        examples: E, the examples per row whose [CLS] vectors go through the pooler.
        units: U, the size of the units that are projected to vectors; 0 if the input is looked up in a table.
    """
    width, inner = encoder.width, encoder.feed_forward
    projections = 2 * length * (4 * width**2 + 2 * width * inner)
    attention = 2 * 2 * length**2 * width
    masked_token = 2 * masked * (width**2 + width * vocab_size)
    next_sentence = 2 * examples * (width**2 + 2 * width)
    embedding = 2 * length * units * width
    return rows * (embedding + encoder.layers * (projections + attention) + masked_token + next_sentence)


def training_flops(encoder: EncoderConfig, vocab_size: int, rows: int, length: int, masked: int, examples: int, units: int = 0) -> int:
    """Return the FLOPs of a training step: the backward pass has two matmuls per forward matmul. Arguments as in `forward_flops`.

    The projection of the units has only one, since the units have no gradient.
    """
    units_gradient = 2 * rows * length * units * encoder.width
    return 3 * forward_flops(encoder, vocab_size, rows, length, masked, examples, units) - units_gradient


def classification_flops(
    encoder: EncoderConfig, classes: int, rows: int, length: int, examples: int, pooling: str, units: int = 0
) -> int:
    """Return the FLOPs of a training step of a classifier with C `classes`, counted the same way; `pooling` as in `FinetuneConfig`."""
    width = encoder.width
    pooled = width**2 if pooling == "cls" else length * width
    head = 2 * examples * (pooled + width * classes)
    return training_flops(encoder, 0, rows, length, masked=0, examples=0, units=units) + 3 * rows * head
