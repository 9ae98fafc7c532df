"""What a fresh encoder starts from."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.errors import InputError
from bert_jax.model.embeddings import Embeddings
from bert_jax.model.encoder import Encoder
from bert_jax.model.initializers import neighbour_offsets, normal_initializer, sinusoidal_initializer

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


def test_heads_that_attend_to_neighbours_start_so_in_the_first_layer_alone() -> None:
    waves = dataclasses.replace(CONFIG, heads=4, max_positions=64, position_initializer="sinusoidal")
    neighbours = dataclasses.replace(waves, attention_initializer="neighbours")
    positions, zeros = jnp.arange(64, dtype=jnp.int32)[None], jnp.zeros((1, 64), jnp.int32)
    embeddings = Embeddings(1, neighbours, jnp.dtype("float32"))
    params = embeddings.init(jax.random.key(0), zeros, positions, zeros)["params"]
    # Without what the tokens say, only places are left to tell keys apart.
    vectors = embeddings.apply({"params": params | {"tokens": jnp.zeros((1, 128))}}, zeros, positions, zeros)

    def fresh(config: EncoderConfig) -> dict[str, Any]:
        layers: dict[str, Any] = Encoder(config, ComputeConfig()).init(jax.random.key(2), vectors, zeros)["params"]["layers"]
        return layers

    layers, published = fresh(neighbours), fresh(waves)
    query, key = (jnp.einsum("bld,dhk->blhk", vectors, layers[name]["kernel"][0].reshape(128, 4, 32)) for name in ("query", "key"))
    weights = jax.nn.softmax(jnp.einsum("blhk,bmhk->bhlm", query, key) / 32**0.5)
    middle = np.arange(4, 60)
    for head, offset in enumerate(neighbour_offsets(4)):
        assert offset == (-1, 1, -2, 2)[head]
        assert (np.asarray(weights[0, head].argmax(-1))[middle] == middle + offset).mean() > 0.9
        near = sum(np.asarray(weights[0, head, middle, middle + offset + around]).mean() for around in (-1, 0, 1))
        assert near > 0.8
    different = [name for name in layers if not np.array_equal(layers[name].get("kernel", 0), published[name].get("kernel", 0))]
    assert different == ["query", "key"] or different == ["key", "query"]
    assert np.array_equal(layers["query"]["kernel"][1], published["query"]["kernel"][1])


def test_neighbours_need_waves_and_waves_need_room() -> None:
    with pytest.raises(InputError, match="position_initializer=sinusoidal"):
        EncoderConfig.preset("tiny", attention_initializer="neighbours")
    with pytest.raises(InputError, match=r"heads=64 .* four dimensions"):
        EncoderConfig.preset("tiny", heads=64, position_initializer="sinusoidal", attention_initializer="neighbours")
    with pytest.raises(InputError, match=r"width=33 .* even"):
        EncoderConfig(width=33, heads=3, position_initializer="sinusoidal")
    # The narrowest that is allowed has a wave.
    narrow = EncoderConfig(layers=1, width=16, heads=4, position_initializer="sinusoidal", attention_initializer="neighbours")
    vectors = jnp.ones((1, 2, 16))
    assert Encoder(narrow, ComputeConfig()).init(jax.random.key(0), vectors, jnp.ones((1, 2), jnp.int32))
