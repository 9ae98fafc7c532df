"""Floating-point operations of the model, written out: what a share of a machine's peak is counted from."""

from bert_jax.config import EncoderConfig


def forward_flops(encoder: EncoderConfig, vocab_size: int, rows: int, length: int, masked: int, examples: int) -> int:
    """Operations of the matrix products in one forward pass with the pre-training heads, a multiply and an add each.

    A product [m, k] x [k, n] is 2mkn. Attention is counted as it is computed, every position of a row with every other;
    the vocabulary head at the masked positions alone. Norms, activations and softmaxes are left out, as is usual
    (Chowdhery et al. 2022, appendix B).

    Args:
        encoder: the architecture.
        vocab_size: V.
        rows: B, of `length` tokens each.
        length: L.
        masked: M, the positions of a row at which the vocabulary head runs.
        examples: E, the examples of a row whose [CLS] goes through the pooler.
    """
    width, inner = encoder.width, encoder.feed_forward
    projections = 2 * length * (4 * width**2 + 2 * width * inner)
    attention = 2 * 2 * length**2 * width
    masked_token = 2 * masked * (width**2 + width * vocab_size)
    next_sentence = 2 * examples * (width**2 + 2 * width)
    return rows * (encoder.layers * (projections + attention) + masked_token + next_sentence)


def training_flops(encoder: EncoderConfig, vocab_size: int, rows: int, length: int, masked: int, examples: int) -> int:
    """Those of a training step: the backward pass takes two products for each of the forward pass. Arguments as above."""
    return 3 * forward_flops(encoder, vocab_size, rows, length, masked, examples)


def classification_flops(encoder: EncoderConfig, classes: int, rows: int, length: int, examples: int, pooling: str) -> int:
    """Operations of a training step of a classifier with C `classes`, counted alike; `pooling` as in `FinetuneConfig`."""
    width = encoder.width
    pooled = width**2 if pooling == "cls" else length * width
    head = 2 * examples * (pooled + width * classes)
    return training_flops(encoder, 0, rows, length, masked=0, examples=0) + 3 * rows * head
