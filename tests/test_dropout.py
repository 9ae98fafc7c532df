"""Dropout: its share, its independence of place, row, layer and key, and that nothing but a row's key decides."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bert_jax.model.dropout import dropout, row_keys, split_rows


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_its_share_and_the_mean(rate: float) -> None:
    x = (1 + jnp.arange(200_000, dtype=jnp.float32) / 200_000).reshape(8, -1)
    y = np.asarray(dropout(x, rate, row_keys(jax.random.key(0), 8))).ravel()
    kept = y != 0
    assert stats.binomtest(int((~kept).sum()), len(y), rate).pvalue > 1e-4
    np.testing.assert_allclose(y[kept], np.asarray(x).ravel()[kept] / (1 - rate), rtol=1e-6)


def test_neither_layer_nor_row_nor_place_nor_neighbor_decides() -> None:
    rate, (layers, rows, tokens, features) = 0.1, (6, 16, 60, 96)
    keys, ones = split_rows(row_keys(jax.random.key(0), rows), layers), jnp.ones((rows, tokens, features))
    dropped = np.stack([dropout(ones, rate, own) == 0 for own in keys])
    for axis in range(4):
        counts = dropped.sum(tuple(set(range(4)) - {axis}))
        assert stats.chisquare(counts).pvalue > 1e-4
        for distance in (1, 2, 3, 4):
            a, b = (np.take(dropped, range(start, dropped.shape[axis] - distance + start), axis).ravel() for start in (0, distance))
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / len(a) ** 0.5, (axis, distance)
    # Of every pair of the 96 patterns, as independent as random numbers are.
    patterns = dropped.reshape(layers * rows, -1)
    scores = (np.corrcoef(patterns) * patterns.shape[1] ** 0.5)[np.triu_indices(len(patterns), 1)]
    assert stats.kstest(scores, "norm").pvalue > 1e-4
    # And as many are dropped together, in groups of 32, as a binomial distribution says.
    counted = np.bincount(dropped.reshape(-1, 32).sum(1), minlength=33)
    expected = stats.binom.pmf(np.arange(33), 32, rate) * counted.sum()
    likely = expected > 20
    assert stats.chisquare(counted[likely], expected[likely] * counted[likely].sum() / expected[likely].sum()).pvalue > 1e-4


def test_keys_that_differ_by_a_bit_draw_independently() -> None:
    key = np.asarray(row_keys(jax.random.key(7), 1))
    flipped = np.concatenate([key, *(key ^ np.array(bits, np.uint32) for i in range(32) for bits in ([1 << i, 0], [0, 1 << i]))])
    dropped = np.asarray(dropout(jnp.ones((len(flipped), 8192)), 0.5, jnp.asarray(flipped))) == 0
    scores = (np.corrcoef(dropped) * 8192**0.5)[np.triu_indices(len(flipped), 1)]
    assert stats.kstest(scores, "norm").pvalue > 1e-4


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
    assert (dropout(x[:, :3], 0.3, keys) == whole[:, :3]).all(), "however long they are"
    assert (row_keys(jax.random.key(3), 4) == keys[:4]).all(), "and however many"


def test_split_keys_differ() -> None:
    keys = row_keys(jax.random.key(3), 8)
    parts = [keys, *split_rows(keys, 12), *split_rows(split_rows(keys, 2)[0], 3)]
    assert len({np.asarray(key).tobytes() for key in itertools.chain.from_iterable(parts)}) == 8 * 16
