"""The files of a prediction: input texts read as a stream, and an output that the same command can resume after an interruption."""

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
from bert_jax.data.tables import TABLES, BadRow, Row, count_rows, file_format, scan_lines, scan_rows, text_problem
from bert_jax.errors import InputError
from bert_jax.model.directory import read_json, write_json

Answer: TypeAlias = dict[str, Any]
"""The record of a text, as JSON values, except that `embedding` is an array. The record of a line without an answer has `error`."""


OwnRows: TypeAlias = Callable[[Path], Iterator[Row]]
"""Reads the texts of a file with a layout of its own."""

SIDES = 2
"""A row has a text and at most a second one; an id may follow."""


def read_texts(path: Path, columns: Mapping[str, str], noun: str = "text", own: OwnRows | None = None) -> Iterator[Row | BadRow]:
    """Yield the texts of a file: what `own` reads, the named columns of a table, or every non-blank line of any other file.

    A line that cannot be read or has an empty text yields a `BadRow`; `noun` says in its problem what a text is.

    Raises:
        InputError: the file cannot be read, or it is not a table but `columns` has several columns.
    """
    is_table = file_format(path) in TABLES
    if not own and not is_table and len(columns) > 1:
        raise InputError(f"{path} cannot hold pairs of texts. Put them in two columns of a {', '.join(TABLES)} file.")
    for row in own(path) if own else scan_rows(path, columns) if is_table else scan_lines(path):
        texts = [str(text) for text in row.values[:SIDES]] if isinstance(row, Row) else []
        if not all(text.strip() for text in texts):
            yield BadRow(row.line, f"has an empty {noun}: fill it in or remove the line.")
        elif own and (problem := next(filter(None, map(text_problem, texts)), "")):
            yield BadRow(row.line, problem)
        else:
            yield row


def count_texts(path: Path, columns: Mapping[str, str], own: OwnRows | None = None) -> int:
    """Return the number of rows that `read_texts` yields, valid and invalid.

    Raises:
        InputError: the file cannot be read, is not a regular file, or holds no text.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file, but the input is read twice. Write the texts to a file and name that file.")
    # Reading one row checks the column names before all rows are counted.
    if next(read_texts(path, columns, own=own), None) is None:
        raise InputError(f"{path} contains no text{'' if own else ': every line is blank'}.")
    return sum(1 for _ in own(path)) if own else count_rows(path)


def check_ids(source: Path | None, own: OwnRows | None, output: Path) -> None:
    """Check that every row of the input, a file or else texts, has an id of its own, for an output with an answer for each id.

    Raises:
        InputError: the input has no ids, or an id occurs twice.
    """
    if not source or not own:
        raise InputError(f"--output {output} has an answer for each id, but {source or 'a typed text'} has no ids: name a .jsonl file.")
    seen = set()
    for row in own(source):
        if (name := str(row.values[SIDES])) in seen:
            raise InputError(
                f"{source} has two entries with the id {name!r}, and a .json file has one answer for each id: correct the ids, or name a "
                ".jsonl file in --output."
            )
        seen.add(name)


def check_output(path: Path, vectors: bool, by_id: bool) -> None:
    """Check that a .jsonl file, for `vectors` a .npy file, or for `by_id` a .json file, can be written at `path`.

    Raises:
        InputError: the path has another extension, is a directory, or its parent directory does not exist.
    """
    suffixes = [".jsonl", *[".npy"] * vectors, *[".json"] * by_id]
    if path.suffix not in suffixes:
        raise InputError(f"--output {path} does not end in {' or '.join(suffixes)}: name a file that does.")
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a directory" if path.is_dir() else f"the directory {path.parent} does not exist"
        raise InputError(f"--output {path} cannot be written: {reason}.")


@dataclass(frozen=True)
class Written:
    """The progress of an output."""

    rows: int = 0
    """Number of input rows written, with an answer or an error."""
    bad: int = 0
    """Number of rows written with an error."""
    truncated: int = 0
    """Number of texts truncated to the model's maximum length."""
    size: int = 0
    """Size of the output, in bytes."""

    def after(self, answers: list[Answer], truncated: int, size: int = 0) -> "Written":
        """Return the progress after `answers` have been added."""
        errors = sum("error" in answer for answer in answers)
        return Written(self.rows + len(answers), self.bad + errors, self.truncated + truncated, self.size + size)


class Output(ABC):
    """A destination for answers, which arrive in the order of the input.

    Attributes:
        written: the progress so far.
    """

    written = Written()

    @abstractmethod
    def append(self, answers: list[Answer], truncated: int) -> None:
        """Add the records of the next rows, `truncated` of which were truncated.

        Raises:
            InputError: the records cannot be written.
        """

    def complete(self) -> None:  # noqa: B027  # an output may have nothing to do
        """Finish the output after the last row."""

    def discard(self) -> None:  # noqa: B027
        """Delete what has been written, if possible."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027
        """Close any open file."""


class Terminal(Output):
    """Prints the lines that `show` returns for answers."""

    def __init__(self, show: Callable[[list[Answer]], list[str]]) -> None:
        self._show = show

    def append(self, answers: list[Answer], truncated: int) -> None:
        for line in self._show(answers):
            print(line)
        self.written = self.written.after(answers, truncated)


class AnswerFile(Output):
    """A .jsonl or .npy file with a record for every input row, which appears under its name only when complete.

    A .json file is made of these records at the end: an object with a text for the id of each row that has an answer.

    Until then, the data is in NAME.part, and NAME.part.json records what it belongs to and the progress. However the process ended,
    a command with the same `belongs_to` resumes from the last progress that was recorded.

    Args:
        path: the file to write.
        belongs_to: everything that determines the content of the file, by name, as JSON values.
        shape: the number of input rows, and the size of each row's vector.
        by_id: the field of a record that a .json file holds; None becomes an empty text.

    Attributes:
        refused: why an existing unfinished file is not resumed; empty if it is resumed or there is none.

    Raises:
        InputError: the file cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, belongs_to: dict[str, Any], shape: tuple[int, int], by_id: str = "") -> None:
        self._by_id = by_id
        self._path, self._belongs_to = path, belongs_to
        self._part, self._state = (path.with_name(path.name + ending) for ending in (".part", ".part.json"))
        self._encode = partial(_vector_bytes, width=shape[1]) if path.suffix == ".npy" else _json_bytes
        try:
            self._file = _open_locked(self._part)
        except BlockingIOError as error:
            raise InputError(f"Another process is writing {self._part}. Wait for it, or name another --output.") from error
        except OSError as error:
            raise InputError(f"--output {path} cannot be written ({os.strerror(error.errno or 0)}). Name another file.") from error
        self.written, self.refused = self._found()
        self._file.truncate(self.written.size)
        if not self.written.rows:
            header = _npy_header(shape) if path.suffix == ".npy" else b""
            self._add(header, Written(size=len(header)))

    def append(self, answers: list[Answer], truncated: int) -> None:
        data = self._encode(answers)
        self._add(data, self.written.after(answers, truncated, len(data)))

    def complete(self) -> None:
        if self._path.suffix == ".json":
            with self._part.open(encoding="utf-8") as file:
                found = [answer for answer in map(json.loads, file) if "error" not in answer]
            write_json(self._path, {str(answer["id"]): answer[self._by_id] or "" for answer in found})
            self._part.unlink()
        else:
            self._part.replace(self._path)
        self._state.unlink()

    def discard(self) -> None:
        self._part.unlink()
        self._state.unlink()

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _found(self) -> tuple[Written, str]:
        """Return the progress of an existing unfinished file, and why it is not resumed, if so."""
        size = self._part.stat().st_size
        if not size:
            return Written(), ""
        if not self._state.exists():
            return Written(), f"{self._state} is missing, so it is unknown what {self._part.name} belongs to"
        try:
            state = read_json(self._state)
        except InputError:
            return Written(), f"{self._state} is damaged"
        found = state.get("belongs_to")
        different = [name for name, value in self._belongs_to.items() if not isinstance(found, dict) or found.get(name) != value]
        if different:
            return Written(), f"{self._part} belongs to another command (different {', '.join(different)})"
        written = from_dict(Written, cast(Mapping[str, Any], state["written"]))
        if written.size > size:
            return Written(), f"{self._part} is shorter than {self._state.name} says"
        return written if written.rows else Written(), ""

    def _add(self, data: bytes, written: Written) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            # The progress file must be true even after a power failure.
            os.fsync(self._file.fileno())
            write_json(self._state, {"belongs_to": self._belongs_to, "written": asdict(written)})
        except OSError as error:
            raise InputError(
                f"{self._part} cannot be written ({os.strerror(error.errno or 0)}). Fix the cause and run the same command again, which "
                f"resumes after {self.written.rows:,} lines."
            ) from error
        self.written = written


def json_line(answer: Answer, encoding: str = "utf-8") -> str:
    """Return an answer as one line of JSON, all ASCII if the encoding cannot represent it, as with a path that is not UTF-8."""
    line = json.dumps(answer, ensure_ascii=False, default=lambda vector: vector.tolist())
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(json.loads(line))
    return line


def _json_bytes(answers: list[Answer]) -> bytes:
    return "".join(json_line(answer) + "\n" for answer in answers).encode()


def _vector_bytes(answers: list[Answer], width: int) -> bytes:
    return np.array([answer.get("embedding", np.full(width, np.nan)) for answer in answers], "<f4").tobytes()


def _npy_header(shape: tuple[int, int]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _open_locked(path: Path) -> io.FileIO:
    """Open the file for appending, under an exclusive lock; raises BlockingIOError if another process holds it."""
    while True:
        file = path.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
        # A process that completed its file between the two has renamed what is open here.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()
