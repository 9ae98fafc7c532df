"""Units of images: square patches of a picture, which follow each other in square blocks."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bert_jax.config.checks import at_most, positive, require
from bert_jax.data.reader import Units
from bert_jax.modalities.image.pictures import crop_box, measure_picture, read_picture
from bert_jax.modalities.media.extractor import Content, Extractor, Grid, Unreadable

TINT = (30, 110, 255)
"""The blue toward which `Patches.picture` tints."""
STRONGEST_TINT = 0.6
"""The share of blue in a patch whose tint is 1."""
MASKED = 128
"""The gray of a masked patch."""

_NUMBER = r"(\d+(?:\.\d+)?)"
_REGION = re.compile(rf"xywh=(?:(pixel|percent):)?{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}", re.ASCII)


@dataclass(frozen=True)
class Patches(Extractor):
    """Patches of a picture, in blocks of patches that are masked together (BEiT, Bao et al. 2022, section 2.3, with square blocks).

    A unit holds the pixels of a patch row by row, uint8 [patch * patch * channels], channels last.

    Attributes:
        size: width and height of the picture to which an image is resized and cropped, in pixels.
        patch: width and height of a patch, in pixels.
        color: whether pictures are RGB rather than gray.
        block: width and height of a block, in patches.

    Raises:
        InputError: the picture cannot be divided into such patches and blocks.
    """

    noun: ClassVar[str] = "image"
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
    fragment: ClassVar[str] = "xywh=8,8,16,16"
    halves: ClassVar[bool] = True

    size: int = 32
    patch: int = 4
    color: bool = True
    block: int = 2

    def __post_init__(self) -> None:
        positive(self, "size", "patch", "block")
        at_most(self, size=4096)
        whole = self.patch * self.block
        require(self.size % whole == 0, "size", self.size, f"it must be a multiple of patch * block = {whole}.")

    @property
    def units(self) -> Units:
        """Pixels of a patch."""
        return Units(np.uint8, self.patch**2 * self._channels)

    @property
    def grid(self) -> Grid:
        """Patches in blocks."""
        return Grid(self.size // self.patch, self.block)

    def is_one(self, array: NDArray[Any]) -> bool:
        """Return whether an array is [H, W] or [H, W, C] with 1, 3 or 4 channels."""
        return array.ndim < 3 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))

    def extract_and_measure(self, content: Content) -> tuple[NDArray[np.uint8], dict[str, float]]:
        """Return the patches uint8 [n, U] of an image, in the order of `grid.cells()`, and its upright `width` and `height` in pixels.

        Raises:
            Unreadable: the content is damaged, is no image, or is smaller than a patch.
            InputError: Pillow is not installed.
        """
        pixels, width, height = read_picture(content, self.size, self.color, smallest=self.patch)
        blocks, block, patch, channels = self._shape
        split = pixels.reshape(blocks, block, patch, blocks, block, patch, channels)
        return split.transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, self.units.size), {"width": width, "height": height}

    def word_starts(self, count: int) -> NDArray[np.bool_]:
        """Return which units begin a block, bool [count]."""
        return np.arange(count) % self.block**2 == 0

    def parts(self, count: int) -> NDArray[np.int32]:
        """Return the first unit of the upper and of the lower half, int32 [2]; [1] if there is only one row of blocks.

        An odd number of rows of blocks leaves the larger part above.
        """
        rows = self._shape[0]
        start = (rows + 1) // 2 * (count // rows)
        return np.array([0, start] if start < count else [0], np.int32)

    def region(self, content: Content, fragment: str) -> NDArray[np.bool_]:
        """Return which patches have their center inside a region, bool [n].

        Args:
            content: the image.
            fragment: `xywh=x,y,width,height` in pixels of the upright original image, or with `percent:` in percent of its size
                (W3C Media Fragments 1.0, section 4.2.2; decimal fractions are allowed too).

        Raises:
            Unreadable: the fragment is malformed or contains no center of a patch, or the content cannot be read.
            InputError: Pillow is not installed.
        """
        found = _REGION.fullmatch(fragment)
        if found is None:
            raise Unreadable(f"has no region {fragment!r}: write xywh=10,10,20,20 (pixels) or xywh=percent:25,25,50,50")
        width, height = measure_picture(content, smallest=self.patch)
        scale = np.array((width, height)) / 100 if found[1] == "percent" else np.ones(2)
        start, extent = np.array([float(number) for number in found.groups()[1:]]).reshape(2, 2) * scale
        left, top, right, bottom = crop_box(width, height, self.size)
        centers = (self.grid.cells()[:, ::-1] + 0.5) / self.grid.columns * (right - left, bottom - top) + (left, top)
        covered: NDArray[np.bool_] = ((start <= centers) & (centers < start + extent)).all(1)
        if not covered.any():
            raise Unreadable(
                f"has no patch whose center is in {fragment!r}: it has {width} x {height} pixels, of which the model sees "
                f"x from {left:g} to {right:g} and y from {top:g} to {bottom:g}"
            )
        return covered

    def picture(self, units: NDArray[Any], tint: NDArray[np.floating] | None = None) -> NDArray[np.uint8]:
        """Return the picture uint8 [size, size, 3] that consists of the given patches.

        Args:
            units: patches [n, U] as from `extract`, of any type; values are rounded and clipped, and a row of NaN is drawn gray.
            tint: how strongly to blend each patch with blue, from 0 to 1 (60% blue), float [n].
        """
        blocks, block, patch, _ = self._shape
        pixels = self._colored(units)
        if tint is not None:
            share = STRONGEST_TINT * np.clip(np.asarray(tint, np.float32), 0, 1)[:, None, None]
            pixels = (1 - share) * pixels + share * np.array(TINT, np.float32)
        split = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8).reshape(blocks, blocks, block, block, patch, patch, 3)
        return split.transpose(0, 2, 4, 1, 3, 5, 6).reshape(self.size, self.size, 3)

    def tile(self, unit: NDArray[Any]) -> NDArray[np.uint8]:
        """Return a single patch [U] as a picture uint8 [patch, patch, 3]."""
        return np.rint(np.clip(self._colored(unit[None]), 0, 255)).astype(np.uint8).reshape(self.patch, self.patch, 3)

    def _colored(self, units: NDArray[Any]) -> NDArray[np.floating]:
        """Return the pixels of patches in color [n, patch^2, 3]; those of a row of NaN are gray."""
        pixels = np.asarray(units, np.float32).reshape(-1, self.patch**2, self._channels)
        return np.broadcast_to(np.where(np.isnan(pixels), MASKED, pixels), (*pixels.shape[:2], 3))

    @property
    def _channels(self) -> int:
        return 3 if self.color else 1

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """Blocks per side, patches per side of a block, pixels per side of a patch, channels."""
        return self.size // (self.patch * self.block), self.block, self.patch, self._channels
