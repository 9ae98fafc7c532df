"""What the compiled training step must not hold: the scores of the vocabulary for every token."""

import re

import jax

from bert_jax.config import EncoderConfig, MeshConfig, PretrainConfig, RowsConfig, RunConfig, VocabularyConfig
from bert_jax.objectives.masking import masked_slots
from bert_jax.stages.plan import lower_step
from bert_jax.training.sharding import make_mesh

ROWS, LENGTH, VOCABULARY = 3, 56, 1009


def sizes(text: str) -> set[tuple[int, ...]]:
    """The shapes of all arrays in an HLO module, without axes of length 1."""
    return {tuple(size for size in map(int, dims.split(",")) if size > 1) for dims in re.findall(r"\w+\[([\d,]+)\]", text)}


def test_the_vocabulary_head_runs_at_the_covered_tokens_alone() -> None:
    stage = PretrainConfig(batch_size=ROWS, rows=RowsConfig(length=LENGTH))
    encoder = EncoderConfig(layers=1, width=8, heads=2, feed_forward=16, max_positions=LENGTH)
    config = RunConfig(encoder=encoder, vocabulary=VocabularyConfig(size=VOCABULARY), pretrain=stage)
    lowered, _, _ = lower_step(config, stage, make_mesh(MeshConfig(), ROWS, jax.devices()[:1]))
    found = sizes(lowered.compile().as_text())
    covered = masked_slots(LENGTH, stage.masking)
    assert (ROWS, covered, VOCABULARY) in found or (ROWS * covered, VOCABULARY) in found, "the head is looked for where it is"
    whole = {shape for shape in found if VOCABULARY in shape and (LENGTH in shape or ROWS * LENGTH in shape)}
    assert not whole, f"scores of every token: {whole}"
