"""Patches of pictures as units: their order, their blocks and halves, regions, and pictures made of them again."""

import io
from typing import Any

import numpy as np
import pytest

from bert_jax.data.reader import Units
from bert_jax.errors import InputError
from bert_jax.modalities.image.demo import SPLITS, digits, split_of
from bert_jax.modalities.image.patches import MASKED, TINT, Patches
from bert_jax.modalities.media.extractor import Unreadable

Image = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(0)
KINDS = (
    Patches(),
    Patches(color=False),
    Patches(size=28, patch=7, block=1),
    Patches(size=224, patch=16),
    Patches(size=8, patch=2, color=False),
    Patches(size=48, patch=4, block=4),
)
each = pytest.mark.parametrize("patches", KINDS, ids=repr)


def pixels_for(patches: Patches) -> np.ndarray:
    return RNG.integers(0, 256, (patches.size, patches.size, 3 if patches.color else 1), dtype=np.uint8)


def file_of(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


@each
def test_units_are_the_patches_in_the_order_of_the_grid(patches: Patches) -> None:
    pixels, side = pixels_for(patches), patches.patch
    units = patches.extract(file_of(pixels))
    cells = patches.grid.cells()
    assert units.dtype == patches.units.dtype and units.shape == (len(cells), patches.units.size)
    assert patches.grid == (patches.size // side, patches.block)
    for unit, (row, column) in zip(units, cells * side, strict=True):
        np.testing.assert_array_equal(unit, pixels[row : row + side, column : column + side].ravel())
    np.testing.assert_array_equal(patches.extract(pixels), units)


def test_blocks_of_patches_are_consecutive() -> None:
    patches = Patches(size=12, patch=2, block=3)
    pixels = np.zeros((12, 12, 3), np.uint8)
    pixels[:6, 6:] = 1
    pixels[6:, :6] = 2
    pixels[6:, 6:] = 3
    units = patches.extract(pixels)
    np.testing.assert_array_equal(units, np.repeat(range(4), 9)[:, None].repeat(12, 1))
    assert np.flatnonzero(patches.word_starts(36)).tolist() == [0, 9, 18, 27]
    assert patches.parts(36).tolist() == [0, 18]


@each
def test_a_picture_shows_the_pixels_again(patches: Patches) -> None:
    pixels = pixels_for(patches)
    units = patches.extract(pixels)
    expected = np.broadcast_to(pixels, (patches.size, patches.size, 3))
    for given in (units, units.astype(np.float16), units.astype(np.float64) + 0.4, units.astype(np.int32)):
        picture = patches.picture(given)
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, expected)


def test_masked_units_and_values_outside_the_range() -> None:
    patches = Patches(size=8, patch=2, block=1)
    units = np.full((16, 12), -20.0)
    units[5], units[6] = np.nan, 300
    picture = patches.picture(units)
    expected = np.zeros((8, 8, 3), np.uint8)
    expected[2:4, 2:4], expected[2:4, 4:6] = MASKED, 255
    np.testing.assert_array_equal(picture, expected)
    masked = Patches(size=8, patch=2, block=1, color=False).picture(np.full((16, 4), np.nan, np.float16))
    np.testing.assert_array_equal(masked, np.full((8, 8, 3), 128))


def test_tint() -> None:
    patches = Patches(size=8, patch=4, block=1)
    picture = patches.picture(np.full((4, 48), 200, np.uint8), np.array([0, 0.5, 1, 7], np.float32))
    for corner, share in (((0, 0), 0), ((0, 4), 0.3), ((4, 0), 0.6), ((4, 4), 0.6)):
        np.testing.assert_allclose(picture[corner], (1 - share) * 200 + share * np.array(TINT), atol=0.51)


@pytest.mark.parametrize(
    ("patches", "start"), [(Patches(), 32), (Patches(28, 7, True, 1), 8), (Patches(12, 2), 24), (Patches(8, 2, True, 4), None)]
)
def test_halves(patches: Patches, start: int | None) -> None:
    count = len(patches.grid.cells())
    parts = patches.parts(count)
    assert parts.dtype == np.int32 and parts.tolist() == ([0] if start is None else [0, start])
    assert patches.word_starts(count)[parts].all()
    if start is not None:
        rows = patches.grid.cells()[:, 0]
        assert rows[:start].max() < rows[start:].min() and 2 * start >= count


def shown(patches: Patches, covered: np.ndarray) -> list[str]:
    drawn = np.full((patches.grid.columns,) * 2, ".")
    drawn[tuple(patches.grid.cells()[covered].T)] = "#"
    return ["".join(row) for row in drawn]


SQUARE = np.zeros((8, 8, 3), np.uint8)
WIDE = np.zeros((40, 80, 3), np.uint8)


@pytest.mark.parametrize(
    ("pixels", "fragment", "rows"),
    [
        # Centers are at 1, 3, 5, 7. The left edge of a region belongs to it, the lower edge does not.
        (SQUARE, "xywh=3,0,3,3", [".##.", "....", "....", "...."]),
        (SQUARE, "xywh=pixel:6,6,100,100", ["....", "....", "....", "...#"]),
        (SQUARE, "xywh=percent:0,50,25,50", ["....", "....", "#...", "#..."]),
        (SQUARE, "xywh=0.5,0.5,0.6,0.6", ["#...", "....", "....", "...."]),
        # The picture shows x from 20 to 60; a patch is 10 x 10 pixels of the original.
        (WIDE, "xywh=0,0,40,20", ["##..", "##..", "....", "...."]),
        (WIDE, "xywh=percent:50,0,50,100", ["..##"] * 4),
        (WIDE, "xywh=percent:43.7,12.4,0.2,0.2", [".#..", "....", "....", "...."]),
    ],
)
def test_regions(pixels: np.ndarray, fragment: str, rows: list[str]) -> None:
    for block in (1, 2):
        patches = Patches(size=8, patch=2, block=block)
        for content in (pixels, file_of(pixels)):
            covered = patches.region(content, fragment)
            assert covered.dtype == np.bool_ and shown(patches, covered) == rows


def test_regions_are_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = file_of(WIDE, exif=exif)
    patches = Patches(size=8, patch=2)
    assert patches.extract_and_measure(content)[1] == {"width": 40, "height": 80}
    assert shown(patches, patches.region(content, "xywh=0,0,40,30")) == ["####", "....", "....", "...."]


MALFORMED = (
    "", "xywh=", "xywh=1,2,3", "xywh=1,2,3,4,5", "xywh=a,b,c,d", "xywh=-1,0,4,4", "xywh=nan,0,4,4", "xywh=1e3,0,9,9", "xywh=٠,0,9,9",
    "xywh=em:1,1,2,2", "#xywh=0,0,9,9", "t=1,2",
)  # fmt: skip


@pytest.mark.parametrize("fragment", MALFORMED)
def test_malformed_regions(fragment: str) -> None:
    with pytest.raises(Unreadable, match="write xywh=10,10,20,20"):
        Patches(size=8, patch=2).region(SQUARE, fragment)


@pytest.mark.parametrize("fragment", ["xywh=0,0,19,40", "xywh=60,0,20,40", "xywh=30,30,0,0", "xywh=500,500,10,10", "xywh=26,6,1,1"])
def test_regions_without_patches(fragment: str) -> None:
    with pytest.raises(Unreadable, match=r"80 x 40 pixels, of which the model sees x from 20 to 60 and y from 0 to 40"):
        Patches(size=8, patch=2).region(WIDE, fragment)


def test_an_image_smaller_than_a_patch() -> None:
    patches = Patches()
    for content in (WIDE[:3], file_of(WIDE[:3])):
        for attempt in (patches.extract, lambda content: patches.region(content, "xywh=0,0,1,1")):
            with pytest.raises(Unreadable, match="80 x 3 pixels; width and height must be at least 4"):
                attempt(content)
    assert patches.extract(WIDE[:4]).shape == (64, 48)


def test_measures_need_a_whole_file() -> None:
    content = file_of(RNG.integers(0, 256, (64, 48, 3), dtype=np.uint8))
    assert Patches().extract_and_measure(content)[1] == {"width": 48, "height": 64}
    with pytest.raises(Unreadable):
        Patches().extract_and_measure(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 30}, "size=30 is invalid: it must be a multiple of patch \\* block = 8"),
        ({"size": 28, "patch": 7, "block": 3}, "= 21"),
        ({"size": 0}, "size=0"),
        ({"patch": -4}, "patch=-4"),
        ({"block": 0}, "block=0"),
        ({"size": 1 << 20}, "at most 4,096"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Patches(**settings)


def test_units_by_channels() -> None:
    assert Patches(color=True).units == Units(np.uint8, 48) and Patches(color=False).units == Units(np.uint8, 16)


def test_the_demos_digits() -> None:
    examples = digits()
    assert len(examples) == 1797 and examples[7][0] == "digits/0007" and examples[7][2] == "7"
    assert all(pixels.shape == (8, 8) and pixels.dtype == np.uint8 for _, pixels, _ in examples)
    assert {label for *_, label in examples} == set("0123456789")
    values = np.unique(np.stack([pixels for _, pixels, _ in examples]))
    assert values.tolist() == [round(value * 255 / 16) for value in range(17)]
    splits = [split_of(index) for index in range(1797)]
    assert [splits.count(split) for split in SPLITS] == [1257, 180, 360]
    assert splits == sorted(splits, key=SPLITS.index)
