"""Image files as people have them: formats, modes, depth, transparency, orientation, geometry, and files that are damaged or hostile."""

import base64
import io
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.errors import InputError
from bert_jax.modalities.image.pictures import crop_box, measure_picture
from bert_jax.modalities.image.pictures import read_picture as read_and_measure
from bert_jax.modalities.media.extractor import Unreadable
from bert_jax.modalities.media.png import data_uri

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
SMOOTH = np.stack([*np.meshgrid(np.arange(0, 256, 4), np.arange(0, 256, 4)), np.full((64, 64), 90)], -1).astype(np.uint8)
LUMA = np.array([0.299, 0.587, 0.114])


def file_of(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read_picture(content: Any, size: int, color: bool, **options: Any) -> Any:
    """The pixels, whose original has the measures that another function finds."""
    picture = read_and_measure(content, size, color, **options)
    assert (picture.width, picture.height) == measure_picture(content)
    return picture.pixels


def png(width: int, height: int, depth: int, color_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG file by hand: whatever Pillow does not write, and headers that lie."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, color_type, 0, 0, 0))
    others = b"".join(chunk(data[:4], data[4:]) for data in extra)
    return b"\x89PNG\r\n\x1a\n" + header + others + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def problem(content: Any, **options: Any) -> str:
    with pytest.raises(Unreadable) as raised:
        read_picture(content, 16, True, **options)
    with pytest.raises(Unreadable):
        measure_picture(content, **options)
    return str(raised.value)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_lossless_formats_give_their_pixels(kind: str, options: dict[str, Any]) -> None:
    content = file_of(Image.fromarray(NOISE), kind, **options)
    np.testing.assert_array_equal(read_picture(content, 16, True), NOISE)
    gray = read_picture(content, 16, False)
    assert gray.shape == (16, 16, 1) and gray.dtype == np.uint8
    np.testing.assert_allclose(gray[:, :, 0], NOISE @ LUMA, atol=0.51)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats(kind: str) -> None:
    content = file_of(Image.fromarray(SMOOTH), kind, quality=95)
    np.testing.assert_allclose(read_picture(content, 64, True), SMOOTH.astype(int), atol=8)
    np.testing.assert_allclose(read_picture(content, 64, False)[:, :, 0], SMOOTH @ LUMA, atol=8)


def test_gray_fills_three_channels_and_bits_become_black_and_white() -> None:
    gray = NOISE[:, :, 0]
    for kind in ("PNG", "BMP", "GIF"):
        np.testing.assert_array_equal(read_picture(file_of(Image.fromarray(gray), kind), 16, True), np.repeat(gray[:, :, None], 3, 2))
    bits = gray > 99
    for kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(read_picture(file_of(Image.fromarray(bits), kind), 16, False)[:, :, 0], bits * 255)


def test_palettes() -> None:
    few = Image.fromarray(SMOOTH).quantize(7)
    assert few.mode == "P"
    for kind in ("PNG", "GIF", "BMP"):
        np.testing.assert_array_equal(read_picture(file_of(few, kind), 64, True), np.asarray(few.convert("RGB")))


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_allclose(read_picture(file_of(cmyk, "JPEG"), 16, True), np.full((16, 16, 3), [255, 0, 0]), atol=3)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    values = RNG.permutation(np.linspace(0, 65535, 256) // 3 * 3).astype(np.uint16).reshape(16, 16)
    expected = np.rint(values / 257).astype(np.uint8)
    content = file_of(Image.fromarray(values))
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    np.testing.assert_array_equal(read_picture(content, 16, False)[:, :, 0], expected)
    np.testing.assert_array_equal(read_picture(content, 16, True), np.repeat(expected[:, :, None], 3, 2))
    # One value is declared transparent.
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    hidden = values[4, 5]
    content = png(16, 16, 16, 0, rows, b"tRNS" + struct.pack(">H", hidden))
    np.testing.assert_array_equal(read_picture(content, 16, False)[:, :, 0], np.where(values == hidden, 255, expected))


def test_sixteen_bits_of_color_and_of_alpha() -> None:
    for color_type, channels in ((2, 3), (4, 2), (6, 4)):
        values = RNG.integers(0, 256, (16, 16, channels), dtype=np.uint8)
        rows = b"".join(b"\0" + (row * np.uint16(257)).astype(">u2").tobytes() for row in values)
        picture = read_picture(png(16, 16, 16, color_type, rows), 16, True)
        alpha = values[:, :, channels - 1 :] / 255 if channels % 2 == 0 else 1.0
        color = values[:, :, :3] if channels > 2 else values[:, :, :1]
        np.testing.assert_allclose(picture, np.broadcast_to(color * alpha + 255 * (1 - alpha), picture.shape), atol=1.01)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_transparency_is_blended_with_white(mode: str, kind: str) -> None:
    values = RNG.integers(0, 256, (16, 16, len(mode)), dtype=np.uint8)
    values[:8, :, -1] = 0
    # `exact` keeps the colors hidden under full transparency.
    content = file_of(Image.fromarray(values), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    alpha = values[:, :, -1:] / 255
    picture = read_picture(content, 16, True)
    np.testing.assert_allclose(picture, np.broadcast_to(values[:, :, :-1] * alpha + 255 * (1 - alpha), picture.shape), atol=1.01)
    assert (picture[:8] == 255).all()


def test_transparent_colors_of_palettes_gray_and_rgb() -> None:
    few = Image.fromarray(SMOOTH).quantize(7)
    codes, colors = np.asarray(few), np.asarray(few.convert("RGB"))
    expected = np.where((codes == 3)[:, :, None], 255, colors)
    for kind in ("PNG", "GIF"):
        np.testing.assert_array_equal(read_picture(file_of(few, kind, transparency=3), 64, True), expected)
    shares = np.array([255, 0, 128, 255, 64, 255, 255])
    blended = colors * (shares[codes] / 255)[:, :, None] + (255 - shares[codes])[:, :, None]
    np.testing.assert_allclose(read_picture(file_of(few, transparency=bytes(shares.tolist())), 64, True), blended, atol=1.01)
    gray = NOISE[:, :, 0]
    content = file_of(Image.fromarray(gray), transparency=int(gray[0, 0]))
    np.testing.assert_array_equal(read_picture(content, 16, False)[:, :, 0], np.where(gray == gray[0, 0], 255, gray))
    content = file_of(Image.fromarray(NOISE), transparency=tuple(NOISE[2, 3].tolist()))
    assert (read_picture(content, 16, True)[2, 3] == 255).all() and (read_picture(content, 16, True)[2, 4] == NOISE[2, 4]).all()


def test_hidden_colors_do_not_bleed_into_resized_pixels() -> None:
    values = np.zeros((64, 64, 4), np.uint8)
    values[:, :, :3] = (71, 112, 76)
    values[:, 32:] = (255, 255, 255, 255)
    assert (read_picture(file_of(Image.fromarray(values)), 16, True) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_orientation(orientation: int, kind: str, options: dict[str, Any]) -> None:
    image = Image.fromarray(SMOOTH[:20, :41])
    exif = image.getexif()
    exif[0x0112] = orientation
    content = file_of(image, kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert measure_picture(content) == upright.size == ((20, 41) if orientation > 4 else (41, 20))
    np.testing.assert_array_equal(read_picture(content, 16, True), read_picture(file_of(upright), 16, True))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0nonsense",
        b"Exif\0\0MM\0*\0\0\0\x08\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\4abc\0\0\0\0\0",  # The orientation is a text.
    ],
)
def test_damaged_exif_leaves_the_image_upright(exif: bytes) -> None:
    content = file_of(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    np.testing.assert_array_equal(read_picture(content, 64, True), read_picture(file_of(Image.fromarray(SMOOTH), "JPEG"), 64, True))


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(read_picture(content, 16, True), np.full((16, 16, 3), [255, 0, 0]))


@pytest.mark.parametrize(
    ("width", "height", "size", "resized", "corner"),
    [
        (640, 480, 32, (42, 32), (5, 0)),
        (480, 641, 224, (224, 299), (0, 38)),  # A margin of 37.5 is rounded to even.
        (101, 100, 33, (33, 33), (0, 0)),
        (66, 64, 32, (33, 32), (0, 0)),  # And one of 0.5.
        (50, 20, 20, (50, 20), (15, 0)),
        (9, 7, 28, (36, 28), (4, 0)),
        (5, 300, 8, (8, 480), (0, 236)),
    ],
)
def test_geometry_is_that_of_torchvision(width: int, height: int, size: int, resized: tuple[int, int], corner: tuple[int, int]) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    left, top = corner
    expected = image.resize(resized, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    for content in (file_of(image), np.asarray(image)):
        picture = read_picture(content, size, True)
        assert picture.dtype == np.uint8
        np.testing.assert_allclose(picture, np.asarray(expected).astype(int), atol=1)
    scale = np.array([width / resized[0], height / resized[1]] * 2)
    np.testing.assert_allclose(crop_box(width, height, size), np.array([left, top, left + size, top + size]) * scale)


def test_large_jpegs_are_decoded_at_reduced_scale() -> None:
    image = Image.fromarray(SMOOTH).resize((1203, 901), Image.Resampling.BICUBIC)
    content = file_of(image, "JPEG", quality=95)
    for color in (True, False):
        exact = read_picture(file_of(Image.open(io.BytesIO(content))), 32, color)
        # Half a pixel of the reduced image, at most a quarter of a pixel of the picture, whose neighbors differ by 8.
        np.testing.assert_allclose(read_picture(content, 32, color), exact.astype(int), atol=3)
    assert measure_picture(content) == (1203, 901)


def test_arrays() -> None:
    gray = NOISE[:, :, 0]
    gray_picture = gray[:, :, None]
    color_picture = np.repeat(gray_picture, 3, 2)
    for pixels in (gray, gray_picture, gray * np.uint16(257), (gray / 255).astype(np.float32), gray / 255):
        np.testing.assert_array_equal(read_picture(pixels, 16, False), gray_picture)
        np.testing.assert_array_equal(read_picture(pixels, 16, True), color_picture)
        np.testing.assert_array_equal(read_picture(pixels, 7, True), read_picture(file_of(Image.fromarray(gray)), 7, True))
    np.testing.assert_array_equal(read_picture(gray > 99, 16, False), (gray_picture > 99) * 255)
    np.testing.assert_array_equal(read_picture(NOISE, 16, True), NOISE)
    np.testing.assert_array_equal(read_picture(NOISE[::-1], 16, False), read_picture(file_of(Image.fromarray(NOISE[::-1])), 16, False))
    transparent = np.dstack([NOISE, gray])
    np.testing.assert_array_equal(read_picture(transparent, 16, True), read_picture(file_of(Image.fromarray(transparent)), 16, True))
    assert measure_picture(NOISE[:5]) == (16, 5)


def test_a_picture_is_a_copy() -> None:
    pixels = NOISE.copy()
    for content in (pixels, file_of(Image.fromarray(pixels))):
        read_picture(content, 16, True)[:] = 0
    np.testing.assert_array_equal(pixels, NOISE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((16, 16), np.int64), "type int64"),
        (np.zeros((16, 16), complex), "type complex128"),
        (np.array([[None]]), "type object"),
        (np.full((16, 16), 1.5), "from 0 to 1"),
        (np.full((16, 16), -0.1), "from 0 to 1"),
        (np.full((16, 16), np.nan), "from 0 to 1"),
        (np.zeros((3, 16, 16), np.uint8), r"shape [3, 16, 16]"),
        (np.zeros((16, 16, 2), np.uint8), r"shape [16, 16, 2]"),
        (np.zeros(16, np.uint8), "shape [16]"),
        (np.zeros((1, 16, 16, 3), np.uint8), "shape [1, 16, 16, 3]"),
        (np.zeros((0, 16), np.uint8), "shape [0, 16]"),
        ((np.zeros(16, np.float32), 16000), "is a recording"),
    ],
)
def test_arrays_that_are_no_pixels(content: Any, words: str) -> None:
    assert words in problem(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\0", "formats PNG, JPEG, WebP, BMP and GIF"),
        (b"a text that someone renamed to .png\n" * 50, "formats PNG"),
        (file_of(Image.fromarray(NOISE), "TIFF"), "formats PNG"),
        (file_of(Image.fromarray(NOISE), "PPM"), "formats PNG"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (b"GIF89a", "not an image"),
        (png(5000, 5000, 8, 2, b"\0" * 100), "truncated"),
        (png(16, 16, 8, 7, b"\0" * 999), "not an image"),
        (png(0, 16, 8, 2, b"\0" * 100), "not an image"),
    ],
)
def test_files_that_are_no_images(content: bytes, words: str) -> None:
    assert words in problem(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_truncated_files(kind: str) -> None:
    content = file_of(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    for share in (0.02, 0.1, 0.5, 0.9, 0.98):
        assert "is not an image" in problem(content[: int(share * len(content))]), share


def test_small_images() -> None:
    message = problem(file_of(Image.fromarray(NOISE[:3])), smallest=4)
    assert message == "is an image of only 16 x 3 pixels; width and height must be at least 4"
    assert problem(NOISE[:3], smallest=4) == message
    assert read_picture(file_of(Image.fromarray(NOISE[:4])), 8, True, smallest=4).shape == (8, 8, 3)
    assert read_picture(file_of(Image.fromarray(NOISE[:1])), 8, True).shape == (8, 8, 3)


@pytest.mark.parametrize("filters", ["error", "default"])
@pytest.mark.parametrize(("width", "height"), [(11, 10), (200, 100)])
def test_decompression_bombs(width: int, height: int, filters: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow only warns below twice the limit; here both are refused, whatever the user does about warnings."""
    content = file_of(Image.new("RGB", (width, height)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        message = problem(content)
    assert "Pillow's limit" in message and "100 (PIL.Image.MAX_IMAGE_PIXELS)" in message
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert measure_picture(content) == (width, height)


def test_the_real_limit() -> None:
    assert "89,478,485" in problem(png(9460, 9460, 1, 0, b""))
    assert "89,478,485" in problem(png(60000, 60000, 1, 0, b""))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF"]))
def test_damage_never_ends_in_another_error(data: st.DataObject, kind: str) -> None:
    content = bytearray(file_of(Image.fromarray(NOISE), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + 1] = data.draw(st.binary(max_size=3))
    attempts: list[Callable[[], Any]] = [lambda: read_picture(bytes(content), 8, True), lambda: measure_picture(bytes(content))]
    for attempt in attempts:
        try:
            attempt()
        except Unreadable as error:
            assert "\n" not in str(error) and len(str(error)) < 200


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    content = file_of(Image.fromarray(NOISE))
    monkeypatch.setitem(sys.modules, "PIL", None)
    for attempt in (lambda: read_picture(content, 8, True), lambda: read_picture(NOISE, 8, True), lambda: measure_picture(content)):
        with pytest.raises(InputError, match="pip install pillow"):
            attempt()
    # Pixels of the right size need no package.
    assert read_picture(NOISE, 16, True).shape == (16, 16, 3)


def test_pixels_as_png() -> None:
    uri = data_uri(NOISE[:5], scale=3)
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        image.verify()
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(drawn, NOISE[:5].repeat(3, 0).repeat(3, 1))
    assert uri == data_uri(NOISE[:5].copy(), scale=3) != data_uri(NOISE[:5])
