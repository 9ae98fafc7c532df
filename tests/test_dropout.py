"""Dropout: its share, where it draws from, and that nothing but a row's key decides."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy import stats

from bert_jax.config import ComputeConfig
from bert_jax.model.bert import PretrainingModel
from bert_jax.model.dropout import dropout, row_keys, with_generator


@pytest.mark.parametrize("generator", ["threefry", "rbg"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_its_share_and_the_mean(rate: float, generator: Literal["threefry", "rbg"]) -> None:
    x = (1 + jnp.arange(200_000, dtype=jnp.float32) / 200_000).reshape(8, -1)
    y = np.asarray(dropout(x, rate, with_generator(row_keys(jax.random.key(0), 8), generator))).ravel()
    kept = y != 0
    assert stats.binomtest(int((~kept).sum()), len(y), rate).pvalue > 1e-4
    np.testing.assert_allclose(y[kept], np.asarray(x).ravel()[kept] / (1 - rate), rtol=1e-6)
    # Neither place nor neighbour decides.
    quarters = kept.reshape(4, -1).sum(1)
    assert stats.chisquare(quarters).pvalue > 1e-4
    assert abs(np.corrcoef(kept[1:], kept[:-1])[0, 1]) < 4 / np.sqrt(len(y))


def test_dropout_is_a_function_of_its_keys_and_off_without_any() -> None:
    x = jnp.ones((4, 250), jnp.bfloat16)
    one, same, other = (dropout(x, 0.3, row_keys(jax.random.key(i), 4)) for i in (1, 1, 2))
    assert one.dtype == jnp.bfloat16
    assert (one == same).all() and (one != other).any()
    assert (dropout(x, 0.3, None) == x).all() and (dropout(x, 0.0, row_keys(jax.random.key(1), 4)) == x).all()


def test_a_row_draws_from_its_own_key_alone() -> None:
    keys, x = row_keys(jax.random.key(3), 8), jnp.ones((8, 5, 40))
    whole = dropout(x, 0.3, keys)
    assert len({np.asarray(row).tobytes() for row in whole}) == 8
    assert (dropout(x[2:4], 0.3, keys[2:4]) == whole[2:4]).all(), "whatever rows are beside it"
    assert (row_keys(jax.random.key(3), 4) == keys[:4]).all(), "and however many"


def test_the_model_draws_from_the_generator_of_its_configuration() -> None:
    params = tiny.initial_parameters(tiny.WITH_DROPOUT)

    def hidden(generator: Literal["threefry", "rbg"]) -> np.ndarray:
        model = PretrainingModel(tiny.VOCABULARY, tiny.WITH_DROPOUT, ComputeConfig(random_bits=generator))
        return np.asarray(model.apply({"params": params}, tiny.batch(), row_keys(jax.random.key(0), 8), method="encode")[0])

    assert np.array_equal(hidden("rbg"), hidden("rbg")) and not np.allclose(hidden("rbg"), hidden("threefry"), atol=0.1)
