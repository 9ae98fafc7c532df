"""Exceptions that a user is meant to read: a message in one paragraph, printed without a traceback, with paths as the user typed them."""

import errno
import os
import re
import signal
import sys
import textwrap
from pathlib import Path

_TYPED: dict[str, str] = {}
"""Absolute paths, and the words in which the user named them."""


def remember_typed(path: Path, typed: str) -> None:
    """Remembers the words that `path`, which is absolute, was named with; `as_typed` shows it, and what is below it, so."""
    words = Path(typed)
    _TYPED[str(path)] = typed.rstrip("/") or typed
    # `out` where the user typed out/file.jsonl: a message may be about the folder.
    while path.name == words.name and words.parent.name not in ("", "..") and not words.is_absolute():
        path, words = path.parent, words.parent
        _TYPED.setdefault(str(path), str(words))


def as_typed(text: str) -> str:
    """The text with every path that a user named, and what is below it, in the user's own words."""
    if not _TYPED:
        return text
    paths = "|".join(re.escape(path) for path in sorted([*_TYPED], key=len, reverse=True))
    return re.sub(rf"(?<![\w/.~-])(?:{paths})(?![\w-]|\.\w)", lambda found: _TYPED[found[0]], text)


class InputError(ValueError):
    """Bad input: what is wrong, where, and what to do about it, in one paragraph.

    The command line prints the message and exits with status 2. Write it so that it names the file, the field or line,
    and the remedy.
    """

    def __init__(self, message: str) -> None:
        super().__init__(as_typed(message))


class TextError(InputError):
    """One of the given texts cannot be worked on: `problem` is what is wrong with text number `index` (from 0)."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"Text {index} (counted from 0) {problem}")
        self.index, self.problem = index, problem


class TrainingError(RuntimeError):
    """Training cannot go on (a loss that is not finite, say). The command line exits with status 1."""

    def __init__(self, message: str) -> None:
        super().__init__(as_typed(message))


class Interrupted(Exception):
    """A run was asked to stop, and has saved what it had. The command line exits with 128 + the signal: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(as_typed(message))
        self.number = number


# What a disk or a network drive may answer to a program that did nothing wrong.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE)

# The same of a bucket, in the words of gcsfs and of TensorStore, which are no numbers.
_BUCKET = re.compile(r"Forbidden: |[A-Z_]+: .*(?:http_response_code|libcurl|gs://)")
_BUCKET_LIBRARIES = ("aiohttp.", "gcsfs.", "google.api_core.", "google.auth.")


def storage_failure(error: BaseException) -> str:
    """What storage said, if it made this exception (or one that it came from); else nothing. Libraries in C++ tell it in words alone."""
    for one in (error, error.__cause__, error.__context__):
        if isinstance(one, OSError) and one.errno in _STORAGE:
            return as_typed(f"{os.strerror(one.errno)}{f': {one.filename}' if one.filename else ''}")
        if one is not None:
            if _BUCKET.match(str(one)) or type(one).__module__.startswith(_BUCKET_LIBRARIES):
                return textwrap.shorten(str(one), 200)
            for number in _STORAGE:
                if os.strerror(number) in str(one):
                    return os.strerror(number)
    return ""


def print_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """A `sys.unraisablehook` for programs, which keeps quiet of what is told already.

    Where one write of a checkpoint fails, the save ends with that failure, and TensorStore's threads have nobody to tell of the other
    writes: they call the closed event loop themselves, from no Python code.
    """
    error, traceback = unraisable.exc_value, unraisable.exc_traceback
    orphaned = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    if not (orphaned and traceback and Path(traceback.tb_frame.f_code.co_filename).parent.name == "asyncio"):
        sys.__unraisablehook__(unraisable)
