"""Google Cloud Storage paths with the interface of local paths, and a lock that admits one writer at a time.

A bucket has no folders, renames, appends or locks. It does have atomic object writes, strongly consistent listings, and writes
conditional on the generation of an object.
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
"""Seconds between renewals of a lock by its owner, and seconds without renewal after which the lock counts as abandoned."""


def bucket_path(text: str) -> "BucketPath":
    """Parse a path `gs://bucket/...`.

    Raises:
        InputError: the bucket name is missing, or the package gcsfs is not installed.
    """
    if not text.removeprefix("gs://").strip("/").split("/")[0]:
        raise InputError(f"{text} does not name a bucket: use gs://BUCKET/FOLDER.")
    # etils prefers TensorFlow if it is installed, which is slow to import and reports errors differently.
    os.environ.setdefault("EPATH_USE_TF", "no")
    # A cached listing would miss files written by TensorStore and by other hosts.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    try:
        _files()
    except ImportError as error:
        raise InputError(f"{text} is in Google Cloud Storage, which needs the package gcsfs: pip install gcsfs.") from error
    return BucketPath(text.rstrip("/"))


def _files() -> Any:
    return fsspec.filesystem("gcs", finalize_on_close=True)  # same arguments as in etils, so that both get the same instance


@dataclass
class _Stat(StatResult):
    @property
    def st_size(self) -> int:
        return self.length


class BucketPath(PosixGPath):
    """An etils path with further `pathlib` methods: text I/O with an encoding and error handling, sizes, `rglob`."""

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
        """Do nothing: a folder exists as soon as it contains an object. (gcsfs would create a bucket with a mistyped name.)"""

    def iterdir(self) -> Iterator[Self]:
        return (path for path in super().iterdir() if path != self)

    def rglob(self, pattern: str) -> Iterator[Self]:
        found = (self._new(f"gs://{name}") for name in self._find(withdirs=True))
        return (path for path in found if path != self and fnmatch.fnmatch(path.name, pattern))

    def sizes_below(self) -> dict[Self, int]:
        """Return the sizes of all files below this folder, with a single listing."""
        found = self._find(detail=True).items()
        return {self._new(f"gs://{name}"): entry["size"] for name, entry in found if not name.endswith("/")}

    def _find(self, **options: Any) -> Any:
        try:
            return _files().find(str(self), **options)
        except FileNotFoundError:  # the bucket does not exist; a folder that does not exist is empty
            return {}

    def resolve(self, strict: bool = False) -> Self:
        return self

    def expanduser(self) -> Self:
        return self

    def is_symlink(self) -> bool:
        return False


def is_held(lock: BucketPath) -> bool:
    """Return whether a lock was renewed lately, by this machine's clock."""
    try:
        return time.time() - lock.stat().mtime < LOST
    except FileNotFoundError:
        return False


@contextmanager
def only_writer(lock: BucketPath, taken: Callable[[str], InputError]) -> Iterator[None]:
    """Hold a lock: an object that its owner renews every few seconds with conditional writes, so that two processes never hold it.

    A lock left by a crash is taken over after it was not renewed for `LOST` seconds; clocks are not compared. If a process was suspended
    for so long that another took over its lock, it exits immediately when it resumes, as if it had been killed.

    Raises:
        InputError: another process holds the lock (the error is `taken(owner)`), or the bucket cannot be written.
    """
    held = _Lock(lock)
    try:
        other = held.take()
    except Exception as error:  # TensorStore has no exception types for this
        reported = textwrap.shorten(str(error), 200)
        raise InputError(
            f"{lock.parent} cannot be written ({reported}). Check the bucket name, its permissions, and the credentials of this "
            "machine; `gcloud auth application-default login` creates them."
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
        held.release()


class _Lock:
    def __init__(self, path: BucketPath) -> None:
        _, _, bucket, *names = path.parts
        self._path, self._key = path, "/".join(names)
        self._store = tensorstore.KvStore.open({"driver": "gcs", "bucket": bucket}).result()
        self._who = f"process {os.getpid()} on {socket.gethostname()}"
        self._text = f"{self._who}\n{secrets.token_hex(16)}\n".encode()
        self._generation = b""

    def take(self) -> str:
        """Try to acquire the lock; return "" on success, otherwise the owner."""
        found = self._read()
        if found.state == "value":
            message = f"{self._path} is held by {_owner(found)}; waiting {LOST:.0f} s to see whether it is still running."
            print(message, file=sys.stderr, flush=True)
            time.sleep(LOST)
            before, found = found, self._read()
            if found.state == "value" and found.stamp.generation != before.stamp.generation:
                return _owner(found)
        return "" if self._write(found.stamp.generation) else _owner(self._read())

    def keep(self, ended: threading.Event) -> None:
        """Renew the lock until `ended` is set."""
        while not ended.wait(REFRESH):
            try:
                if self._write(self._generation):
                    continue
                other = _owner(self._read())
            except Exception as error:  # TensorStore has retried for minutes; another process may hold the lock by the next attempt
                print(f"Warning: {self._path} could not be renewed ({error})", file=sys.stderr, flush=True)
                continue
            print(f"error: {other} has taken over {self._path.parent}; this process exits.", file=sys.stderr, flush=True)
            os._exit(1)

    def release(self) -> None:
        self._store.write(self._key, None, if_equal=self._generation).result()

    def _read(self) -> Any:
        return self._store.read(self._key).result()

    def _write(self, generation: bytes) -> bool:
        """Write the lock if the object still has this generation; return whether it was written."""
        written = self._store.write(self._key, self._text, if_equal=generation).result().generation
        if not written:
            found = self._read()
            # A response may have been lost and the write retried.
            written = found.stamp.generation if found.state == "value" and found.value == self._text else b""
        self._generation = written or self._generation
        return bool(written)


def _owner(found: Any) -> str:
    lines = found.value.decode(errors="replace").splitlines() if found.state == "value" else []
    return lines[0] if lines else "a process that has just started"
