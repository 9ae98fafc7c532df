"""The model computes what BERT is: beside `transformers`, from stored arrays and live, and beside itself in its other forms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from reference import FILE

from bert_jax.config import ComputeConfig, EncoderConfig, MaskingConfig, OptimizerConfig
from bert_jax.convert.layouts import to_parameters
from bert_jax.data.packing import assemble, pack
from bert_jax.data.pairs import Examples
from bert_jax.families.bert import BERT
from bert_jax.model.batch import zero_row
from bert_jax.model.bert import ClassificationModel, PretrainingModel
from bert_jax.model.dropout import row_keys
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.training.optimizer import make_optimizer

VOCABULARY = 99  # of the stored model
ENCODER = EncoderConfig(layers=2, width=32, heads=4, feed_forward=64, max_positions=40, dropout=0.0, attention_dropout=0.0)
FLOAT32 = ComputeConfig()
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
# Published for BERT. AdamW moves a weight by about this much whatever its gradient, be it rounding alone.
LEARNING_RATE = 1e-4

Arrays = dict[str, np.ndarray]


def reads(model: PretrainingModel, batch: Any, key: jax.Array | None = None) -> Any:
    """Everything that a `BertForPreTraining` gives back, from a bound model."""
    hidden, states = model.encode(batch, key, every_layer=True)
    cls = hidden[jnp.arange(hidden.shape[0])[:, None], batch["cls_positions"]]
    return {
        "hidden": states,
        "pooled": model.pooler(cls),
        "masked_tokens": model.masked_token_logits(hidden),
        "next_sentence": model.next_sentence_logits(hidden, batch["cls_positions"]),
    }


def make_task(encoder: EncoderConfig, vocabulary: int, compute: ComputeConfig = FLOAT32) -> PretrainingObjective:
    model = PretrainingModel(vocabulary, encoder, compute)
    return PretrainingObjective(model, MaskingConfig(), tiny.SPECIAL_IDS, tiny.MASK, tuple(range(5, vocabulary)))


def loss_function(task: PretrainingObjective) -> Callable[..., jax.Array]:
    def loss(params: Any, batch: Any, key: jax.Array | None = None) -> jax.Array:
        metrics = task.metrics(params, batch, key)
        return sum(metrics[name].total / metrics[name].count for name in task.losses)

    return loss


def outputs_of(task: PretrainingObjective, params: Any, batch: Any) -> Any:
    return jax.jit(lambda params, batch: task.model.apply({"params": params}, batch, method=reads))(params, batch)


def check_outputs(found: Any, wanted: Arrays, batch: Arrays) -> None:
    """`wanted` is in the layout of transformers; what stands at padding means nothing in either."""
    real = batch["example_ids"] > 0
    tiny.assert_close(np.asarray(found["hidden"])[:, real], wanted["hidden"][:, real], OUTPUT_TOLERANCE)
    tiny.assert_close(np.asarray(found["masked_tokens"])[real], wanted["masked_tokens"][real], OUTPUT_TOLERANCE)
    tiny.assert_close(np.asarray(found["pooled"])[:, 0], wanted["pooled"], OUTPUT_TOLERANCE)
    # Class 0 there is "B follows A"; here it is class 1.
    tiny.assert_close(np.asarray(found["next_sentence"])[:, 0], wanted["next_sentence"][:, ::-1], OUTPUT_TOLERANCE)


def from_theirs(tensors: Arrays, encoder: EncoderConfig = ENCODER) -> Any:
    """Our parameters from the tensors of a `BertForPreTraining`."""
    return to_parameters(tensors, BERT.entries(encoder, PRETRAINING.published[0].parts))


def check_gradients(found: Any, wanted: Arrays, encoder: EncoderConfig = ENCODER) -> None:
    found, wanted = tiny.flat(found), tiny.flat(from_theirs(wanted, encoder))
    assert found.keys() == wanted.keys()
    # The gradient of a key's bias is zero by construction, so what is there is rounding: measured by its neighbours.
    floor = max(np.abs(gradient).max() for gradient in wanted.values()) * 1e-2
    for path, right in wanted.items():
        worst = np.abs(found[path] - right).max() / max(np.abs(right).max(), floor)
        assert worst <= GRADIENT_TOLERANCE, f"the gradient of {path} differs by {worst:.2e} of its largest number"


# Stored arrays.


@pytest.fixture(scope="module")
def stored() -> dict[str, Arrays]:
    groups: dict[str, Arrays] = {}
    with np.load(FILE, allow_pickle=False) as arrays:
        for path in arrays:
            group, name = path.split("/", 1)
            groups.setdefault(group, {})[name] = arrays[path]
    return groups


@pytest.fixture(scope="module")
def stored_params(stored: dict[str, Arrays]) -> Any:
    return jax.tree.map(jnp.asarray, from_theirs(stored["weights"]))


def test_the_tree_from_hugging_face_is_the_tree_of_the_model(stored: dict[str, Arrays], stored_params: Any) -> None:
    task = make_task(ENCODER, VOCABULARY)
    own = jax.eval_shape(lambda: task.model.init(jax.random.key(0), stored["inputs"])["params"])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), own) == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), stored_params)


def test_outputs_equal_the_stored_ones(stored: dict[str, Arrays], stored_params: Any) -> None:
    found = outputs_of(make_task(ENCODER, VOCABULARY), stored_params, tiny.as_jax(stored["inputs"]))
    check_outputs(found, stored["outputs"], stored["inputs"])


def test_loss_gradients_and_ten_adamw_steps_equal_the_stored_ones(stored: dict[str, Arrays], stored_params: Any) -> None:
    config = OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.0, decay="constant", weight_decay=0.01, epsilon=1e-6, clip_norm=1.0)
    optimizer = tiny.lenient(make_optimizer(config, steps=10))
    loss = loss_function(make_task(ENCODER, VOCABULARY))

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, stored["inputs"])
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value, gradients

    params, state, losses = stored_params, jax.jit(optimizer.init)(stored_params), []
    for index in range(10):
        params, state, value, gradients = step(params, state)
        losses.append(float(value))
        if index == 0:
            assert float(value) == pytest.approx(stored["outputs"]["loss"], rel=1e-5)
            check_gradients(gradients, stored["gradients"])
    np.testing.assert_allclose(losses, stored["steps"]["losses"], rtol=1e-4)
    before = stored["weights"]
    moved = tiny.flat(jax.tree.map(np.subtract, jax.device_get(params), jax.device_get(stored_params)))
    numbered = {name: np.full_like(value, number) for number, (name, value) in enumerate(before.items())}
    names = tiny.flat(from_theirs(numbered))
    wanted = [stored["steps"][f"moved/{name}"] for name in before]
    for path, change in moved.items():
        layers = change if path.startswith("encoder/layers") else change[None]
        indices = names[path] if path.startswith("encoder/layers") else names[path][None]
        for layer, index in zip(layers, indices, strict=True):
            # Stacking shows which tensor of the state dict a layer came from.
            assert np.linalg.norm(layer) == pytest.approx(wanted[int(index.flat[0])], rel=2e-3, abs=1e-5), path


def test_hugging_face_puts_is_next_first(stored: dict[str, Arrays]) -> None:
    weights = stored["weights"] | {
        "cls.seq_relationship.weight": np.zeros_like(stored["weights"]["cls.seq_relationship.weight"]),
        "cls.seq_relationship.bias": np.array([9.0, -9.0], np.float32),  # "B follows A", says transformers
    }
    params = from_theirs(weights)
    scores = outputs_of(make_task(ENCODER, VOCABULARY), params, tiny.as_jax(stored["inputs"]))["next_sentence"]
    assert (np.asarray(scores) == [-9.0, 9.0]).all(), "class 1 is `is_next`"


# Live.


def live(encoder: EncoderConfig, vocabulary: int, rows: int, length: int) -> tuple[Any, Any, Arrays, Any, PretrainingObjective]:
    """(the script with the reference, its model, a batch, parameters, our task)."""
    pytest.importorskip("torch", reason="torch is not installed: compared with the stored arrays only")
    pytest.importorskip("transformers", reason="transformers is not installed: compared with the stored arrays only")
    from reference import make_reference

    batch = make_reference.make_batch(vocabulary, rows, length, masked=min(20, length // 3), seed=1)
    theirs = make_reference.build(encoder, vocabulary, seed=1)
    params = jax.tree.map(jnp.asarray, from_theirs(make_reference.state(theirs), encoder))
    return make_reference, theirs, batch, params, make_task(encoder, vocabulary)


def test_outputs_and_gradients_equal_those_of_transformers() -> None:
    encoder = EncoderConfig(layers=3, width=128, heads=2, feed_forward=512, max_positions=128, dropout=0.0, attention_dropout=0.0)
    reference, theirs, batch, params, task = live(encoder, vocabulary=1000, rows=4, length=96)
    check_outputs(outputs_of(task, params, tiny.as_jax(batch)), reference.outputs(theirs, batch), batch)
    wanted_loss, wanted = reference.loss_and_gradients(theirs, batch)
    loss, found = jax.jit(jax.value_and_grad(loss_function(task)))(params, tiny.as_jax(batch))
    assert float(loss) == pytest.approx(wanted_loss, rel=1e-5)
    check_gradients(found, wanted, encoder)


def adamw(task: PretrainingObjective, params: Any, batch: Arrays, count: int) -> Any:
    """The parameters after some steps with the optimizer of the reference script."""
    config = OptimizerConfig(
        learning_rate=LEARNING_RATE, warmup_fraction=0.0, decay="constant", weight_decay=0.01, epsilon=1e-6, clip_norm=1.0
    )
    optimizer = tiny.lenient(make_optimizer(config, steps=count))
    loss = loss_function(task)

    @jax.jit
    def steps(params: Any) -> Any:
        def step(_: int, carried: Any) -> Any:
            params, state = carried
            updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, count, step, (params, optimizer.init(params)))[0]

    return steps(params)


SIZES = {
    "small": EncoderConfig(layers=3, width=128, heads=2, feed_forward=512, max_positions=128, dropout=0.0, attention_dropout=0.0),
    "base": EncoderConfig.preset("base", dropout=0.0, attention_dropout=0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "steps"), [("small", 10), pytest.param("base", 10, marks=tiny.long)])
def test_gradients_and_adamw_steps_follow_those_of_torch(size: str, steps: int) -> None:
    encoder = SIZES[size]
    reference, theirs, batch, params, _ = live(encoder, vocabulary=1000, rows=2, length=32)
    task = make_task(encoder, 1000, ComputeConfig(scan_layers=True))
    wanted_loss, wanted = reference.loss_and_gradients(theirs, batch)
    loss, found = jax.jit(jax.value_and_grad(loss_function(task)))(params, tiny.as_jax(batch))
    assert float(loss) == pytest.approx(wanted_loss, rel=1e-5)
    check_gradients(found, wanted, encoder)
    after = adamw(task, params, tiny.as_jax(batch), steps)
    reference.adamw_steps(theirs, batch, steps, LEARNING_RATE)
    tiny.assert_close(jax.device_get(after), from_theirs(reference.state(theirs), encoder), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_packed_rows_equal_the_single_rows_of_transformers(size: str) -> None:
    reference, theirs, batch, params, task = live(SIZES[size], vocabulary=1000, rows=3, length=32)
    wanted = reference.outputs(theirs, batch)
    real = batch["example_ids"] > 0
    lengths = real.sum(1)
    row = {name: batch[name][real][None] for name in ("tokens", "positions", "segments")}
    row["example_ids"] = np.repeat(np.arange(1, 4), lengths)[None].astype(np.int32)
    row["cls_positions"] = (np.cumsum(lengths) - lengths)[None].astype(np.int32)
    found = outputs_of(task, params, tiny.as_jax(row))
    tiny.assert_close(np.asarray(found["hidden"])[:, 0], wanted["hidden"][:, real], OUTPUT_TOLERANCE)
    tiny.assert_close(np.asarray(found["masked_tokens"])[0], wanted["masked_tokens"][real], OUTPUT_TOLERANCE)
    tiny.assert_close(np.asarray(found["pooled"])[0], wanted["pooled"], OUTPUT_TOLERANCE)
    tiny.assert_close(np.asarray(found["next_sentence"])[0], wanted["next_sentence"][:, ::-1], OUTPUT_TOLERANCE)


# Rows.


def packed_and_unpacked() -> tuple[Arrays, Arrays, list[tuple[int, int, int]]]:
    """The same five examples in two rows and in five; and (length, row, column) of each in the packed rows."""
    lengths = np.array([9, 12, 7, 14, 10])
    text = np.random.default_rng(0).integers(5, tiny.VOCABULARY, 200)
    a = np.stack([20 * np.arange(5), 20 * np.arange(5) + lengths - 7], 1)
    b = np.stack([100 + 9 * np.arange(5), 100 + 9 * np.arange(5) + 4], 1)
    examples = Examples(a, b, np.array([1, 0, 1, 0, 1], np.int32), np.ones(5, np.float32))
    assert (examples.lengths == lengths).all()
    placement = pack(lengths, 40, 4)
    assert placement.count == 2
    rows = [
        assemble(examples, place, text, np.ones(200, bool), tiny.Special(), 40, 4, "is_next") for place in (placement, pack(lengths, 40, 1))
    ]
    single = pack(lengths, 40, 1)
    order = np.argsort(single.rows)
    assert (order[single.rows] == np.arange(5)).all()
    unpacked = {name: value[single.rows] for name, value in rows[1].items()}
    places = list(zip(lengths.tolist(), placement.rows.tolist(), placement.offsets.tolist(), strict=True))
    return rows[0], unpacked, places


@pytest.fixture(scope="module")
def forward() -> tuple[Callable[..., Any], Any]:
    """The compiled forward pass of the tiny model, and parameters."""
    task = tiny.task()
    return jax.jit(lambda params, batch: task.model.apply({"params": params}, batch, method=reads)), tiny.initial_parameters()


def test_packed_rows_equal_unpacked_rows(forward: tuple[Callable[..., Any], Any]) -> None:
    run, params = forward
    packed, unpacked, places = packed_and_unpacked()
    together, alone = run(params, packed), run(params, unpacked)
    for example, (length, row, column) in enumerate(places):
        slot = int(packed["example_ids"][row, column]) - 1
        assert packed["is_next"][row, slot] == unpacked["is_next"][example, 0]
        span = slice(column, column + length)
        for name, axis in (("hidden", 1), ("masked_tokens", 0)):
            found, wanted = (np.moveaxis(np.asarray(side[name]), axis, 0) for side in (together, alone))
            tiny.assert_close(found[row][..., span, :], wanted[example][..., :length, :], OUTPUT_TOLERANCE)
        for name in ("pooled", "next_sentence"):
            tiny.assert_close(np.asarray(together[name])[row, slot], np.asarray(alone[name])[example, 0], OUTPUT_TOLERANCE)


def test_row_mates_and_padding_leave_an_example_unchanged_to_the_bit(forward: tuple[Callable[..., Any], Any]) -> None:
    run, params = forward
    batch = packed_and_unpacked()[0]
    for row, example in ((0, 1), (0, 2), (1, 0)):
        changed = {name: value.copy() for name, value in batch.items()}
        there = batch["example_ids"][row] == example
        assert there.any()
        changed["tokens"][row, there] = np.random.default_rng(1).integers(5, tiny.VOCABULARY, int(there.sum()))
        changed["segments"][row, there] ^= 1
        before, after = run(params, batch), run(params, changed)
        others = np.ones(batch["tokens"].shape, bool)
        others[row, there] = False
        assert (np.asarray(before["hidden"])[:, others] == np.asarray(after["hidden"])[:, others]).all()
        assert (np.asarray(before["hidden"])[-1, ~others] != np.asarray(after["hidden"])[-1, ~others]).any(-1).all()


def test_a_classifier_reads_each_example_of_a_row_alone() -> None:
    packed, unpacked, places = packed_and_unpacked()
    for pooling in ("cls", "mean"):
        model = ClassificationModel(tiny.VOCABULARY, tiny.ENCODER, FLOAT32, 3, pooling)
        head = {"dense": {"kernel": np.random.default_rng(2).standard_normal((32, 3), np.float32), "bias": np.arange(3, dtype=np.float32)}}
        params = {"params": tiny.initial_parameters() | {"classifier": head}}
        run = jax.jit(model.apply)
        together, alone = np.asarray(run(params, packed)), np.asarray(run(params, unpacked))
        assert together.shape == (2, 4, 3)
        for example, (_, row, column) in enumerate(places):
            slot = int(packed["example_ids"][row, column]) - 1
            tiny.assert_close(together[row, slot], alone[example, 0], OUTPUT_TOLERANCE)


# Forms of computing.


def form(compute: ComputeConfig, encoder: EncoderConfig = tiny.WITH_DROPOUT) -> Callable[..., Any]:
    """(parameters, batch, keys) -> ((loss, outputs), gradients)."""
    task = tiny.task(encoder, compute)
    loss = loss_function(task)

    def run(params: Any, batch: Any, keys: jax.Array | None) -> Any:
        def both(params: Any) -> Any:
            return loss(params, batch, keys), task.model.apply({"params": params}, batch, keys)

        return jax.value_and_grad(both, has_aux=True)(params)

    return run


@pytest.fixture(scope="module")
def masked() -> Arrays:
    """A small batch with some tokens masked."""
    return jax.device_get(jax.jit(tiny.task().prepare)(tiny.batch(4), jax.random.key(3)))


@pytest.fixture(scope="module")
def unrolled() -> Callable[..., Any]:
    return jax.jit(form(ComputeConfig()))


KEYS, OTHER_KEYS = (row_keys(jax.random.key(seed), 4) for seed in (5, 6))
FORMS = [(False, "dots"), (False, "full"), (True, "none"), (True, "dots"), (True, "full")]


@pytest.mark.parametrize(("scan", "remat"), FORMS)
def test_scan_and_remat_change_nothing_with_dropout_on(scan: bool, remat: Any, unrolled: Any, masked: Arrays) -> None:
    params = tiny.initial_parameters(tiny.WITH_DROPOUT)
    (loss, outputs), gradients = jax.jit(form(ComputeConfig(scan_layers=scan, remat=remat)))(params, masked, KEYS)
    (wanted_loss, wanted), wanted_gradients = unrolled(params, masked, KEYS)
    assert float(loss) == pytest.approx(float(wanted_loss), rel=1e-6)
    tiny.assert_close(outputs, wanted, 3e-6)
    check_same_gradients(gradients, wanted_gradients)


def test_dropout_was_on(unrolled: Callable[..., Any], masked: Arrays) -> None:
    params = tiny.initial_parameters(tiny.WITH_DROPOUT)
    one, other = (unrolled(params, masked, keys)[0][0] for keys in (KEYS, OTHER_KEYS))
    assert abs(float(one) - float(other)) > 1e-3


def check_same_gradients(found: Any, wanted: Any) -> None:
    found, wanted = tiny.flat(found), tiny.flat(wanted)
    scale = max(np.abs(gradient).max() for gradient in wanted.values())
    for path, right in wanted.items():
        assert np.abs(found[path] - right).max() <= 2e-6 * max(np.abs(right).max(), 0.05 * scale), path


def test_remat_computes_again_what_it_says(masked: Arrays) -> None:
    params = tiny.initial_parameters(tiny.ENCODER)
    for scan in (False, True):

        def products(remat: Any, scan: bool = scan) -> tuple[int, int]:
            """Matrix products in the program before it is optimized: with parameters, and of attention (which have a batch dimension)."""
            run = jax.jit(form(ComputeConfig(remat=remat, scan_layers=scan), tiny.ENCODER), static_argnums=2)
            found = [line for line in run.lower(params, masked, None).as_text().splitlines() if "dot_general" in line]
            attention = sum("batching_dims" in line for line in found)
            return len(found) - attention, attention

        none, dots, full = products("none"), products("dots"), products("full")
        assert none[0] == dots[0] < full[0], "`full` computes products with parameters again, `dots` does not"
        assert none[1] < dots[1] == full[1], "both compute attention again"


def test_bfloat16_is_close_to_float32(forward: tuple[Callable[..., Any], Any]) -> None:
    run, params = forward
    task = tiny.task(compute=ComputeConfig(dtype="bfloat16"))
    batch = tiny.batch()
    wanted, found = run(params, batch), outputs_of(task, params, batch)
    assert found["hidden"].dtype == jnp.bfloat16
    assert found["masked_tokens"].dtype == found["next_sentence"].dtype == jnp.float32
    tiny.assert_close(jax.tree.map(lambda x: x.astype(jnp.float32), found), wanted, 0.05)
    different = np.abs(np.asarray(found["masked_tokens"]) - np.asarray(wanted["masked_tokens"])).max()
    assert different > 1e-4, "nothing was computed in bfloat16"


def test_positions_can_start_as_waves() -> None:
    encoder = EncoderConfig(layers=1, width=64, heads=1, feed_forward=8, max_positions=100, position_initializer="sinusoidal")
    model = PretrainingModel(10, encoder, FLOAT32)
    init = jax.jit(lambda key: model.init(key, zero_row())["params"]["embeddings"]["positions"])
    waves, other = (np.asarray(init(jax.random.key(seed))) for seed in (0, 1))
    assert (waves == other).all() and waves.shape == (100, 64)
    assert np.sqrt((waves**2).mean()) == pytest.approx(encoder.initializer_range, rel=1e-3)
    likeness = waves @ waves.T
    np.testing.assert_allclose(np.diag(likeness, 3), likeness[0, 3], rtol=1e-3, err_msg="only the distance counts")
    assert likeness[50].argmax() == 50
