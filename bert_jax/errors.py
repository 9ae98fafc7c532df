"""User-facing exceptions: a one-paragraph message, printed without a traceback, that shows paths as the user typed them."""

import errno
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

_TYPED: dict[str, str] = {}
"""Absolute path -> the path as the user typed it."""


def remember_typed(path: Path, typed: str) -> None:
    """Record how the user typed the absolute path `path`, so that `as_typed` shows it and everything below it that way."""
    shown = Path(typed)
    _TYPED[str(path)] = typed.rstrip("/") or typed
    # Also record `out` when the user typed out/file.jsonl: a message may be about the folder.
    while path.name == shown.name and shown.parent.name not in ("", "..") and not shown.is_absolute():
        path, shown = path.parent, shown.parent
        _TYPED.setdefault(str(path), str(shown))


def as_typed(text: str) -> str:
    """Replace the absolute paths in a text, and those below them, with the paths as the user typed them."""
    if not _TYPED:
        return text
    paths = "|".join(re.escape(path) for path in sorted([*_TYPED], key=len, reverse=True))
    return re.sub(rf"(?<![\w/.~-])(?:{paths})(?![\w-]|\.\w)", lambda found: _TYPED[found[0]], text)


class InputError(ValueError):
    """Invalid input. The message says in one paragraph what is wrong, where, and how to fix it.

    The command line prints the message and exits with status 2. A message names the file, the field or line, and the remedy.
    """

    def __init__(self, message: str) -> None:
        super().__init__(as_typed(message))


class TextError(InputError):
    """One of several inputs is invalid: `problem` says what is wrong with the text (or `noun`) at `index`, counted from 0.

    Attributes:
        problems: the problems of all inputs that were found to be invalid, by index.
    """

    def __init__(self, index: int, problem: str, noun: str = "text", problems: Mapping[int, str] | None = None) -> None:
        super().__init__(f"{noun.capitalize()} {index} (counted from 0) {problem}")
        self.index, self.problem, self.noun = index, problem, noun
        self.problems = dict(problems or {index: problem})

    def moved(self, move: Callable[[int], int]) -> Self:
        """Return the error with other indices."""
        problems = {move(index): problem for index, problem in self.problems.items()}
        return type(self)(move(self.index), self.problem, self.noun, problems)


class TrainingError(RuntimeError):
    """Training cannot continue, for example because the loss is not finite. The command line exits with status 1."""

    def __init__(self, message: str) -> None:
        super().__init__(as_typed(message))


class Interrupted(Exception):
    """A run was asked to stop and has saved its state.

    The command line exits with 128 plus the signal number: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(as_typed(message))
        self.number = number


# Errors of a disk or network drive that are not the fault of the program.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE)

# The equivalent bucket errors. gcsfs and TensorStore report them as text without an error number.
_BUCKET = re.compile(r"Forbidden: |[A-Z_]+: .*(?:http_response_code|libcurl|gs://)")
_BUCKET_LIBRARIES = ("aiohttp.", "gcsfs.", "google.api_core.", "google.auth.")


def storage_failure(error: BaseException) -> str:
    """Return the error reported by storage if it caused this exception, directly or through a chained one; otherwise "".

    C++ libraries report storage errors as text only, so the messages are searched too.
    """
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
    """A `sys.unraisablehook` that suppresses errors already reported.

    When one write of a checkpoint fails, the save raises that failure. TensorStore's threads then report the other failed writes to
    an event loop that is already closed, which raises an error outside any Python call.
    """
    error, traceback = unraisable.exc_value, unraisable.exc_traceback
    orphaned = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    if not (orphaned and traceback and Path(traceback.tb_frame.f_code.co_filename).parent.name == "asyncio"):
        sys.__unraisablehook__(unraisable)
