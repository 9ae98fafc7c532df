"""Image files and pixel arrays as square 8-bit pictures of one size.

A picture depends on the content only, never on where it is read. In order: the EXIF orientation is applied, 16-bit gray is scaled
to 8 bits, transparent pixels are blended with white, the shorter side is resized to the wanted size, and the center is cropped.
"""

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError
from bert_jax.modalities.media.extractor import Content, Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
BACKGROUND = "white"
"""Transparent pixels are blended with this color, so that the colors hidden under them never show."""

_ORIENTATION = 0x0112
_DRAFT = 2
"""A JPEG is decoded at reduced scale while both sides stay this many times the wanted size, as `Image.thumbnail` does."""


class Picture(NamedTuple):
    """Pixels uint8 [size, size, 3 or 1], and the width and height of the upright original image in pixels."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def read_picture(content: Content, size: int, color: bool, smallest: int = 1) -> Picture:
    """Return an image as pixels [size, size, 3], or [size, size, 1] unless `color`.

    Resizing and cropping are those of torchvision's `Resize` (bicubic, antialiased) and `CenterCrop`.

    Args:
        content: a PNG, JPEG, WebP, BMP or GIF file (of an animation, the first frame); or pixels [H, W] or [H, W, 1, 3 or 4] of type
            uint8, uint16, bool, or float in [0, 1].
        size: width and height of the picture.
        color: whether to return RGB rather than gray (ITU-R 601-2 luma).
        smallest: the smallest width and height in pixels to accept.

    Raises:
        Unreadable: the content is damaged, is no image, or has more pixels than Pillow's limit or too few.
        InputError: Pillow is not installed.
    """
    channels = 3 if color else 1
    if not isinstance(content, bytes):
        pixels = _eight_bits(content)
        _require_size(pixels.shape[1], pixels.shape[0], smallest)
        if pixels.shape[:2] == (size, size) and pixels.shape[2] in (1, channels):
            return Picture(np.repeat(pixels, channels // pixels.shape[2], axis=2), size, size)
    with _decoding():
        if isinstance(content, bytes):
            image, width, height = _decode(content, _DRAFT * size, color, smallest)
        else:
            image = _from_pixels(pixels)
            width, height = image.size
        image = _opaque(image).convert("RGB" if color else "L")
        if (width, height) != (size, size):
            scale = np.tile((image.width / width, image.height / height), 2)
            left, top, right, bottom = crop_box(width, height, size) * scale
            image = image.resize((size, size), _pillow().Resampling.BICUBIC, box=(left, top, right, bottom))
        return Picture(np.array(image).reshape(size, size, channels), width, height)


def measure_picture(content: Content, smallest: int = 1) -> tuple[int, int]:
    """Return the width and height of an image in pixels, after its EXIF orientation.

    Args:
        content: as for `read_picture`. A file is decoded, since only that shows whether it is whole.
        smallest: the smallest width and height in pixels to accept.

    Raises:
        Unreadable: as for `read_picture`.
        InputError: Pillow is not installed.
    """
    if not isinstance(content, bytes):
        height, width, _ = _eight_bits(content).shape
        _require_size(width, height, smallest)
        return width, height
    with _decoding():
        return _decode(content, 1, True, smallest)[1:]


def crop_box(width: int, height: int, size: int) -> NDArray[np.float64]:
    """Return which part of an image becomes the picture: (left, top, right, bottom) in pixels of the image."""
    shorter = min(width, height)
    box = np.empty(4)
    for axis, side in enumerate((width, height)):
        # As torchvision rounds: `int` for the longer side, and half to even for the margin.
        resized = size * side // shorter
        margin = round((resized - size) / 2)
        box[axis::2] = np.array((margin, margin + size)) * (side / resized)
    return box


def _pillow() -> Any:
    """Return the module `PIL.Image`."""
    try:
        from PIL import Image
    except ImportError:
        raise InputError(
            "Images are read by the package Pillow, which is not installed: pip install pillow."
        ) from None
    return Image


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn whatever Pillow raises into `Unreadable`, and silence its warnings: about large images, which `_decode` refuses, and EXIF."""
    pillow = _pillow()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        except (Unreadable, MemoryError):
            raise
        except pillow.DecompressionBombError:
            raise _too_large() from None
        except pillow.UnidentifiedImageError:
            raise Unreadable("is not an image in one of the formats PNG, JPEG, WebP, BMP and GIF") from None
        except Exception as error:  # The decoders raise errors of many classes: OSError, SyntaxError, struct.error, IndexError, ...
            reason = textwrap.shorten(str(error) or type(error).__name__, 100)
            raise Unreadable(f"is not an image that Pillow can read ({reason})") from error


def _decode(content: bytes, side: int, color: bool, smallest: int) -> tuple["Image", int, int]:
    """Return an upright image, possibly reduced while both sides stay at least `side`, and its original width and height."""
    if not content:
        raise Unreadable("is empty")
    pillow = _pillow()
    image = pillow.open(io.BytesIO(content), formats=FORMATS)
    width, height = image.size
    if pillow.MAX_IMAGE_PIXELS is not None and width * height > pillow.MAX_IMAGE_PIXELS:
        raise _too_large()
    _require_size(width, height, smallest)
    image.draft(None if color else "L", (side, side))
    image.load()
    orientation = _orientation(image)
    if orientation > 4:
        width, height = height, width
    return _upright(image, orientation), width, height


def _too_large() -> Unreadable:
    limit = _pillow().MAX_IMAGE_PIXELS
    return Unreadable(f"has more pixels than Pillow's limit against decompression bombs, {limit:,} (PIL.Image.MAX_IMAGE_PIXELS)")


def _require_size(width: int, height: int, smallest: int) -> None:
    if min(width, height) < smallest:
        raise Unreadable(f"is an image of only {width} x {height} pixels; width and height must be at least {smallest}")


def _orientation(image: "Image") -> int:
    """Return the EXIF orientation, 1 (upright) to 8; 1 where it is missing or damaged, as image viewers assume."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # Damaged EXIF data raise errors of many classes, and the pixels are whole.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: "Image", orientation: int) -> "Image":
    """Undo an EXIF orientation. (`ImageOps.exif_transpose` also rewrites the EXIF data, which fails where they are damaged.)"""
    if orientation == 1:
        return image
    how = _pillow().Transpose
    return image.transpose(
        (
            how.FLIP_LEFT_RIGHT,
            how.ROTATE_180,
            how.FLIP_TOP_BOTTOM,
            how.TRANSPOSE,
            how.ROTATE_270,
            how.TRANSVERSE,
            how.ROTATE_90,
        )[orientation - 2]
    )


def _opaque(image: "Image") -> "Image":
    """Return an image of 8 bits per channel without transparency."""
    if image.mode.startswith("I"):
        gray = np.asarray(image)
        pixels = _high_bits(gray)
        if "transparency" in image.info:
            pixels[gray == image.info["transparency"]] = 255
        return _from_pixels(pixels[:, :, None])
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    blended: Image = _pillow().new("RGB", image.size, BACKGROUND)
    blended.paste(image, mask=image.getchannel("A"))
    return blended


def _from_pixels(pixels: NDArray[np.uint8]) -> "Image":
    image: Image = _pillow().fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return image


def _eight_bits(content: NDArray[Any] | tuple[NDArray[Any], int]) -> NDArray[np.uint8]:
    """Return an array of pixels as uint8 [H, W, C]."""
    if not isinstance(content, np.ndarray):
        raise Unreadable("is a recording, not an image")
    pixels = content[:, :, None] if content.ndim == 2 else content
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise Unreadable(f"is an array of shape {list(content.shape)}, not pixels [H, W] or [H, W, C] with 1, 3 or 4 channels")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return _high_bits(pixels)
    if pixels.dtype == np.bool_:
        return pixels * np.uint8(255)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise Unreadable(f"has pixels of type {pixels.dtype}; they must be uint8, uint16, bool, or float from 0 to 1")
    # NaN fails both comparisons.
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise Unreadable("has pixels outside the range from 0 to 1 of floating-point pixels")
    return np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)


def _high_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit pixels to 8 bits: v / 257, rounded, computed within 16 bits."""
    half = 128
    return ((np.clip(pixels, 0, 65535 - half) + half) // 257).astype(np.uint8)
