"""Units become vectors: as patches do in ViT, hidden behind [MASK], and with positions in two dimensions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import CLS, MASK, PAD, SEP

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.data.packing import assemble, pack
from bert_jax.data.pairs import Examples
from bert_jax.data.reader import Grid
from bert_jax.errors import InputError
from bert_jax.modalities.image.patches import Patches
from bert_jax.model.batch import zero_row
from bert_jax.model.bert import ClassificationModel, PretrainingModel
from bert_jax.model.directory import InputDescription, ModelDescription
from bert_jax.model.dropout import row_keys
from bert_jax.model.embeddings import UnitEmbeddings
from bert_jax.model.initializers import sinusoidal_initializer
from bert_jax.tasks.pretraining.objective import PretrainingObjective

PATCHES = Patches(size=8, patch=2, color=True, block=2)
SIZE, COUNT = PATCHES.units.size, PATCHES.grid.columns**2
IMAGES = InputDescription("image", "units", SIZE, PATCHES.grid.columns, PATCHES.grid.block)
ENCODER, LENGTH = dataclasses.replace(tiny.ENCODER, layers=1, max_positions=64), 48
DEEP = dataclasses.replace(ENCODER, layers=2, dropout=0.1, attention_dropout=0.1)
Batch = dict[str, np.ndarray]


def images(count: int, length: int = LENGTH, per_row: int = 2, seed: int = 0) -> Batch:
    """Pre-training rows of images of noise, some units of which are masked."""
    rng = np.random.default_rng(seed)
    ends = COUNT * np.arange(1, count + 1)
    ranges = np.stack([ends - COUNT, ends], 1)
    examples = Examples(ranges, np.zeros_like(ranges), np.zeros(count, np.int32), np.ones(count, np.float32))
    tokens = rng.choice(tiny.ORDINARY_IDS, ends[-1]).astype(np.int32)
    units = rng.integers(0, 256, (ends[-1], SIZE), dtype=np.uint8)
    placement = pack(examples.lengths, length, per_row)
    batch = assemble(examples, placement, tokens, np.ones(ends[-1], bool), tiny.Special(), length, per_row, "is_next", units)
    places = np.sort(rng.permuted(np.tile(np.arange(1, COUNT + 1), (placement.count, 1)), axis=1)[:, :6], axis=1).astype(np.int32)
    batch["masked_positions"], batch["masked_weights"] = places, np.ones(places.shape, np.float32)
    batch["masked_labels"] = np.take_along_axis(batch["tokens"], places, 1)
    np.put_along_axis(batch["tokens"], places, MASK, 1)
    return batch


def parameters(model: Any, scale: float = 0.1) -> Any:
    """Random parameters; biases and layer norms too."""
    rng = np.random.default_rng(0)
    tree = jax.eval_shape(lambda: model.init(jax.random.key(0), zero_row(SIZE))["params"])

    def draw(path: Any, leaf: Any) -> np.ndarray:
        return np.float32(scale) * rng.standard_normal(leaf.shape, np.float32) + np.float32(path[-1].key == "scale")

    return jax.tree_util.tree_map_with_path(draw, tree)


def pretraining(compute: ComputeConfig = tiny.COMPUTE, encoder: EncoderConfig = ENCODER) -> PretrainingObjective:
    model = PretrainingModel(tiny.VOCABULARY, encoder, compute, input=IMAGES)
    return PretrainingObjective(model, tiny.MASKING, tiny.SPECIAL_IDS, MASK, tiny.ORDINARY_IDS)


def both(objective: PretrainingObjective, keys: jax.Array | None = None) -> Callable[[Any, Batch], Any]:
    """(parameters, batch) -> ((loss, outputs), gradients)."""

    def run(params: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            metrics = objective.metrics(params, batch, keys)
            total = sum(metrics[name].total / metrics[name].count for name in objective.losses)
            return total, objective.model.apply({"params": params}, batch, keys)

        return jax.value_and_grad(loss, has_aux=True)(params)

    return jax.jit(run)


@pytest.fixture(scope="module")
def plain() -> tuple[Callable[[Any, Batch], Any], Any, Batch]:
    objective = pretraining()
    return both(objective), parameters(objective.model), images(4)


def embed(params: Any, batch: Batch, config: EncoderConfig = ENCODER, dtype: str = "float32") -> np.ndarray:
    module = UnitEmbeddings(tiny.VOCABULARY, config, jnp.dtype(dtype), PATCHES.grid)
    return np.asarray(module.apply({"params": params}, **{name: jnp.asarray(batch[name]) for name in UnitEmbeddings.reads}))


def same(one: Any, other: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), one, other)))


# What a vector depends on.


def test_a_unit_behind_a_special_token_has_no_influence(plain: tuple[Callable[[Any, Batch], Any], Any, Batch]) -> None:
    """Neither on the outputs nor on any gradient: nothing can be learned from what is masked."""
    run, params, batch = plain
    wanted = run(params, batch)
    assert (batch["tokens"] == MASK).sum() == 12 and (batch["tokens"] == PAD).any()
    changed = batch["units"].copy()
    special = batch["tokens"] < 5
    changed[special] = np.random.default_rng(1).integers(0, 256, changed[special].shape)
    assert same(run(params, batch | {"units": changed}), wanted)
    one = batch["units"].copy()
    one[tuple(np.argwhere(~special)[0])] += 1
    assert not same(run(params, batch | {"units": one})[0][1], wanted[0][1]), "a unit that is not hidden counts"


def test_the_code_of_a_unit_has_no_influence(plain: tuple[Callable[[Any, Batch], Any], Any, Batch]) -> None:
    _, params, batch = plain
    other = np.where(batch["tokens"] < 5, batch["tokens"], tiny.VOCABULARY - 1)
    assert np.array_equal(embed(params["embeddings"], batch), embed(params["embeddings"], batch | {"tokens": other}))


def test_vectors_by_hand(plain: tuple[Callable[[Any, Batch], Any], Any, Batch]) -> None:
    """Special tokens from the table, units by the projection of bytes around zero."""
    params, batch = plain[1]["embeddings"], plain[2]
    scaled = (batch["units"].astype(np.float64) - 127.5) / 64
    vectors = scaled @ params["units"]["kernel"] + params["units"]["bias"]
    for token in (PAD, CLS, SEP, MASK):
        assert (batch["tokens"] == token).any()
        vectors[batch["tokens"] == token] = params["tokens"][token]
    vectors += params["positions"][batch["positions"]] + params["segments"][batch["segments"]]
    vectors -= vectors.mean(-1, keepdims=True)
    vectors /= vectors.std(-1, keepdims=True)
    tiny.assert_close(embed(params, batch), vectors * params["norm"]["scale"] + params["norm"]["bias"], 1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_floating_units_are_projected_as_they_are(plain: tuple[Callable[[Any, Batch], Any], Any, Batch], dtype: type) -> None:
    params, batch = plain[1]["embeddings"], plain[2]
    # Exact in 16 bits.
    scaled = ((batch["units"].astype(np.float32) - 127.5) / 64).astype(dtype)
    assert np.array_equal(embed(params, batch | {"units": scaled}), embed(params, batch))


def test_fresh_units_and_tokens_are_equally_large() -> None:
    config = dataclasses.replace(ENCODER, width=256, initializer_range=0.02)
    kernel = np.asarray(UnitEmbeddings(5, config, jnp.dtype("float32")).init(
        jax.random.key(0), *(jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1, 192)), *[jnp.zeros((1, 1), jnp.int32)] * 2)
    )["params"]["units"]["kernel"])  # fmt: skip
    vectors = np.random.default_rng(0).standard_normal((1000, 192)) @ kernel
    assert vectors.std() == pytest.approx(0.02 * 0.88, rel=0.03)


def test_the_embeddings_of_transformers_vit() -> None:
    """Its convolution over the picture is our projection of the patches, in our order; [MASK] is its mask token."""
    torch = pytest.importorskip("torch")
    vit = pytest.importorskip("transformers.models.vit.modeling_vit")
    from transformers import ViTConfig

    torch.manual_seed(0)
    theirs = vit.ViTEmbeddings(
        ViTConfig(image_size=8, patch_size=2, num_channels=3, hidden_size=ENCODER.width, hidden_dropout_prob=0.0), use_mask_token=True
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    masked = rng.random((3, COUNT)) < 0.3
    cells = PATCHES.grid.cells()
    order = cells[:, 0] * PATCHES.grid.columns + cells[:, 1]  # the place in theirs, row by row, of each of our patches
    assert (order != np.arange(COUNT)).any()

    kernel = state["patch_embeddings.projection.weight"]  # D, C, height, width
    tokens = 0.3 * rng.standard_normal((tiny.VOCABULARY, ENCODER.width)).astype(np.float32)
    tokens[CLS], tokens[MASK] = state["cls_token"][0, 0], state["mask_token"][0, 0]
    positions = np.zeros((ENCODER.max_positions, ENCODER.width), np.float32)
    positions[0], positions[1 : COUNT + 1] = state["position_embeddings"][0, 0], state["position_embeddings"][0, 1:][order]
    segment = rng.standard_normal((2, ENCODER.width)).astype(np.float32)
    params = {
        "tokens": tokens, "positions": positions, "segments": segment,
        "units": {"kernel": kernel.transpose(2, 3, 1, 0).reshape(SIZE, -1), "bias": state["patch_embeddings.projection.bias"]},
        "norm": {"scale": np.ones(ENCODER.width, np.float32), "bias": np.zeros(ENCODER.width, np.float32)},
    }  # fmt: skip

    pixels = torch.from_numpy((pictures.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 64)
    with torch.no_grad():
        found = theirs(pixels, torch.from_numpy(masked)) + torch.from_numpy(segment[0])
        wanted = torch.nn.functional.layer_norm(found, (ENCODER.width,), eps=ENCODER.norm_epsilon).numpy()
    units = np.zeros((3, COUNT + 1, SIZE), np.uint8)
    units[:, 1:] = [PATCHES.extract(picture) for picture in pictures]
    ids = np.full((3, COUNT + 1), tiny.ORDINARY_IDS[0], np.int32)
    ids[:, 0] = CLS
    ids[:, 1:][masked[:, order]] = MASK
    places = np.tile(np.arange(COUNT + 1, dtype=np.int32), (3, 1))
    ours = embed(params, {"tokens": ids, "units": units, "positions": places, "segments": np.zeros_like(places)})
    tiny.assert_close(ours[:, 0], wanted[:, 0], 1e-5)
    tiny.assert_close(ours[:, 1:], wanted[:, 1:][:, order], 1e-5)


# Positions.


@pytest.mark.parametrize("block", [1, 2, 3])
def test_half_of_a_position_is_its_row_and_half_its_column(block: int) -> None:
    grid, config = Grid(6, block), dataclasses.replace(ENCODER, width=64, initializer_range=0.05)
    table = np.asarray(sinusoidal_initializer(config, grid)(jax.random.key(0), (60, 64)))
    assert table.shape == (60, 64)
    assert np.sqrt((table**2).mean()) == pytest.approx(0.05, rel=1e-3)
    rows, columns = table[1:37, :32], table[1:37, 32:]
    cells = grid.cells()
    # Blocks of a grid, written out.
    by_block = sorted(np.ndindex(6, 6), key=lambda cell: (cell[0] // block, cell[1] // block, cell[0] % block, cell[1] % block))
    assert cells.tolist() == [list(cell) for cell in by_block]
    for halves, axis in ((rows, 0), (columns, 1)):
        equal = np.array([[np.array_equal(one, other) for other in halves] for one in halves])
        assert (equal == (cells[:, axis][:, None] == cells[:, axis])).all()
    waves = np.asarray(sinusoidal_initializer(config)(jax.random.key(0), (60, 32)))
    np.testing.assert_allclose(rows, waves[cells[:, 0]], atol=1e-6)
    np.testing.assert_allclose(columns, waves[cells[:, 1]], atol=1e-6)
    distinct = {place.tobytes() for place in table}
    assert len(distinct) == 60, "[CLS] and what follows the grid too"


def test_a_table_may_be_shorter_than_the_grid() -> None:
    config = dataclasses.replace(ENCODER, width=16)
    whole, part = (np.asarray(sinusoidal_initializer(config, Grid(4, 2))(jax.random.key(0), (count, 16))) for count in (40, 9))
    assert np.array_equal(part, whole[:9])


def test_the_model_takes_the_grid_of_its_input() -> None:
    config = dataclasses.replace(ENCODER, position_initializer="sinusoidal")

    def positions(entering: InputDescription) -> np.ndarray:
        model = PretrainingModel(tiny.VOCABULARY, config, tiny.COMPUTE, input=entering)
        init = jax.jit(lambda: model.init(jax.random.key(0), zero_row(SIZE))["params"]["embeddings"]["positions"])
        return np.asarray(init())

    shape = (config.max_positions, config.width)
    assert np.array_equal(positions(IMAGES), sinusoidal_initializer(config, PATCHES.grid)(jax.random.key(0), shape))
    sequence = dataclasses.replace(IMAGES, columns=0, block=0)
    assert np.array_equal(positions(sequence), sinusoidal_initializer(config)(jax.random.key(0), shape))


def test_initializers_that_do_not_suit_images_are_refused() -> None:
    odd = EncoderConfig(layers=1, width=34, heads=2, position_initializer="sinusoidal")
    with pytest.raises(InputError, match=r"encoder\.width=34 must be a multiple of 4"):
        ModelDescription("pretraining", odd, 32, input=IMAGES)
    neighbours = dataclasses.replace(ENCODER, position_initializer="sinusoidal", attention_initializer="neighbours")
    with pytest.raises(InputError, match=r"attention_initializer=neighbours .* Set it to normal"):
        ModelDescription("pretraining", neighbours, 32, input=IMAGES)
    assert ModelDescription("pretraining", neighbours, 32) and ModelDescription("pretraining", odd, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"units": -1}, "must not be negative"), ({"columns": -1}, "must not be negative"), ({"block": 3}, "must divide"),
     ({"block": 0}, "must divide"), ({"columns": 2048, "block": 2}, "at most 1,024")],
)  # fmt: skip
def test_inputs_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(IMAGES, **changes)


# The model.


def test_packed_images_equal_single_ones() -> None:
    model = ClassificationModel(tiny.VOCABULARY, ENCODER, tiny.COMPUTE, 3, "mean", input=IMAGES)
    params = {"params": jax.tree.map(jnp.asarray, parameters(model))}
    packed, single = images(4), images(4, length=COUNT + 2, per_row=1)
    run = jax.jit(lambda batch: model.apply(params, batch, method=lambda model, batch: (model.encode(batch)[0], model(batch))))
    # Masks are drawn by row: the packed rows have the units of both, so no unit may be masked.
    packed, single = (batch | {"tokens": np.where(batch["tokens"] == MASK, 9, batch["tokens"])} for batch in (packed, single))
    together, alone = run(packed), run(single)
    found = {packed["units"][row, start + 1].tobytes(): (row, start) for row in range(2) for start in packed["cls_positions"][row]}
    for index in range(4):
        row, start = found[single["units"][index, 1].tobytes()]
        slot = int(packed["example_ids"][row, start]) - 1
        tiny.assert_close(np.asarray(together[0])[row, start : start + COUNT + 2], np.asarray(alone[0])[index], 1e-5)
        tiny.assert_close(np.asarray(together[1])[row, slot], np.asarray(alone[1])[index, 0], 1e-5)


def with_dropout(compute: ComputeConfig) -> Any:
    objective, batch = pretraining(compute, DEEP), images(2)
    return both(objective, row_keys(jax.random.key(1), len(batch["tokens"])))(parameters(objective.model), batch)


@pytest.fixture(scope="module")
def unrolled() -> Any:
    return with_dropout(tiny.COMPUTE)


@pytest.mark.parametrize("compute", [ComputeConfig(scan_layers=True), ComputeConfig(remat="full", scan_layers=True)])
def test_forms_of_computing_have_equal_gradients(unrolled: Any, compute: ComputeConfig) -> None:
    found, wanted = with_dropout(compute), unrolled
    for _, gradients in (found, wanted):
        gradients["encoder"]["layers"]["key"].pop("bias", None)  # zero by construction, so what is there is rounding
    tiny.assert_close(found, wanted, 1e-4)


def test_bfloat16(plain: tuple[Callable[[Any, Batch], Any], Any, Batch]) -> None:
    run, params, batch = plain
    wanted = run(params, batch)
    (loss, outputs), gradients = both(pretraining(ComputeConfig(dtype="bfloat16")))(params, batch)
    assert embed(params["embeddings"], batch, dtype="bfloat16").dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((outputs, gradients)))
    assert float(loss) == pytest.approx(float(wanted[0][0]), rel=0.02)
    tiny.assert_close(outputs, wanted[0][1], 0.05)
    kernels = [tree["embeddings"]["units"]["kernel"].ravel() for tree in (gradients, wanted[1])]
    assert np.corrcoef(kernels)[0, 1] > 0.99


def test_gradients_reach_the_projection_and_the_special_tokens_but_no_code() -> None:
    model = ClassificationModel(tiny.VOCABULARY, ENCODER, tiny.COMPUTE, 3, "mean", input=IMAGES)
    params, batch = parameters(model), images(4)
    gradients = jax.jit(jax.grad(lambda params: model.apply({"params": params}, batch)[..., 0].sum()))(params)["embeddings"]
    assert (np.asarray(gradients["units"]["kernel"]) != 0).all() and (np.asarray(gradients["units"]["bias"]) != 0).all()
    reached = (np.asarray(gradients["tokens"]) != 0).any(1)
    assert reached[[CLS, SEP, MASK]].all() and not reached[5:].any()
