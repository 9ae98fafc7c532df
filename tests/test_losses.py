"""Losses are what they say, in sums and counts; projecting the covered positions alone loses nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from bert_jax.training.losses import Mean, classification_metrics, cross_entropy, weighted_mean


def test_a_mean_adds_sums_and_counts() -> None:
    one, other = Mean(jnp.float32(3), jnp.float32(2)), Mean(jnp.float32(5), jnp.float32(6))
    both = one + other
    assert isinstance(both, Mean)
    assert (float(both.total), float(both.count)) == (8, 8), "not the mean of two means"


def test_a_mean_over_parts_is_the_mean_over_the_whole() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.standard_normal((10, 7)).astype(np.float32), (rng.random((10, 7)) < 0.5).astype(np.float32)
    first, second = (weighted_mean(jnp.asarray(values[rows]), jnp.asarray(weights[rows])) for rows in (slice(0, 3), slice(3, 10)))
    parts = first + second
    assert float(parts.total / parts.count) == pytest.approx(np.average(values, weights=weights), rel=1e-5)


def test_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    scores, labels = 20 * rng.standard_normal((6, 5, 11)).astype(np.float32), rng.integers(0, 11, (6, 5)).astype(np.int32)
    found = np.asarray(cross_entropy(jnp.asarray(scores), jnp.asarray(labels)))
    wide = scores.astype(np.float64)
    shares = np.exp(wide - wide.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    np.testing.assert_allclose(found, -np.log(np.take_along_axis(shares, labels[..., None], -1)[..., 0]), rtol=1e-5, atol=1e-6)
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose(found, optax.softmax_cross_entropy_with_integer_labels(scores, labels), rtol=1e-5, atol=1e-6)


def test_cross_entropy_of_scores_that_overflow_an_exponential() -> None:
    scores = jnp.array([[1e4, 0.0], [0.0, -1e4]], jnp.float32)
    assert cross_entropy(scores, jnp.array([1, 0], jnp.int32)).tolist() == [1e4, 0.0]


def test_a_tie_and_what_is_not_a_number_are_not_correct() -> None:
    scores = jnp.array([[1, 1, 0], [2, 1, 0], [jnp.nan, 1, 0], [0, 0, 0]], jnp.float32)
    found = classification_metrics("x", scores, jnp.zeros(4, jnp.int32), jnp.ones(4))
    assert float(found["x_accuracy"].total) == 1


def test_classification_metrics_count_what_has_a_weight() -> None:
    scores = jnp.array([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [9.0, 9.5]], jnp.float32)
    found = classification_metrics("x", scores, jnp.array([0, 0, 1, 0], jnp.int32), jnp.array([1, 1, 1, 0], jnp.float32))
    right, wrong = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    assert set(found) == {"x_loss", "x_accuracy"}
    assert (float(found["x_accuracy"].total), float(found["x_accuracy"].count)) == (2, 3)
    assert float(found["x_loss"].total) == pytest.approx(2 * right + wrong, rel=1e-6)


def test_the_sparse_head_equals_the_dense_head_in_loss_and_gradients() -> None:
    task = tiny.task()
    params = tiny.initial_parameters()
    original = tiny.batch()
    batch = jax.jit(task.prepare)(original, jax.random.key(0))
    changed = np.asarray(batch["tokens"]) != original["tokens"]
    assert 0.1 < changed.mean() < 0.2

    def sparse(params: Any) -> jax.Array:
        loss = task.metrics(params, batch, None)["mlm_loss"]
        return loss.total / loss.count

    # Every position is projected, and -100 marks those that do not count: the usual way.
    labels = np.full(original["tokens"].shape, -100, np.int32)
    for row, (positions, weights) in enumerate(zip(batch["masked_positions"], batch["masked_weights"], strict=True)):
        used = np.asarray(positions)[np.asarray(weights) > 0]
        labels[row, used] = original["tokens"][row, used]

    def project(model: Any) -> jax.Array:
        return model.masked_token_logits(model.encode(batch)[0])

    def dense(params: Any) -> jax.Array:
        log_shares = jax.nn.log_softmax(task.model.apply({"params": params}, method=project), axis=-1)
        assert log_shares.shape == (*labels.shape, tiny.VOCABULARY)
        hit = jax.nn.one_hot(labels, tiny.VOCABULARY, dtype=jnp.float32)  # all zero for -100
        return -(log_shares * hit).sum() / np.float32((labels != -100).sum())

    (found, gradients), (wanted, wanted_gradients) = (jax.jit(jax.value_and_grad(loss))(params) for loss in (sparse, dense))
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)
    for path, right in tiny.flat(wanted_gradients).items():
        left = tiny.flat(gradients)[path]
        assert np.abs(left - right).max() <= 1e-5 * max(np.abs(right).max(), 1e-2), path
