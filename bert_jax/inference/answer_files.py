"""The files of a prediction: texts read as a stream, and an output that an interrupted command goes on with."""

import fcntl
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

import numpy as np

from bert_jax.config.overrides import from_dict
from bert_jax.data.tables import TABLES, BadRow, Row, count_rows, file_format, scan_lines, scan_rows
from bert_jax.errors import InputError
from bert_jax.model.directory import read_json, write_json

Answer: TypeAlias = dict[str, Any]
"""What is known of a text, as JSON values; `embedding` is an array. That of a line without an answer has `error`."""


def read_texts(path: Path, columns: Mapping[str, str], must_hold: str) -> Iterator[Row | BadRow]:
    """The texts of a file: of a table by its columns, of any other every line that is not blank.

    A line that cannot be read, has an empty text or lacks `must_hold` is a `BadRow`.

    Raises:
        InputError: a fault of the file as a whole.
    """
    if file_format(path) not in TABLES and len(columns) > 1:
        raise InputError(f"{path} cannot hold pairs of texts: give them in two columns of a {', '.join(TABLES)} file.")
    for row in scan_rows(path, columns) if file_format(path) in TABLES else scan_lines(path):
        if isinstance(row, Row) and not all(text.strip() for text in row.values):
            yield BadRow(row.line, "has an empty text: fill it in or remove the line.")
        elif isinstance(row, Row) and must_hold not in row.values[0]:
            yield BadRow(row.line, f"has no {must_hold}: write {must_hold} where a token is to be filled in.")
        else:
            yield row


def count_texts(path: Path, columns: Mapping[str, str]) -> int:
    """How many rows `read_texts` gives, good and bad.

    Raises:
        InputError: a fault of the file as a whole, or there is no text in it.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a plain file, and what is read twice must be one: write the texts to a file and name that.")
    # The line of column names is looked at before all the others are counted.
    if next(read_texts(path, columns, must_hold=""), None) is None:
        raise InputError(f"{path} holds no text: all of it is blank.")
    return count_rows(path)


def check_output(path: Path, vectors: bool) -> None:
    """That an output file can be written, which may be .npy for vectors.

    Raises:
        InputError: it has another ending, is a directory or lies in none.
    """
    if path.suffix != ".jsonl" and not (vectors and path.suffix == ".npy"):
        raise InputError(f"--output {path} does not end in .jsonl{' or .npy' * vectors}: name such a file.")
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise InputError(f"--output {path} cannot be written: {reason}.")


@dataclass(frozen=True)
class Written:
    """How far an output is."""

    rows: int = 0
    """Rows of the input that stand in it, answered or not."""
    bad: int = 0
    """Those without an answer."""
    truncated: int = 0
    """Texts that were cut to the model's positions."""
    size: int = 0
    """Bytes of the output."""

    def after(self, answers: list[Answer], truncated: int, size: int = 0) -> "Written":
        """The same with some more rows."""
        bad = sum("error" in answer for answer in answers)
        return Written(self.rows + len(answers), self.bad + bad, self.truncated + truncated, self.size + size)


class Output(ABC):
    """Takes answers, in order.

    Attributes:
        written: how far it is.
    """

    written = Written()

    @abstractmethod
    def append(self, answers: list[Answer], truncated: int) -> None:
        """Adds the records of the next rows, `truncated` of which were cut.

        Raises:
            InputError: they cannot be written.
        """

    def complete(self) -> None:  # noqa: B027  # an output may have nothing to do
        """All is there."""

    def discard(self) -> None:  # noqa: B027
        """Takes back what can be taken back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        """Lets go of what is open."""


class Terminal(Output):
    """Prints the lines that `show` makes of answers."""

    def __init__(self, show: Callable[[list[Answer]], list[str]]) -> None:
        self._show = show

    def append(self, answers: list[Answer], truncated: int) -> None:
        for line in self._show(answers):
            print(line)
        self.written = self.written.after(answers, truncated)


class AnswerFile(Output):
    """A .jsonl or .npy file that appears when it is whole, with a record for every row of the input.

    Until then it is NAME.part, and NAME.part.json says what it belongs to and how far it is. A command for the same goes on
    from there, whatever ended the one before; it loses what had been added last.

    Args:
        path: the file to be.
        belongs_to: what decides its content, by name, as JSON values.
        shape: rows of the input, and numbers in the vector of each.

    Attributes:
        refused: why an unfinished file that was there is not gone on with; empty if it is, or there was none.

    Raises:
        InputError: the file cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, belongs_to: dict[str, Any], shape: tuple[int, int]) -> None:
        self._path, self._belongs_to = path, belongs_to
        self._part, self._state = (path.with_name(path.name + ending) for ending in (".part", ".part.json"))
        self._encode = partial(_vector_bytes, width=shape[1]) if path.suffix == ".npy" else _json_bytes
        try:
            self._file = _open_alone(self._part)
        except BlockingIOError as error:
            raise InputError(f"Another process is writing {self._part}: wait for it, or name another --output.") from error
        except OSError as error:
            raise InputError(f"--output {path} cannot be written ({os.strerror(error.errno or 0)}): name another file.") from error
        self.written, self.refused = self._found()
        self._file.truncate(self.written.size)
        if not self.written.rows:
            head = _npy_head(shape) if path.suffix == ".npy" else b""
            self._add(head, Written(size=len(head)))

    def append(self, answers: list[Answer], truncated: int) -> None:
        data = self._encode(answers)
        self._add(data, self.written.after(answers, truncated, len(data)))

    def complete(self) -> None:
        self._part.replace(self._path)
        self._state.unlink()

    def discard(self) -> None:
        self._part.unlink()
        self._state.unlink()

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _found(self) -> tuple[Written, str]:
        """How far the unfinished file is, and why it is not gone on with."""
        size = self._part.stat().st_size
        if not size:
            return Written(), ""
        if not self._state.exists():
            return Written(), f"there is no {self._state} to say what {self._part.name} belongs to"
        try:
            state = read_json(self._state)
        except InputError:
            return Written(), f"{self._state} is damaged"
        theirs = state.get("belongs_to")
        other = [name for name, value in self._belongs_to.items() if not isinstance(theirs, dict) or theirs.get(name) != value]
        if other:
            return Written(), f"{self._part} is not of the same {', '.join(other)}"
        written = from_dict(Written, cast(Mapping[str, Any], state["written"]))
        if written.size > size:
            return Written(), f"{self._part} is shorter than {self._state.name} says"
        return written if written.rows else Written(), ""

    def _add(self, data: bytes, written: Written) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            # What the other file says must be true even after a loss of power.
            os.fsync(self._file.fileno())
            write_json(self._state, {"belongs_to": self._belongs_to, "written": asdict(written)})
        except OSError as error:
            raise InputError(
                f"{self._part} cannot be written ({os.strerror(error.errno or 0)}): mend that and run the same command again, which "
                f"goes on after {self.written.rows:,} lines."
            ) from error
        self.written = written


def json_line(answer: Answer) -> str:
    """An answer as one line of JSON."""
    return json.dumps(answer, ensure_ascii=False, default=lambda vector: vector.tolist())


def _json_bytes(answers: list[Answer]) -> bytes:
    return "".join(json_line(answer) + "\n" for answer in answers).encode()


def _vector_bytes(answers: list[Answer], width: int) -> bytes:
    return np.array([answer.get("embedding", np.full(width, np.nan)) for answer in answers], "<f4").tobytes()


def _npy_head(shape: tuple[int, int]) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return head.getvalue()


def _open_alone(path: Path) -> io.FileIO:
    """The file, to add to its end, while no other process does."""
    file = path.open("ab", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
