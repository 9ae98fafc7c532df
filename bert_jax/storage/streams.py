"""Files as streams of bytes: as they are, or unpacked from .gz and .xz, never more than a sane packed text holds."""

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
_MOST_UNPACKED = 200
"""Times the packed size; text unpacks to 3 to 10 times of it, the logs of machines to 100 times."""
_ALWAYS_UNPACKED = 256 << 20
"""Bytes that any file may unpack to."""


@contextmanager
def open_bytes(path: Path, on_read: Callable[[int], None] | None = None) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked where its name ends in .gz or .xz; `on_read` hears of the bytes that were read from the disk.

    Raises:
        InputError: also while it is read: the file is missing, cannot be read, is damaged, unpacks to more than 200 times its size, or
            is no file but a pipe or a device, which might never end.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is a pipe or a device, and may be read more than once: write what it gives into a file.")
        with io.FileIO(path) as file, io.BufferedReader(_Watched(file, on_read) if on_read else file, _CHUNK) as stored:
            if path.suffix not in PACKED:
                yield stored
                return
            # Their own readline is several times slower.
            unpacked = _Watched(cast(io.RawIOBase, _unpacked(stored, path)), _Limit(path))
            with io.BufferedReader(unpacked, _CHUNK) as stream:
                yield stream
    except FileNotFoundError as error:
        raise InputError(f"The file {path} does not exist: check its path.") from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"The file {path} is damaged ({error}): fetch or compress it again; `gzip -t` or `xz -t` will tell when it is whole."
        ) from error
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({os.strerror(error.errno or 0)}).") from error


def _unpacked(stored: IO[bytes], path: Path) -> gzip.GzipFile | lzma.LZMAFile:
    return gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else lzma.LZMAFile(stored)


class _Watched(io.RawIOBase):
    """A stream that tells how many bytes were read from it."""

    def __init__(self, stream: io.RawIOBase, on_read: Callable[[int], None]) -> None:
        self._stream, self._on_read = stream, on_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int | None:  # type: ignore[no-untyped-def]  # the buffer protocol has no name before Python 3.12
        count = self._stream.readinto(buffer) or 0
        self._on_read(count)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Limit:
    """Stops where a file of a few bytes would fill the disk or the memory."""

    def __init__(self, path: Path) -> None:
        self._path, self._unpacked, self._size = path, 0, path.stat().st_size
        self._most = max(_ALWAYS_UNPACKED, _MOST_UNPACKED * self._size)

    def __call__(self, count: int) -> None:
        self._unpacked += count
        if self._unpacked > self._most:
            raise InputError(
                f"The file {self._path} unpacks from {self._size:,} bytes to more than {self._most:,}, as no text does, so it is refused. "
                "Where it is meant, unpack it."
            )
