"""Augmented units: beside pictures that are put together, moved and cut again, and beside spectrograms."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from bert_jax.config import AugmentationConfig
from bert_jax.data.packing import assemble, pack
from bert_jax.data.pairs import Examples
from bert_jax.data.reader import Grid, Units
from bert_jax.errors import InputError
from bert_jax.modalities.image.patches import Patches
from bert_jax.training.augmentation import make_augmentation
from bert_jax.training.losses import Mean
from bert_jax.training.objective import ExampleObjective
from bert_jax.training.state import TrainState
from bert_jax.training.steps import evaluation_step, train_step

Batch = dict[str, np.ndarray]
MIRROR_AND_SHIFT = AugmentationConfig(flip=True, shift=3)


class Packed(NamedTuple):
    """A batch, and where the units of each input of each example are: (row, slot, column of the first, number)."""

    batch: Batch
    places: list[tuple[int, int, int, int]]


def packed(firsts: Sequence[np.ndarray], seconds: Sequence[np.ndarray] | None = None, length: int = 128, per_row: int = 4) -> Packed:
    """Examples of one input, or of two, in packed rows."""
    inputs = [one for pair in zip(firsts, seconds, strict=True) for one in pair] if seconds else list(firsts)
    ends = np.cumsum([len(one) for one in inputs])
    ranges = np.stack([ends - [len(one) for one in inputs], ends], 1)
    a, b = (ranges[::2], ranges[1::2]) if seconds else (ranges, np.zeros_like(ranges))
    examples = Examples(a, b, np.zeros(len(a), np.int32), np.ones(len(a), np.float32))
    placement = pack(examples.lengths, length, per_row)
    text, units = np.full(ends[-1], tiny.ORDINARY_IDS[0]), np.concatenate(inputs)
    batch = assemble(examples, placement, text, np.ones(len(text), bool), tiny.Special(), length, per_row, "labels", units)
    places = []
    for one, (row, slot, offset) in enumerate(zip(placement.rows, placement.slots, placement.offsets, strict=True)):
        size = int(a[one, 1] - a[one, 0])
        places.append((int(row), int(slot), int(offset) + 1, size))
        if seconds:
            places.append((int(row), int(slot), int(offset) + size + 2, int(b[one, 1] - b[one, 0])))
    return Packed(batch, places)


def augmented(batch: Batch, config: AugmentationConfig, units: Units, grid: Grid | None, seed: int = 0) -> np.ndarray:
    augment = make_augmentation(config, units, grid)
    assert augment is not None
    found = jax.jit(augment)(batch, jax.random.key(seed))
    assert found.keys() == batch.keys()
    assert all(np.array_equal(found[name], batch[name]) for name in batch if name != "units")
    assert found["units"].dtype == batch["units"].dtype and found["units"].shape == batch["units"].shape
    return np.asarray(found["units"])


def inputs_of(places: Sequence[tuple[int, int, int, int]], units: np.ndarray) -> list[np.ndarray]:
    return [units[row, column : column + size] for row, _, column, size in places]


def outside(places: Sequence[tuple[int, int, int, int]], units: np.ndarray) -> np.ndarray:
    """The units of special tokens and padding."""
    other = np.ones(units.shape[:2], bool)
    for row, _, column, size in places:
        other[row, column : column + size] = False
    return units[other]


# Images.


def moved(picture: np.ndarray, flip: bool, down: int, right: int, reach: int = 3) -> np.ndarray:
    """A picture [H, W, C] shifted with its edge repeated, and then mirrored."""
    wide = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    size = len(picture)
    cut = wide[reach - down :, reach - right :][:size, :size]
    return np.fliplr(cut) if flip else cut


def movement(patches: Patches, before: np.ndarray, after: np.ndarray, reach: int = 3) -> tuple[bool, int, int]:
    """The only movement that turns the patches of one picture into those of the other."""
    channels = 3 if patches.color else 1
    one, other = (patches.picture(units)[..., :channels] for units in (before, after))
    shifts = range(-reach, reach + 1)
    tried = [(flip, down, right) for flip in (False, True) for down in shifts for right in shifts]
    fitting = [one_of for one_of in tried if np.array_equal(moved(one, *one_of, reach), other)]
    assert len(fitting) == 1, f"{len(fitting)} movements fit"
    return fitting[0]


def pictures(patches: Patches, count: int, seed: int = 0) -> list[np.ndarray]:
    """The patches of pictures of noise."""
    shape = (patches.size, patches.size, *((3,) if patches.color else ()))
    rng = np.random.default_rng(seed)
    return [patches.extract(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize("color", [False, True])
def test_each_image_of_a_row_is_moved_as_its_picture_would_be(block: int, color: bool) -> None:
    patches = Patches(size=8, patch=2, color=color, block=block)
    before, places = packed(pictures(patches, 24))
    assert max(slot for _, slot, _, _ in places) == 3
    before["units"][before["tokens"] < 5] = 77  # what must stay is seen to stay
    after = augmented(before, MIRROR_AND_SHIFT, patches.units, patches.grid)
    pairs = zip(inputs_of(places, before["units"]), inputs_of(places, after), strict=True)
    movements = {movement(patches, one, other) for one, other in pairs}
    assert len(movements) > 15, "each example draws its own"
    assert (outside(places, after) == 77).all()


def test_movements_are_uniform() -> None:
    patches = Patches(size=8, patch=4, color=False, block=1)
    before, places = packed(pictures(patches, 200), length=32)
    after = augmented(before, AugmentationConfig(flip=True, shift=1), patches.units, patches.grid)
    found = [movement(patches, *pair) for pair in zip(inputs_of(places, before["units"]), inputs_of(places, after), strict=True)]
    flips, downs, rights = map(np.array, zip(*found, strict=True))
    assert 75 <= flips.sum() <= 125
    for shifts in (downs, rights):
        assert all(40 <= (shifts == shift).sum() <= 95 for shift in (-1, 0, 1))
    assert abs(np.corrcoef([flips, downs, rights]) - np.eye(3)).max() < 0.25


def test_mirroring_twice_is_nothing() -> None:
    patches = Patches(size=8, patch=2, color=True, block=2)
    before, places = packed(pictures(patches, 12))
    once = augmented(before, AugmentationConfig(flip=True), patches.units, patches.grid)
    assert {movement(patches, *pair) for pair in zip(inputs_of(places, before["units"]), inputs_of(places, once), strict=True)} == {
        (False, 0, 0),
        (True, 0, 0),
    }
    twice = augmented(before | {"units": once}, AugmentationConfig(flip=True), patches.units, patches.grid)
    assert np.array_equal(twice, before["units"])


def test_a_shift_beyond_the_picture_leaves_its_edge() -> None:
    patches = Patches(size=4, patch=2, color=False, block=1)
    before, places = packed(pictures(patches, 16), length=32)
    after = augmented(before, AugmentationConfig(shift=1000), patches.units, patches.grid)
    corners = 0
    for one, other in zip(inputs_of(places, before["units"]), inputs_of(places, after), strict=True):
        picture = patches.picture(one)[..., 0]
        corners += np.unique(other).size == 1 and other[0, 0] in picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners >= 15


def test_both_images_of_a_pair_move_alike() -> None:
    patches = Patches(size=8, patch=2, color=False, block=2)
    before, places = packed(pictures(patches, 12), pictures(patches, 12, seed=1))
    after = augmented(before, MIRROR_AND_SHIFT, patches.units, patches.grid)
    found = [movement(patches, *pair) for pair in zip(inputs_of(places, before["units"]), inputs_of(places, after), strict=True)]
    assert found[::2] == found[1::2] and len(set(found)) > 6
    assert not outside(places, after).any()


def test_a_truncated_image_stays_and_takes_nothing_from_others() -> None:
    patches = Patches(size=8, patch=2, color=False, block=2)
    whole = pictures(patches, 8)
    cut = [units[:10] for units in whole]
    for firsts, seconds in ((cut, None), (cut, whole), (whole, cut)):
        before, places = packed(firsts, seconds)
        after = augmented(before, MIRROR_AND_SHIFT, patches.units, patches.grid)
        for one, other in zip(inputs_of(places, before["units"]), inputs_of(places, after), strict=True):
            if len(one) == 10:
                assert np.array_equal(one, other)
            else:
                movement(patches, one, other)
        assert not outside(places, after).any()


# Recordings.

FRAMES, BANDS = 3, 20
SLICES = Units(np.float16, FRAMES * BANDS, FRAMES)


def recordings(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [1 + rng.random((int(rng.integers(18, 30)), SLICES.size)).astype(np.float16) for _ in range(count)]


def hidden(places: Sequence[tuple[int, int, int, int]], before: np.ndarray, after: np.ndarray) -> list[np.ndarray]:
    """bool [n, FRAMES, BANDS] of each example: which numbers were set to zero; all others are as they were."""
    found = []
    for one, other in zip(inputs_of(places, before), inputs_of(places, after), strict=True):
        zero = other == 0
        assert (one[~zero] == other[~zero]).all()
        found.append(zero.reshape(-1, FRAMES, BANDS))
    return found


def one_stretch(hidden: np.ndarray) -> bool:
    return bool(np.count_nonzero(np.diff(np.concatenate([[False], hidden, [False]]).astype(int))) <= 2)


@pytest.mark.parametrize("option", ["time_mask", "band_mask"])
def test_a_mask_hides_one_stretch_of_at_most_its_share(option: str) -> None:
    before, places = packed(recordings(80))
    before["units"][before["tokens"] < 5] = 7
    config = AugmentationConfig(**{option: 0.5})
    after = augmented(before, config, SLICES, None)
    shares, starts = [], []
    for zero, (row, slot, *_) in zip(hidden(places, before["units"], after), places, strict=True):
        if option == "time_mask":
            assert (zero == zero[:, :1, :1]).all(), "all frames and bands of a unit"
            stretch, whole = zero[:, 0, 0], int((before["example_ids"][row] == slot + 1).sum())
        else:
            assert (zero == zero[:1, :1]).all(), "all the time"
            stretch, whole = zero[0, 0], BANDS
        assert one_stretch(stretch) and stretch.sum() <= 0.5 * whole
        shares.append(stretch.mean())
        starts.append(stretch.argmax() / len(stretch) if stretch.any() else -1)
    assert np.mean(shares) == pytest.approx(0.25, abs=0.05)
    assert len(set(shares)) > 8 and max(shares) > 0.4
    assert max(starts) > 0.6 and 0 in starts, "from the very first to the last"


def test_both_masks_together() -> None:
    before, places = packed(recordings(40))
    after = augmented(before, AugmentationConfig(time_mask=0.3, band_mask=0.3), SLICES, None)
    for zero in hidden(places, before["units"], after):
        in_time, in_band = zero.all((1, 2)), zero.all((0, 1))
        assert (zero == (in_time[:, None, None] | in_band)).all()
    assert not outside(places, after).any()


# Both.


def test_nothing_is_augmented_unless_asked_for() -> None:
    nothing = AugmentationConfig()
    assert make_augmentation(nothing, None, None) is None
    assert make_augmentation(nothing, Units(np.uint8, 4), Grid(4, 1)) is None
    assert make_augmentation(nothing, SLICES, None) is None
    batch = {"tokens": jnp.zeros((1, 1), jnp.int32)}
    assert ExampleObjective(None, lambda output, batch: {}).augment(batch, jax.random.key(0)) is batch


IMAGES: Callable[..., np.ndarray] = partial(augmented, config=MIRROR_AND_SHIFT, units=Units(np.uint8, 4), grid=Grid(4, 2))
RECORDINGS: Callable[..., np.ndarray] = partial(augmented, config=AugmentationConfig(time_mask=0.5, band_mask=0.5), units=SLICES, grid=None)


@pytest.mark.parametrize(("augment", "firsts"), [(IMAGES, pictures(Patches(8, 2, False, 2), 8)), (RECORDINGS, recordings(8))])
def test_the_key_decides(augment: Callable[..., np.ndarray], firsts: list[np.ndarray]) -> None:
    before, places = packed(firsts)
    one, same, other = (augment(before, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    pairs = list(zip(inputs_of(places, one), inputs_of(places, other), strict=True))
    assert sum(np.array_equal(*pair) for pair in pairs) <= 1


@pytest.mark.parametrize("units", [None, SLICES])
@pytest.mark.parametrize("config", [AugmentationConfig(flip=True), AugmentationConfig(shift=1)])
def test_only_images_are_mirrored_and_shifted(config: AugmentationConfig, units: Units | None) -> None:
    with pytest.raises(InputError, match=r"flip and \.shift are for images"):
        make_augmentation(config, units, None)


@pytest.mark.parametrize(("units", "grid"), [(None, None), (Units(np.uint8, 4), Grid(4, 2))])
@pytest.mark.parametrize("config", [AugmentationConfig(time_mask=0.1), AugmentationConfig(band_mask=0.1)])
def test_only_recordings_are_hidden_in_part(config: AugmentationConfig, units: Units | None, grid: Grid | None) -> None:
    with pytest.raises(InputError, match="time_mask and band_mask are for recordings"):
        make_augmentation(config, units, grid)


class Sum:
    """A model whose output is a sum over the units, times its only parameter."""

    def apply(self, variables: Any, batch: Any, keys: Any) -> jax.Array:
        del keys
        return variables["params"]["scale"] * batch["units"].astype(jnp.float32).sum()


def test_training_steps_are_augmented_and_evaluation_is_not() -> None:
    before, _ = packed(recordings(8))
    augment = make_augmentation(AugmentationConfig(time_mask=0.5), SLICES, None)
    objective = ExampleObjective(Sum(), lambda output, batch: {"loss": Mean(output, jnp.float32(1))}, augmentation=augment)
    whole = float(before["units"].astype(np.float32).sum())
    params = {"scale": jnp.float32(1)}
    optimizer = tiny.lenient(tiny.make_optimizer(tiny.OptimizerConfig(), 10))

    def loss(step: int) -> float:
        state = TrainState(jnp.int32(step), params, optimizer.init(params))
        return float(train_step(state, before, objective=objective, optimizer=optimizer, seed=0)[1]["loss"].total)

    first, again, second = loss(0), loss(0), loss(1)
    assert first == again != second and max(first, second) < 0.98 * whole
    for index in range(2):
        found = evaluation_step(params, before, jnp.int32(index), objective=objective, seed=0)
        assert float(found["loss"].total) == pytest.approx(whole, rel=1e-6)
