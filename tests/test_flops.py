"""The operations of the model: counted by hand, by the compiler, and held against a peak."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from bert_jax.config import EncoderConfig
from bert_jax.data.pipeline import pretraining_batches
from bert_jax.model.bert import ClassificationModel
from bert_jax.model.directory import InputDescription
from bert_jax.model.flops import attended_pairs, classification_flops, forward_flops, training_flops
from bert_jax.tasks.pretraining.objective import PretrainingObjective
from bert_jax.training import peak

ROWS, LENGTH, EXAMPLES, SLOTS, VOCABULARY = 4, 64, 3, 10, 400
# Wide enough that what is no product (norms, activations, softmaxes), which the compiler counts too, is little.
ENCODER = EncoderConfig(layers=2, width=256, heads=2, feed_forward=1024, max_positions=64, dropout=0.0, attention_dropout=0.0)


def test_a_layer_by_hand() -> None:
    """Each product of one layer and of the heads, an operand's shape at a time."""
    encoder = EncoderConfig(layers=1, width=8, heads=2, feed_forward=12, max_positions=16)
    tokens, heads, head_width = 2 * 5, 2, 4
    products = [
        *[(tokens, 8, 8)] * 4,  # query, key, value, output
        *[(5, head_width, 5), (5, 5, head_width)] * (2 * heads),  # scores and mixtures of every row and head
        (tokens, 8, 12), (tokens, 12, 8),
        (2 * 3, 8, 8), (2 * 3, 8, 21),  # masked tokens
        (2 * 4, 8, 8), (2 * 4, 8, 2),  # [CLS] of the examples
    ]  # fmt: skip
    by_hand = sum(2 * m * k * n for m, k, n in products)
    assert forward_flops(encoder, vocab_size=21, masked=2 * 3, examples=2 * 4).upper_bound(rows=2, length=5) == by_hand
    assert training_flops(encoder, vocab_size=21, masked=2 * 3, examples=2 * 4).upper_bound(rows=2, length=5) == 3 * by_hand
    classifier = sum(2 * m * k * n for m, k, n in products[:-4]) + 2 * (2 * 4) * (8 * 8 + 8 * 5)
    assert classification_flops(encoder, classes=5, examples=2 * 4, pooling="cls").upper_bound(rows=2, length=5) == 3 * classifier
    # Units are projected, and need no gradient.
    projection = 2 * tokens * 48 * 8
    assert forward_flops(encoder, vocab_size=21, masked=2 * 3, examples=2 * 4, units=48).upper_bound(2, 5) == by_hand + projection
    assert training_flops(encoder, vocab_size=21, masked=2 * 3, examples=2 * 4, units=48).upper_bound(2, 5) == 3 * by_hand + 2 * projection
    with_units = classification_flops(encoder, classes=5, examples=2 * 4, pooling="cls", units=48)
    assert with_units.upper_bound(2, 5) == 3 * classifier + 2 * projection


def test_two_examples_in_a_row_take_what_they_take_apart() -> None:
    """Rows of 5 and 3 tokens and some padding: the products of an example's own tokens, and the heads at every slot."""
    encoder = EncoderConfig(layers=1, width=8, heads=2, feed_forward=12, max_positions=16)
    heads = 2 * 3 * (8 * 8 + 8 * 21) + 2 * 2 * (8 * 8 + 8 * 2)
    alone = {n: 2 * (4 * n * 8 * 8 + 2 * n * 8 * 12 + 2 * (n * 4 * n + n * n * 4)) for n in (5, 3)}
    assert forward_flops(encoder, vocab_size=21, masked=3, examples=2).total(5 + 3, 25 + 9) == alone[5] + alone[3] + heads
    by_mean = 3 * (alone[5] + alone[3]) + 3 * 2 * ((5 + 3) * 8 + 2 * 8 * 5)  # every token is added to its mean once
    assert classification_flops(encoder, classes=5, examples=2, pooling="mean").total(5 + 3, 25 + 9) == by_mean


def test_pairs_are_the_squares_of_the_examples_lengths() -> None:
    rows = next(pretraining_batches(tiny.source(), tiny.Special, dataclasses.replace(tiny.ROWS, examples_per_row=4), 8, seed=3))
    by_counting = sum(int(n) ** 2 for row in rows["example_ids"] for n in np.bincount(row)[1:])
    assert rows["example_ids"].max() > 1 and rows["example_ids"].min() == 0, "packed, and padded"
    assert attended_pairs(rows) == by_counting < rows["tokens"].size * rows["tokens"].shape[1]
    assert jax.jit(attended_pairs)(rows) == by_counting


def batch() -> dict[str, jax.ShapeDtypeStruct]:
    shapes = dict.fromkeys(("tokens", "example_ids", "positions", "segments"), (ROWS, LENGTH))
    shapes |= {"cls_positions": (ROWS, EXAMPLES), "masked_positions": (ROWS, SLOTS), "masked_labels": (ROWS, SLOTS)}
    shapes |= {"is_next": (ROWS, EXAMPLES), "labels": (ROWS, EXAMPLES)}
    fields = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
    weights = {"masked_weights": (ROWS, SLOTS), "example_weights": (ROWS, EXAMPLES)}
    return fields | {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in weights.items()}


# Large enough that a third of its projection is seen.
UNITS = 3072
RECORDINGS = InputDescription("audio", "units", UNITS)


def entering(units: int) -> tuple[InputDescription, dict[str, jax.ShapeDtypeStruct]]:
    """What enters a model, and a batch of it."""
    if not units:
        return InputDescription(), batch()
    return RECORDINGS, batch() | {"units": jax.ShapeDtypeStruct((ROWS, LENGTH, units), jnp.float16)}


@pytest.mark.parametrize("units", [0, UNITS])
def test_a_training_step_as_the_compiler_counts_it(units: int) -> None:
    task, (description, shapes) = tiny.task(ENCODER), entering(units)
    task = dataclasses.replace(task, model=type(task.model)(VOCABULARY, ENCODER, tiny.COMPUTE, input=description))
    assert isinstance(task, PretrainingObjective)
    params = jax.eval_shape(lambda batch: task.model.init(jax.random.key(0), batch)["params"], shapes)

    def loss(params: object, batch: dict[str, jax.Array]) -> jax.Array:
        metrics = task.metrics(params, batch, None)
        return metrics["mlm_loss"].total + metrics["nsp_loss"].total

    counted = jax.jit(jax.grad(loss)).lower(params, shapes).cost_analysis()["flops"]
    ours = training_flops(ENCODER, VOCABULARY, ROWS * SLOTS, ROWS * EXAMPLES, units).upper_bound(ROWS, LENGTH)
    assert ours == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("units", [0, UNITS])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_classifier_as_the_compiler_counts_it(pooling: str, units: int) -> None:
    description, shapes = entering(units)
    model = ClassificationModel(VOCABULARY, ENCODER, tiny.COMPUTE, 3, pooling, input=description)  # type: ignore[arg-type]
    params = jax.eval_shape(lambda batch: model.init(jax.random.key(0), batch)["params"], shapes)
    step = jax.jit(jax.grad(lambda params, batch: model.apply({"params": params}, batch).sum()))
    counted = step.lower(params, shapes).cost_analysis()["flops"]
    ours = classification_flops(ENCODER, 3, ROWS * EXAMPLES, pooling, units).upper_bound(ROWS, LENGTH)
    assert ours == pytest.approx(counted, rel=0.05)


class Device:
    platform = "gpu"

    def __init__(self, kind: str) -> None:
        self.device_kind = kind


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA GeForce RTX 3060", None),
    ],
)
def test_published_peaks(monkeypatch: pytest.MonkeyPatch, kind: str, wanted: float | None) -> None:
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(kind)])
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert peak.peak_flops() == (None if wanted is None else 8 * wanted)


def test_the_peak_of_a_cpu_is_measured_once() -> None:
    found = peak.peak_flops()
    assert found is not None and 1e8 < found < 1e15
    assert peak.peak_flops() == found
    assert np.isfinite(found)
