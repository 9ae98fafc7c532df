"""What a fresh encoder starts from."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax.config import EncoderConfig
from bert_jax.model.encoder import Embeddings, normal_initializer, sinusoidal_initializer

CONFIG = EncoderConfig.preset("tiny", initializer_range=0.05)


def test_fresh_matrices_have_the_configured_deviation_and_no_outliers() -> None:
    # The published initialiser cuts the normal at two deviations, which leaves 0.88 of the written one.
    drawn = np.asarray(normal_initializer(CONFIG)(jax.random.key(0), (512, 128)))
    assert drawn.std() == pytest.approx(0.8796 * 0.05, rel=0.02)
    assert np.abs(drawn).max() <= 0.1


def test_the_model_takes_the_initialiser_of_its_configuration() -> None:
    def positions(config: EncoderConfig) -> np.ndarray:
        tokens = np.zeros((1, 4), np.int32)
        embeddings = Embeddings(10, config, np.dtype("float32"))
        return np.asarray(embeddings.init(jax.random.key(0), tokens, tokens, tokens)["params"]["positions"])

    waves = dataclasses.replace(CONFIG, position_initializer="sinusoidal")
    assert np.array_equal(positions(waves), sinusoidal_initializer(waves)(jax.random.key(0), (512, 128)))
    assert not np.allclose(positions(CONFIG), positions(waves), atol=0.05)
