"""The inputs of a media model: files, or content that a program or a data set has in memory."""

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError
from bert_jax.modalities.media.extractor import Content, Unreadable
from bert_jax.storage.files import on_disk

MOST_BYTES = 4 << 30
"""Maximum size of a file, so that a wrong one cannot fill the memory."""

_FRAGMENT = re.compile(r"(?P<path>.+)#(?P<fragment>(?:xywh|t)=[^#]*)", re.DOTALL)
"""A path with a media fragment (W3C Media Fragments 1.0)."""


# Inputs that may hold arrays, which have no single answer to ==, are compared by identity.


@dataclass(frozen=True, eq=False)
class Item:
    """A named input: the path of a file, or its content."""

    name: str
    content: Content | Path

    def read(self) -> Content:
        """Return the content, reading the file if it is one.

        Raises:
            Unreadable: the file does not exist, cannot be read, is too large, or is not a regular file.
        """
        if not isinstance(self.content, Path):
            return self.content
        require_file(self.content)
        try:
            if self.content.stat().st_size > MOST_BYTES:
                raise Unreadable(f"is larger than {MOST_BYTES >> 30} GiB")
            return self.content.read_bytes()
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror})") from error

    @cached_property
    def identity(self) -> str:
        """A hash of the content, equal for copies of a file; of the name if the file cannot be read."""
        try:
            return content_hash(self.read()).hex()
        except Unreadable:
            return f"unreadable: {self.name}"

    @property
    def size(self) -> int:
        """Size in bytes; 0 if the file cannot be read."""
        if isinstance(self.content, Path):
            try:
                return self.content.stat().st_size
            except OSError:
                return 0
        content = self.content[0] if isinstance(self.content, tuple) else self.content
        return len(content) if isinstance(content, bytes) else content.nbytes

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Masked:
    """An input with masked units: those that a media fragment (`xywh=8,8,16,16`, `t=0.5,1.2`) covers, or a mask, bool [n]."""

    input: Any
    where: str | NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Half:
    """The first or second half of an input."""

    input: Any
    index: Literal[0, 1]

    def __str__(self) -> str:
        return f"{'second' if self.index else 'first'} half of {Path(str(self.input)).name}"


@dataclass(frozen=True)
class Listed:
    """A path in a table or list in `folder`, which it must not leave."""

    typed: str
    folder: Path


def content_hash(content: Content) -> bytes:
    """Return a hash of bytes, or of an array with its shape, type and rate."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    array, rate = content if isinstance(content, tuple) else (content, None)
    described = repr((array.shape, array.dtype.str, rate)).encode()
    return hashlib.sha256(described + np.ascontiguousarray(array).tobytes()).digest()


def as_item(query: Any, noun: str) -> tuple[Item, "str | NDArray[np.bool_] | None", int | None]:
    """Return the input of a query, what is masked in it, and which half is meant; `noun` says what a path should lead to: "an image".

    A query is a path, which may end in a media fragment; the bytes of a file; an array; or one of the classes of this module.

    Raises:
        Unreadable: the query is of another type, or its path cannot be resolved.
    """
    if isinstance(query, Half):
        item, masked, _ = as_item(query.input, noun)
        return item, masked, query.index
    if isinstance(query, Masked):
        return as_item(query.input, noun)[0], query.where, None
    if isinstance(query, Item):
        return query, None, None
    if isinstance(query, str | Path | Listed):
        typed = query.typed if isinstance(query, Listed) else str(query)
        found = _FRAGMENT.fullmatch(typed)
        path = found["path"] if found else typed
        try:
            item = Item(typed, below(query.folder, path) if isinstance(query, Listed) else on_disk(path, "The file"))
        except InputError as error:
            raise Unreadable(f"is not the path of {noun}: {error}") from None
        return item, found["fragment"] if found else None, None
    if isinstance(query, bytes | np.ndarray) or (isinstance(query, tuple) and len(query) == 2 and isinstance(query[0], np.ndarray)):
        return Item(f"<{type(query).__name__}>", query), None, None
    raise Unreadable(f"is not a path, bytes or an array but {type(query).__name__}")


def require_file(path: Path) -> None:
    """Raise Unreadable if a path is not that of a regular file."""
    try:
        if path.is_file():
            return
        problem = "is not a regular file" if path.exists() else "does not exist"
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
    raise Unreadable(problem)


def below(folder: Path, typed: str) -> Path:
    """Return the path of a file that a table or list in `folder` names.

    Raises:
        Unreadable: the path is empty or absolute, or leads out of the folder.
    """
    if not typed.strip() or "\0" in typed:
        raise Unreadable("is not a path: it is empty or has a NUL character")
    if Path(typed).is_absolute():
        raise Unreadable(f"is absolute: write it relative to {folder}, the folder of the table or list, which paths may not leave")
    if ".." in Path(typed).parts:
        raise Unreadable(f"leads out of {folder}, the folder of the table or list: write paths relative to it, without `..`")
    path = folder / typed
    # Unlike Path.resolve, realpath accepts links in a circle.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise Unreadable(f"is a link out of {folder}, the folder of the table or list")
    return path
