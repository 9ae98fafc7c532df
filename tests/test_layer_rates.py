"""Learning rates by layer, and layers that are not trained."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax.config import OptimizerConfig
from bert_jax.errors import InputError
from bert_jax.training.optimizer import make_optimizer

LAYERS = 3
PARAMS = {
    "embeddings": {"tokens": jnp.ones((4, 2))},
    "encoder": {"layers": {"query": {"kernel": jnp.ones((LAYERS, 2, 2)), "bias": jnp.ones((LAYERS, 2))}}},
    "classifier": {"dense": {"kernel": jnp.ones((2, 3))}},
}


def updates(steps: int = 1, gradients: Any = None, **options: Any) -> Any:
    """The changes of the parameters after some steps with random gradients."""
    config = OptimizerConfig(warmup_fraction=0.0, decay="constant", learning_rate=0.1, **options)
    optimizer, params = make_optimizer(config, 10), PARAMS
    state = optimizer.init(params)
    for step in range(steps):
        given = gradients or jax.tree.map(lambda leaf, step=step: jax.random.normal(jax.random.key(step), leaf.shape), PARAMS)
        with jax.numpy_dtype_promotion("standard"):  # as in the training step
            change, state = optimizer.update(given, state, params)
        params = optax.apply_updates(params, change)
    return jax.tree.map(lambda new, old: np.asarray(new - old), params, PARAMS)


def test_every_layer_is_slower_than_the_one_above() -> None:
    # The first step of Adam is as large as the learning rate.
    changes = updates(weight_decay=0.0, clip_norm=0.0, layer_decay=0.5)
    np.testing.assert_allclose(np.abs(changes["classifier"]["dense"]["kernel"]), 0.1, rtol=1e-4)
    for layer, leaf in enumerate(np.abs(changes["encoder"]["layers"]["query"]["kernel"])):
        np.testing.assert_allclose(leaf, 0.1 * 0.5 ** (LAYERS - layer), rtol=1e-4)
    np.testing.assert_allclose(np.abs(changes["embeddings"]["tokens"]), 0.1 * 0.5 ** (LAYERS + 1), rtol=1e-4)


@pytest.mark.parametrize("frozen", [0, 1, LAYERS])
def test_frozen_layers_stay_bit_for_bit_and_the_others_train_as_ever(frozen: int) -> None:
    whole, part = updates(3, clip_norm=0.0), updates(3, clip_norm=0.0, frozen_layers=frozen)
    assert not part["embeddings"]["tokens"].any()
    for name in ("kernel", "bias"):
        own, other = part["encoder"]["layers"]["query"][name], whole["encoder"]["layers"]["query"][name]
        assert not own[:frozen].any()
        np.testing.assert_array_equal(own[frozen:], other[frozen:])
    np.testing.assert_array_equal(part["classifier"]["dense"]["kernel"], whole["classifier"]["dense"]["kernel"])


def test_gradients_of_frozen_layers_do_not_count_in_the_norm() -> None:
    small = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e-3), PARAMS)
    large = {**small, "embeddings": {"tokens": jnp.full((4, 2), 1e3)}}
    # With epsilon as large as the gradients, Adam's step depends on their size.
    first, second = (updates(gradients=given, frozen_layers=0, epsilon=1e-3) for given in (small, large))
    np.testing.assert_array_equal(first["classifier"]["dense"]["kernel"], second["classifier"]["dense"]["kernel"])
    clipped = updates(gradients=large, epsilon=1e-3, weight_decay=0.0)
    assert np.abs(clipped["classifier"]["dense"]["kernel"]).max() < np.abs(first["classifier"]["dense"]["kernel"]).max() / 100


@pytest.mark.parametrize("options", [{"layer_decay": 0.0}, {"layer_decay": 1.5}, {"frozen_layers": -2}])
def test_impossible_values_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        OptimizerConfig(**options)
