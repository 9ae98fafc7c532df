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
from bert_jax.model.products import linear_product

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


def test_gradients_of_linear_layers_are_those_of_jax() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel, weights = (jax.random.normal(key, shape) for key, shape in zip(keys, ((2, 5, 8), (8, 3), (2, 5, 3)), strict=True))

    def gradients(product: Any) -> Any:
        return jax.grad(lambda x, kernel: (product(x, kernel) ** 2 * weights).sum(), (0, 1))(x, kernel)

    np.testing.assert_array_equal(linear_product(x, kernel), jnp.dot(x, kernel))
    for ours, derived in zip(gradients(linear_product), gradients(jnp.dot), strict=True):
        np.testing.assert_allclose(ours, derived, rtol=1e-5, atol=1e-6)


def test_no_layer_transposes_the_gradient_of_its_output() -> None:
    config = EncoderConfig.preset("tiny")
    encoder, vectors, ids = Encoder(config, ComputeConfig()), jnp.ones((2, 16, config.width)), jnp.ones((2, 16), jnp.int32)
    params = jax.eval_shape(encoder.init, jax.random.key(0), vectors, ids)
    step = jax.jit(jax.grad(lambda params: encoder.apply(params, vectors, ids)[0].sum()))
    written = step.lower(params).as_text()
    wide, narrow = config.feed_forward, config.width
    assert f"tensor<{narrow}x{wide}xf32>" in written
    assert f"tensor<{wide}x{narrow}xf32>) -> tensor<{narrow}x{wide}xf32>" not in written
