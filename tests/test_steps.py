"""One optimizer step: what it computes, that it is compiled once, and what it never holds in memory."""

import dataclasses
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from bert_jax.config import OptimizerConfig
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.training.optimizer import decay_mask, learning_rate_schedule, make_optimizer
from bert_jax.training.state import TrainState, create_state
from bert_jax.training.steps import compile_steps, train_step

Arrays = dict[str, np.ndarray]
CONFIG = OptimizerConfig(learning_rate=3e-3, warmup_fraction=0.0, decay="constant")


def optimizer(config: OptimizerConfig = CONFIG, steps: int = 100) -> optax.GradientTransformation:
    return tiny.lenient(make_optimizer(config, steps))


class Compiled:
    """Both steps of one configuration, compiled."""

    def __init__(self, task: PretrainingObjective, microbatches: int = 1) -> None:
        self.optimizer = optimizer()
        self.task, self.mesh = task, tiny.one_device_mesh()
        params = tiny.initial_parameters(task.model.config)
        state = create_state(lambda: jax.tree.map(jnp.asarray, params), self.optimizer, self.mesh)
        self._shardings, self._fresh = jax.tree.map(lambda leaf: leaf.sharding, state), jax.device_get(state)
        self.train, self.evaluate = compile_steps(task, self.optimizer, state, self.mesh, 0, microbatches)

    def state(self, step: int = 0) -> TrainState:
        """A fresh state, which the next step takes."""
        return jax.device_put(dataclasses.replace(self._fresh, step=np.int32(step)), self._shardings)


@pytest.fixture(scope="module")
def plain() -> Compiled:
    return Compiled(tiny.task())


@pytest.fixture(scope="module")
def cut() -> Compiled:
    """With dropout, in four rounds."""
    return Compiled(tiny.task(tiny.WITH_DROPOUT), microbatches=4)


def means(metrics: Any) -> dict[str, float]:
    return {name: float(mean.total / mean.count) for name, mean in metrics.items()}


# Steps.


def test_the_loss_falls_on_a_batch_seen_again_and_again(plain: Compiled) -> None:
    state, batch = plain.state(), tiny.batch()
    losses = []
    for step in range(150):
        state, metrics = plain.train(state, batch)
        losses.append({name: mean for name, mean in means(metrics).items() if name.endswith("loss")})
        assert int(state.step) == step + 1
    first, last = ({name: np.mean([loss[name] for loss in part]) for name in losses[0]} for part in (losses[:5], losses[-5:]))
    assert last["mlm_loss"] < 0.5 * first["mlm_loss"] and last["nsp_loss"] < 0.1 * first["nsp_loss"], last
    assert plain.train._cache_size() == 1, "compiled once"


def test_metrics_are_the_sums_over_the_batch(plain: Compiled) -> None:
    batch = tiny.batch()
    _, metrics = plain.train(plain.state(), batch)
    real = int((batch["example_ids"] > 0).sum())
    assert (float(metrics["real_tokens"].total), float(metrics["real_tokens"].count)) == (real, 1)
    assert means(metrics)["padding"] == pytest.approx(1 - real / batch["tokens"].size, rel=1e-6)
    assert float(metrics["nsp_loss"].count) == batch["example_weights"].sum()
    assert float(metrics["gradient_norm"].total) > 0
    assert 0 <= float(metrics["mlm_accuracy"].total) <= float(metrics["mlm_accuracy"].count)


def test_masks_are_new_at_every_step_and_fixed_in_evaluation(plain: Compiled) -> None:
    state, batch = plain.state(), tiny.batch()
    losses = [means(plain.train(plain.state(step), batch)[1])["mlm_loss"] for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    held_out = [means(plain.evaluate(state.params, batch, jnp.int32(index)))["mlm_loss"] for index in (0, 0, 1)]
    assert held_out[0] == held_out[1] != held_out[2]
    assert held_out[0] not in losses, "evaluation draws from a stream of its own"
    assert plain.evaluate._cache_size() == 1


def test_a_batch_without_anything_to_learn_gives_a_zero_loss_and_zero_gradients(plain: Compiled) -> None:
    empty = {name: np.zeros_like(value) for name, value in tiny.batch().items()}
    state, metrics = plain.train(plain.state(), empty)
    for name in ("mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy"):
        assert (float(metrics[name].total), float(metrics[name].count)) == (0, 0)
    assert float(metrics["gradient_norm"].total) == float(metrics["skipped_updates"].total) == 0
    assert all(np.isfinite(leaf).all() for leaf in tiny.flat(state.params).values())


@pytest.mark.parametrize("rounds", ["plain", "cut"])
def test_a_spoilt_example_skips_the_whole_update(rounds: str, request: pytest.FixtureRequest) -> None:
    compiled: Compiled = request.getfixturevalue(rounds)
    state, _ = compiled.train(compiled.state(), tiny.batch())
    before = tiny.flat(jax.device_get(state))
    spoilt = tiny.batch()
    spoilt["example_weights"][3, 0] = np.inf
    state, metrics = compiled.train(state, spoilt)
    after = tiny.flat(jax.device_get(state))
    assert (before.pop("step"), after.pop("step")) == (1, 2)
    assert all(after[path].tobytes() == before[path].tobytes() for path in before), "moments and the optimizer's count too"
    assert float(metrics["skipped_updates"].total) == 1
    state, metrics = compiled.train(state, tiny.batch())
    assert float(metrics["skipped_updates"].total) == 0
    assert (tiny.flat(state.params)["embeddings/tokens"] != before["params/embeddings/tokens"]).any()


def test_the_state_is_donated(plain: Compiled) -> None:
    state = plain.state()
    plain.train(state, tiny.batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_accumulation_equals_one_batch_dropout_and_all(cut: Compiled) -> None:
    batch = tiny.batch()
    batch["example_weights"][2:5] = 0  # the rounds have different numbers of labels
    plain = Compiled(cut.task)
    whole_state, parts_state = plain.state(), cut.state()
    for _ in range(3):
        whole_state, whole = plain.train(whole_state, batch)
        parts_state, parts = cut.train(parts_state, batch)
        assert {name: float(mean.count) for name, mean in parts.items()} == pytest.approx(
            {name: float(mean.count) for name, mean in whole.items()}
        )
        assert means(parts) == pytest.approx(means(whole), rel=2e-6)
    whole, parts = (compiled.evaluate(whole_state.params, batch, jnp.int32(1)) for compiled in (plain, cut))
    assert means(parts) == pytest.approx(means(whole), rel=2e-6), "evaluated in parts too"
    assert float(parts["real_tokens"].total) == float(whole["real_tokens"].total)
    for path, right in tiny.flat(whole_state.params).items():
        # A bias of a key has no gradient but rounding, which Adam makes large.
        tolerance = 1e-3 if path.endswith("key/bias") else 2e-5
        assert np.abs(tiny.flat(parts_state.params)[path] - right).max() <= tolerance, path


def test_no_array_over_all_tokens_and_the_vocabulary() -> None:
    # Sizes that meet nowhere else: 8 rows of 40 tokens, of which 6 are masked, and 331 vocabulary entries.
    rows, length, vocabulary, slots = 8, 40, 331, 6
    task = PretrainingObjective(
        type(tiny.task().model)(vocabulary, tiny.ENCODER, tiny.COMPUTE), tiny.MASKING, tiny.SPECIAL_IDS, tiny.MASK, tiny.ORDINARY_IDS
    )
    batch = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in tiny.batch(rows, length=length).items()}
    model_batch = batch | {"masked_positions": jax.ShapeDtypeStruct((rows, slots), jnp.int32)}
    params = jax.eval_shape(lambda batch: task.model.init(jax.random.key(0), batch)["params"], model_batch)
    adamw = optimizer()
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(adamw.init, params))
    step = jax.jit(lambda state, batch: train_step(state, batch, objective=task, optimizer=adamw, seed=0))
    text = step.lower(state, batch).compile({"xla_backend_optimization_level": 0}).as_text()  # less of what comes after this text
    sizes = {math.prod(shape) for shape in shapes(text) if shape}
    assert rows * slots * vocabulary in sizes, "the scores of the masked tokens are there"
    assert max(sizes) < rows * length * vocabulary


def shapes(hlo: str) -> set[tuple[int, ...]]:
    """Every array shape in the text of a compiled program."""
    found = re.findall(r"\b(?:f32|bf16|f16|s32|u32|u16|pred|s64|u64|s8|u8)\[([\d,]*)\]", hlo)
    return {tuple(int(size) for size in shape.split(",") if size) for shape in found}


# The optimizer.


@pytest.mark.parametrize(
    ("decay", "warmup", "wanted"),
    [
        ("constant", 0.0, {0: 1.0, 5: 1.0, 9: 1.0}),
        ("linear", 0.0, {0: 1.0, 5: 0.5, 9: 0.1, 10: 0.0}),
        ("linear", 0.4, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 4: 1.0, 5: 5 / 6, 7: 0.5, 9: 1 / 6, 10: 0.0}),
        ("linear", 0.1, {0: 1.0, 1: 1.0, 2: 8 / 9, 9: 1 / 9}),
        ("cosine", 0.0, {0: 1.0, 5: 0.5, 10: 0.0}),
        ("cosine", 0.2, {0: 0.5, 1: 1.0, 2: 1.0, 4: (1 + math.cos(math.pi / 4)) / 2, 6: 0.5, 10: 0.0}),
        ("constant", 0.5, {0: 0.2, 3: 0.8, 4: 1.0, 5: 1.0, 9: 1.0}),
    ],
)
def test_learning_rates(decay: Any, warmup: float, wanted: dict[int, float]) -> None:
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=2e-3, warmup_fraction=warmup, decay=decay), steps=10)
    with jax.numpy_dtype_promotion("standard"):
        found = {step: float(schedule(step)) / 2e-3 for step in wanted}
    assert found == pytest.approx(wanted, abs=1e-6)
    assert all(rate > 0 for step, rate in found.items() if step < 10), "every step of the run learns"


def test_biases_and_layer_norms_do_not_decay() -> None:
    decays = {path: bool(leaf) for path, leaf in tiny.flat(decay_mask(tiny.initial_parameters())).items()}
    for path, decayed in decays.items():
        assert decayed != ("norm" in path or path.endswith("bias")), path
    assert all(decays[path] for path in ("embeddings/tokens", "embeddings/positions", "encoder/layers/query/kernel"))
    assert not decays["masked_token/bias"]


def gradients(steps: int) -> list[Any]:
    rng = np.random.default_rng(1)
    shapes = tiny.initial_parameters()
    return [jax.tree.map(lambda leaf: (0.3 * rng.standard_normal(leaf.shape)).astype(np.float32), shapes) for _ in range(steps)]


def run(config: OptimizerConfig, steps: int) -> Arrays:
    """The parameters after some updates with made-up gradients."""
    update = optimizer(config, steps)

    @jax.jit
    def apply(gradient: Any, state: Any, params: Any) -> Any:
        updates, state = update.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = tiny.initial_parameters()
    state = jax.jit(update.init)(params)
    for gradient in gradients(steps):
        params, state = apply(gradient, state, params)
    return tiny.flat(params)


def by_hand(config: OptimizerConfig, steps: int, direction: Callable[[str, np.ndarray, np.ndarray], np.ndarray]) -> Arrays:
    """AdamW and LAMB in numpy, float64: `direction` makes the step from (path, parameter, decayed Adam update)."""
    params = {path: leaf.astype(np.float64) for path, leaf in tiny.flat(tiny.initial_parameters()).items()}
    first, second = ({path: np.zeros_like(leaf) for path, leaf in params.items()} for _ in range(2))
    rates = [config.learning_rate * (steps - step) / steps for step in range(steps)]
    for step, (rate, tree) in enumerate(zip(rates, gradients(steps), strict=True), start=1):
        gradient = tiny.flat(tree)
        norm = math.sqrt(sum(float((leaf.astype(np.float64) ** 2).sum()) for leaf in gradient.values()))
        clip = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
        for path, parameter in params.items():
            g = clip * gradient[path]
            first[path] = config.beta1 * first[path] + (1 - config.beta1) * g
            second[path] = config.beta2 * second[path] + (1 - config.beta2) * g**2
            update = (first[path] / (1 - config.beta1**step)) / (np.sqrt(second[path] / (1 - config.beta2**step)) + config.epsilon)
            if not ("norm" in path or path.endswith("bias")):
                update = update + config.weight_decay * parameter
            params[path] = parameter - rate * direction(path, parameter, update)
    return params


def check_parameters(found: Arrays, wanted: Arrays) -> None:
    assert found.keys() == wanted.keys()
    for path, right in wanted.items():
        np.testing.assert_allclose(found[path], right, rtol=1e-4, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("clip_norm", [0.0, 0.7])
def test_adamw(clip_norm: float) -> None:
    config = OptimizerConfig(learning_rate=0.02, warmup_fraction=0.0, weight_decay=0.1, clip_norm=clip_norm, beta1=0.8, beta2=0.99)
    check_parameters(run(config, 5), by_hand(config, 5, lambda path, parameter, update: update))


def test_lamb_adapts_layer_by_layer() -> None:
    """You et al. 2020, algorithm 2, with phi the identity; a layer is one of the N that a parameter of the encoder holds."""
    config = OptimizerConfig(name="lamb", learning_rate=0.02, warmup_fraction=0.0, weight_decay=0.1)

    def direction(path: str, parameter: np.ndarray, update: np.ndarray) -> np.ndarray:
        if path.startswith("encoder/layers/"):
            return np.stack([direction("", one, two) for one, two in zip(parameter, update, strict=True)])
        sizes = np.linalg.norm(parameter), np.linalg.norm(update)
        return update * (sizes[0] / sizes[1] if min(sizes) > 0 else 1.0)

    check_parameters(run(config, 5), by_hand(config, 5, direction))


def test_lamb_moves_a_parameter_that_is_zero() -> None:
    update = optimizer(OptimizerConfig(name="lamb", learning_rate=0.5, warmup_fraction=0.0, decay="constant", clip_norm=0.0))
    layers = np.stack([np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)])
    params = {"encoder": {"layers": {"query": {"kernel": layers}}}}
    step = jax.jit(lambda params: update.update(jax.tree.map(jnp.ones_like, params), update.init(params), params)[0])
    np.testing.assert_allclose(step(params)["encoder"]["layers"]["query"]["kernel"], np.full((2, 2, 2), -0.5), rtol=1e-4)


def test_clipping_leaves_small_gradients_alone_and_keeps_the_direction_of_large_ones() -> None:
    clip = make_optimizer(OptimizerConfig(clip_norm=1.0), 10)
    small, large = {"kernel": jnp.array([0.3, 0.4])}, {"kernel": jnp.array([30.0, 40.0])}
    with jax.numpy_dtype_promotion("standard"):
        moments = [clip.update(gradient, clip.init(gradient), gradient)[1][1][0].mu["kernel"] / 0.1 for gradient in (small, large)]
    np.testing.assert_allclose(moments, [[0.3, 0.4], [0.6, 0.8]], rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_an_update_is_that_of_optax_and_a_skipped_one_changes_nothing(name: Any) -> None:
    config = OptimizerConfig(name=name, learning_rate=1e-2, warmup_fraction=0.5, clip_norm=0.5, weight_decay=0.1)
    rng = np.random.default_rng(0)
    params = {"dense": {"kernel": rng.standard_normal((3, 4), np.float32), "bias": rng.standard_normal(4, np.float32)}}
    draws = [jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), params) for _ in range(3)]
    published = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        *((optax.scale_by_trust_ratio(),) if name == "lamb" else ()),
        optax.scale_by_learning_rate(learning_rate_schedule(config, 10)),
    )
    own, spoilt = make_optimizer(config, 10), jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params)
    state, expected = own.init(params), published.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for gradient, scale in zip(draws, (0.01, 1.0, 3.0), strict=True):
            gradient = jax.tree.map(partial(np.multiply, np.float32(scale)), gradient)
            update, state = own.update(gradient, state, params, valid=jnp.bool_(True))
            reference, expected = published.update(gradient, expected, params)
            jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-6), update, reference)
            _, after = own.update(spoilt, state, params, valid=jnp.bool_(False))
            jax.tree.map(np.testing.assert_array_equal, after, state)
