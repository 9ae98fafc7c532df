"""Pixels as PNG images inside an HTML page, by the standard library alone."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def data_uri(pixels: NDArray[np.uint8], scale: int = 1) -> str:
    """Return RGB pixels uint8 [H, W, 3] as the URI of a PNG image (W3C PNG, third edition), each pixel drawn `scale` x `scale`."""
    enlarged = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, _ = enlarged.shape
    # Each row begins with its filter type: 0, none.
    rows = np.pad(enlarged.reshape(height, -1), ((0, 0), (1, 0)))
    # 8 bits per channel, color type 2 (RGB), and the only compression and filter methods; not interlaced.
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
