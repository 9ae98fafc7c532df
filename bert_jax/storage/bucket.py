"""Paths in a bucket of Google Cloud Storage that answer as those on a disk do, and one writer at a time there.

A bucket has no folders, no renaming, no appending and no locks. It has objects that are put whole or not at all, lists that are
never out of date, and writes on the condition that an object is still the one that was read.
"""

import fnmatch
import io
import os
import secrets
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import fsspec
import tensorstore
from etils.epath.gpath import PosixGPath
from etils.epath.stat_utils import StatResult

from bert_jax.errors import InputError

REFRESH, LOST = 10.0, 30.0
"""Seconds after which a writer renews its lock, and after which one that was not renewed is nobody's any more."""


def bucket_path(text: str) -> "BucketPath":
    """The path `gs://bucket/...`.

    Raises:
        InputError: no bucket is named, or the package gcsfs is not installed.
    """
    if not text.removeprefix("gs://").strip("/").split("/")[0]:
        raise InputError(f"{text} names no bucket: write gs://BUCKET/FOLDER.")
    # TensorFlow, which etils would rather take where it is installed, is slow to start and has other words for every error.
    os.environ.setdefault("EPATH_USE_TF", "no")
    # TensorStore and other hosts write too, which a list that gcsfs remembers would not show.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    try:
        _files()
    except ImportError as error:
        raise InputError(f"{text} is in Google Cloud Storage, which needs the package gcsfs: pip install gcsfs.") from error
    return BucketPath(text.rstrip("/"))


def _files() -> Any:
    return fsspec.filesystem("gcs", finalize_on_close=True)  # as etils asks for it: it is the same object


@dataclass
class _Stat(StatResult):
    @property
    def st_size(self) -> int:
        return self.length


class BucketPath(PosixGPath):
    """A path of etils with what pathlib's have beside: whole texts with their errors, sizes, `rglob`."""

    def open(self, mode: str = "r", encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> Any:
        file = super().open(mode.strip("bt") + "b")
        return file if "b" in mode else io.TextIOWrapper(file, encoding or "utf-8", errors, newline)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with self.open(encoding=encoding, errors=errors) as file:
            return str(file.read())

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def stat(self) -> _Stat:
        return _Stat(**vars(super().stat()))

    def is_file(self) -> bool:
        return bool(_files().isfile(str(self)))

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as soon as something is in it. (gcsfs would make a bucket whose name was mistyped.)"""

    def iterdir(self) -> Iterator[Self]:
        return (path for path in super().iterdir() if path != self)

    def rglob(self, pattern: str) -> Iterator[Self]:
        found = (self._new(f"gs://{name}") for name in self._find(withdirs=True))
        return (path for path in found if path != self and fnmatch.fnmatch(path.name, pattern))

    def sizes_below(self) -> dict[Self, int]:
        """The sizes of the files below this folder, by one list."""
        found = self._find(detail=True).items()
        return {self._new(f"gs://{name}"): entry["size"] for name, entry in found if not name.endswith("/")}

    def _find(self, **options: Any) -> Any:
        try:
            return _files().find(str(self), **options)
        except FileNotFoundError:  # of a bucket that is not there; a folder that is not holds nothing
            return {}

    def resolve(self, strict: bool = False) -> Self:
        return self

    def expanduser(self) -> Self:
        return self

    def is_symlink(self) -> bool:
        return False


@contextmanager
def only_writer(lock: BucketPath, taken: Callable[[str], InputError]) -> Iterator[None]:
    """Holds a lock: an object that is renewed every few seconds, by conditional writes, so that no two processes have it.

    One that a crash has left is taken over after it was watched for `LOST` seconds; clocks are not compared. A process that was
    stopped so long that another took its lock ends at once when it wakes up, as if it had been killed.

    Raises:
        InputError: another process holds it: `taken`, told which one; or the bucket cannot be written.
    """
    held = _Lock(lock)
    try:
        other = held.take()
    except Exception as error:  # TensorStore has words alone
        told = textwrap.shorten(str(error), 200)
        raise InputError(
            f"{lock.parent} cannot be written ({told}). Look at the name of the bucket, at its permissions, and at this machine's "
            "credentials: `gcloud auth application-default login` makes some."
        ) from error
    if other:
        raise taken(other)
    ended = threading.Event()
    keeper = threading.Thread(target=held.keep, args=(ended,), name="lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        held.let_go()


class _Lock:
    def __init__(self, path: BucketPath) -> None:
        _, _, bucket, *names = path.parts
        self._path, self._key = path, "/".join(names)
        self._store = tensorstore.KvStore.open({"driver": "gcs", "bucket": bucket}).result()
        self._who = f"process {os.getpid()} on {socket.gethostname()}"
        self._text = f"{self._who}\n{secrets.token_hex(16)}\n".encode()
        self._generation = b""

    def take(self) -> str:
        """Nothing, or who holds it."""
        found = self._read()
        if found.state == "value":
            print(f"{self._path} says {_who(found)}; waiting {LOST:.0f} s for a sign of life.", file=sys.stderr, flush=True)
            time.sleep(LOST)
            before, found = found, self._read()
            if found.state == "value" and found.stamp.generation != before.stamp.generation:
                return _who(found)
        return "" if self._write(found.stamp.generation) else _who(self._read())

    def keep(self, ended: threading.Event) -> None:
        """Renews it until `ended`."""
        while not ended.wait(REFRESH):
            try:
                if self._write(self._generation):
                    continue
                other = _who(self._read())
            except Exception as error:  # TensorStore has tried for minutes; somebody else may hold the lock when it succeeds
                print(f"warning: {self._path} could not be renewed ({error})", file=sys.stderr, flush=True)
                continue
            print(f"error: {other} has taken over {self._path.parent}, so this process ends.", file=sys.stderr, flush=True)
            os._exit(1)

    def let_go(self) -> None:
        self._store.write(self._key, None, if_equal=self._generation).result()

    def _read(self) -> Any:
        return self._store.read(self._key).result()

    def _write(self, generation: bytes) -> bool:
        """Whether it was written, which it is if the object is still of this generation."""
        written = self._store.write(self._key, self._text, if_equal=generation).result().generation
        if not written:
            found = self._read()
            # An answer may be lost, and the write be tried again.
            written = found.stamp.generation if found.state == "value" and found.value == self._text else b""
        self._generation = written or self._generation
        return bool(written)


def _who(found: Any) -> str:
    lines = found.value.decode(errors="replace").splitlines() if found.state == "value" else []
    return lines[0] if lines else "which has just begun"
