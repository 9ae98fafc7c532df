"""Files as byte streams, decompressed from .gz and .xz, with a limit on the compression ratio."""

import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from bert_jax.errors import InputError

PACKED = (".gz", ".xz")

_CHUNK = 1 << 20
_MAX_RATIO = 200
"""Limit on decompressed size / compressed size. Text reaches 3 to 10, machine logs up to 100."""
_ALWAYS_ALLOWED = 256 << 20
"""Bytes that any file may decompress to, whatever its ratio."""


@contextmanager
def open_bytes(path: Path, on_read: Callable[[int], None] | None = None) -> Iterator[IO[bytes]]:
    """Open a file as a byte stream, decompressed if its name ends in .gz or .xz.

    Args:
        path: the file.
        on_read: called with the number of bytes of each read from the disk.

    Raises:
        InputError: when the file is opened or while it is read: it is missing, cannot be read, is damaged, decompresses to more than 200
            times its size, or is a pipe or a device, which might never end.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is a pipe or a device, and the input may be read more than once: save it to a file first.")
        with io.FileIO(path) as file, io.BufferedReader(_Watched(file, on_read) if on_read else file, _CHUNK) as stored:
            if path.suffix not in PACKED:
                yield stored
                return
            # The readline methods of gzip and lzma are several times slower.
            unpacked = _Watched(cast(io.RawIOBase, _unpacked(stored, path)), _Limit(path))
            with io.BufferedReader(unpacked, _CHUNK) as stream:
                yield stream
    except FileNotFoundError as error:
        raise InputError(f"The file {path} does not exist: check its path.") from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"The file {path} is damaged ({error}): download or compress it again, and check it with `gzip -t` or `xz -t`."
        ) from error
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({os.strerror(error.errno or 0)}).") from error


def _unpacked(stored: IO[bytes], path: Path) -> gzip.GzipFile | lzma.LZMAFile:
    return gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else lzma.LZMAFile(stored)


class _Watched(io.RawIOBase):
    """A stream that calls `on_read` with the number of bytes of each read."""

    def __init__(self, stream: io.RawIOBase, on_read: Callable[[int], None]) -> None:
        self._stream, self._on_read = stream, on_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:  # type: ignore[no-untyped-def]  # the buffer protocol has no type before Python 3.12
        count = self._stream.readinto(buffer) or 0
        self._on_read(count)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Limit:
    """Guard against decompression bombs, small files that would fill the disk or the memory."""

    def __init__(self, path: Path) -> None:
        self._path, self._unpacked, self._size = path, 0, path.stat().st_size
        self._limit = max(_ALWAYS_ALLOWED, _MAX_RATIO * self._size)

    def __call__(self, count: int) -> None:
        self._unpacked += count
        if self._unpacked > self._limit:
            raise InputError(
                f"The file {self._path} decompresses from {self._size:,} bytes to more than {self._limit:,}, an implausible ratio for "
                "text, so it was rejected. If this is intended, decompress it first."
            )
