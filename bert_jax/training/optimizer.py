"""AdamW and LAMB with warm-up, learning rate decay and gradient clipping, built from optax."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.config import OptimizerConfig


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Return a schedule with linear warm-up over `warmup_fraction` of the steps, then the configured decay to zero, or none."""
    warmup = round(config.warmup_fraction * steps)
    rest = max(1, steps - warmup)
    peak = config.learning_rate
    decays = {
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "constant": lambda: optax.constant_schedule(peak),
    }
    after = decays[config.decay]()
    if warmup == 0:
        return after
    # The rate at step 0 is not zero, which would waste that step.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), after], [warmup])


def decay_mask(params: Any) -> Any:
    """Return True where weight decay applies: everywhere but biases and layer norms (Devlin et al. 2019, appendix A.2)."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)


def _scale_by_adam(b1: float, b2: float, epsilon: float) -> optax.GradientTransformationExtraArgs:
    """Return `optax.scale_by_adam` with an update that takes `valid`: where it is false, the state is unchanged.

    To select between the new and the old state afterwards would take copies of the old one, since the new one is written in its place.
    On CPUs, where the update is bound by memory bandwidth, that took as long as the update itself.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)

    def update(updates: Any, state: Any, params: Any = None, *, valid: Any = True, **_: Any) -> tuple[Any, Any]:
        del params
        kept = partial(jax.tree.map, partial(jnp.where, valid))
        mu = kept(optax.tree.update_moment(updates, state.mu, b1, 1), state.mu)
        nu = kept(optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2), state.nu)
        count = optax.safe_increment(state.count)
        means = optax.tree.bias_correction(mu, b1, count), optax.tree.bias_correction(nu, b2, count)
        scaled = jax.tree.map(lambda mean, square: mean / (jnp.sqrt(square) + epsilon), *means)
        return scaled, optax.ScaleByAdamState(jnp.where(valid, count, state.count), mu, nu)

    return optax.GradientTransformationExtraArgs(adam.init, update)


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Return `optax.clip_by_global_norm` as a multiplication by one number, which the compiler fuses with the update that follows."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        factor = limit / jnp.maximum(optax.tree.norm(updates), limit)
        return jax.tree.map(lambda update: update * factor.astype(update.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def unless_skipped(scale: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return a transformation whose update takes `valid`: where it is false, the state, which should be small, is unchanged."""

    def update(updates: Any, state: Any, params: Any = None, *, valid: Any = True, **_: Any) -> tuple[Any, Any]:
        scaled, after = scale.update(updates, state, params)
        return scaled, jax.tree.map(partial(jnp.where, valid), after, state)

    return optax.GradientTransformationExtraArgs(scale.init, update)


def _scale_by_trust_ratio() -> optax.GradientTransformation:
    """Apply LAMB's trust ratio per layer: encoder parameters are stacked on a leading axis of N layers."""
    ratio = optax.scale_by_trust_ratio()

    def scale(path: Any, update: jax.Array, parameter: jax.Array) -> jax.Array:
        def one(update: jax.Array, parameter: jax.Array) -> jax.Array:
            return ratio.update(update, optax.EmptyState(), parameter)[0]

        stacked = any(key.key == "layers" for key in path)
        return (jax.vmap(one) if stacked else one)(update, parameter)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(scale, updates, params), state

    return optax.GradientTransformation(ratio.init, update)


def layer_rates(params: Any, decay: float, frozen: int) -> Any:
    """Return the learning rate of each parameter relative to that of the heads, a number or, for stacked layers, float32 [N].

    The embeddings are layer 0, and layer l of N has the rate decay^(N + 1 - l), as in ELECTRA (Clark et al. 2020, appendix B).

    Args:
        decay: see `OptimizerConfig.layer_decay`.
        frozen: the last layer with the rate 0; -1 for none.
    """
    count = jax.tree.leaves(params["encoder"]["layers"])[0].shape[0]
    rates = np.where(np.arange(count + 1) <= frozen, 0, decay ** (count + 1.0 - np.arange(count + 1))).astype(np.float32)
    by_part = {"embeddings": rates[0], "encoder": rates[1:]}
    return {part: jax.tree.map(lambda _, own=part: by_part.get(own, np.ones((), np.float32)), tree) for part, tree in params.items()}


def _scale_by_layer(decay: float, frozen: int) -> optax.GradientTransformation:
    """Scale updates by `layer_rates`. What is frozen gets a constant 0, so that the compiler drops the computation of its gradient."""

    def scale(update: jax.Array, rate: Any) -> jax.Array:
        if not rate.any():
            return jnp.zeros_like(update)
        return update * jnp.asarray(rate, update.dtype).reshape(rate.shape + (1,) * (update.ndim - rate.ndim))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        return jax.tree.map(scale, updates, layer_rates(updates, decay, frozen)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformationExtraArgs:
    """Create the optimizer for a run of `steps` steps. Its update takes `valid`, a bool scalar: where false, its state is unchanged.

    AdamW follows Loshchilov and Hutter 2019, with bias correction as in PyTorch; LAMB follows You et al. 2020.
    """
    update = optax.chain(
        _scale_by_adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        *((_scale_by_trust_ratio(),) if config.name == "lamb" else ()),
        unless_skipped(optax.scale_by_learning_rate(learning_rate_schedule(config, steps))),
    )
    if config.clip_norm:
        update = optax.chain(_clip_by_global_norm(config.clip_norm), update)
    if config.frozen_layers >= 0:
        # The norm that is clipped is that of the trained parameters.
        update = optax.chain(_scale_by_layer(1.0, config.frozen_layers), update)
    if config.layer_decay < 1 or config.frozen_layers >= 0:
        update = optax.chain(update, _scale_by_layer(config.layer_decay, config.frozen_layers))
    return update
