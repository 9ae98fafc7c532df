"""Tables of text: .tsv, .csv and .jsonl files, also .gz and .xz, and TFDS data sets, read by column names; and lines of text.

Everything is read as a stream. The functions `scan_*` hand on a row that cannot be used as a `BadRow`, those named `read_*`
stop there.
"""

import csv
import itertools
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bert_jax.errors import InputError
from bert_jax.storage.files import on_disk
from bert_jax.storage.streams import PACKED, open_bytes

TABLES = (".tsv", ".csv", ".jsonl")
LONGEST_LINE = 1 << 24
"""Bytes; no model reads as much of one text, and a file without line ends need not fit in memory. A record of a .csv file, which may
have several lines, holds as many characters at most."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOO_LONG = "\udc00"
"""Stands for a line of more than `LONGEST_LINE` bytes."""
_MOST_REREAD = 1 << 26
"""Characters of a .csv file that are read again after records that were none; with more, quotes that do not match cost time without end."""
_NAMED = 50
"""Columns that a message names at most."""
_CARRIAGE_RETURNS = "ends lines with a carriage return alone: convert the file, for example with `tr '\\r' '\\n'`."

T = TypeVar("T")


class Row(NamedTuple):
    """The values that were asked for, in that order, and the line of the file (or the example of the data set) they begin at."""

    line: int
    values: tuple[str, ...]


Table = Callable[[Mapping[str, str], str], Iterator[Row]]
"""A table that is no file: from its columns, by the configuration's names of them, and a split to rows."""


class BadRow(NamedTuple):
    """The line at which a row begins that cannot be used, and what is wrong: the rest of a sentence about that line."""

    line: int
    problem: str


def file_format(path: Path) -> str:
    """The ending that says what a file holds: `.tsv` of `reviews.tsv.gz`."""
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix


def read_rows(source: str, columns: Mapping[str, str], split: str) -> Iterator[Row]:
    """The rows of a file, or of a TFDS data set (`tfds:NAME` or `tfds:NAME[SPLIT]`).

    A .tsv file has no quoting: every tab ends a field. A .csv file is quoted by `"`. Both begin with a line of column
    names, each of which stands there once. A line of a .jsonl file is an object; numbers and truth values are taken as they are
    written, so that `true` and `"true"` are the same text, and null is an empty one.

    Args:
        source: where the rows are.
        columns: from the configuration's name of a column to the column's own name.
        split: of a TFDS data set that names none.

    Raises:
        InputError: the file is missing, damaged, empty, not UTF-8, of another kind, lacks a column or names one twice, or has a list,
            an object or a number that is not finite where a text belongs.
    """
    if source.startswith("tfds:"):
        return _sound(source, _select(source, _tfds(source.removeprefix("tfds:"), split, columns), columns))
    return _sound(source, scan_rows(on_disk(source, "The table"), columns))


def scan_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Row | BadRow]:
    """The rows of a file as `read_rows` takes them, and in their places those that it would stop at.

    Raises:
        InputError: the file as a whole cannot be used: it is missing, damaged, empty or of another kind, its line of column names lacks
            one or holds one twice, or a record of a .csv file is longer than `LONGEST_LINE` characters.
    """
    return _select(str(path), _records(path, columns), columns)


def read_records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Every row of a .tsv, .csv or .jsonl file with the line it begins at; errors as in `read_rows`."""
    return _sound(str(path), _records(path, {}))


def read_lines(path: Path) -> Iterator[Row]:
    """Every line that is not blank, without its end; errors as in `read_rows`."""
    return _sound(str(path), scan_lines(path))


def scan_lines(path: Path) -> Iterator[Row | BadRow]:
    """Every line that is not blank, without its end.

    Raises:
        InputError: the file is missing or damaged.
    """
    for line, text in _lines(path):
        if text.strip():
            problem = _unusable(text)
            yield BadRow(line, problem) if problem else Row(line, (text.rstrip("\r\n"),))


def count_rows(path: Path) -> int:
    """How many rows, good and bad, `scan_rows` finds in a table, or `scan_lines` in any other file, looked at no closer than that takes.

    Raises:
        InputError: the file is missing or damaged.
    """
    kind = file_format(path)
    if kind == ".csv":
        return max(0, sum(1 for _ in _csv(path)) - 1)
    if kind == ".tsv":
        return max(0, sum(1 for _, text in _lines(path) if text.rstrip("\r\n")) - 1)
    return sum(1 for _, text in _lines(path) if text.strip())


def _sound(source: str, rows: Iterator[T | BadRow]) -> Iterator[T]:
    """Stops at the first bad row."""
    for row in rows:
        if isinstance(row, BadRow):
            raise InputError(f"{source} line {row.line} {row.problem}")
        yield row


def _select(source: str, records: Iterator[tuple[int, dict[str, str]] | BadRow], columns: Mapping[str, str]) -> Iterator[Row | BadRow]:
    empty = True
    for record in records:
        empty = False
        if isinstance(record, BadRow):
            yield record
            continue
        line, values = record
        problem = _lacks_column(values, columns)
        yield BadRow(line, problem) if problem else Row(line, tuple(values[column] for column in columns.values()))
    if empty:
        raise InputError(f"{source} holds no examples: it is empty, or a line of column names with nothing below it.")


def _lacks_column(record: Mapping[str, str], columns: Mapping[str, str]) -> str:
    for field, column in columns.items():
        if column not in record:
            names = [*map(repr, itertools.islice(record, _NAMED)), *["..."] * (len(record) > _NAMED)]
            return f"has no column {column!r} among {', '.join(names)}: set {field} to one of them."
    return ""


def _unfit_header(header: list[str], columns: Mapping[str, str]) -> str:
    """What is wrong with a line of column names, or nothing. Columns without a name, which spreadsheets add, may be several."""
    if any("\r" in name for name in header):
        return _CARRIAGE_RETURNS
    if any("\0" in name for name in header):
        return "holds NUL characters, as UTF-16 does: convert the file to UTF-8, for example with `iconv -f UTF-16LE -t UTF-8`."
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        return f"names the column {twice[0]!r} more than once: give each column a name of its own."
    problem = _lacks_column(dict.fromkeys(header, ""), columns)
    if problem and len(header) == 1 and any(separator in header[0] for separator in ",;|\t"):
        return f"has only one column, {header[0]!r}: separate columns by commas in a .csv file and by tabs in a .tsv file."
    return problem


def _unfit_value(record: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """What keeps the value of a column from being a text, or nothing."""
    for column in columns.values():
        value = record.get(column)
        if isinstance(value, str):
            continue
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            return f"has a number that is not finite, {value}, in the column {column!r}: write a text or a finite number there."
        if isinstance(value, list | dict) or (isinstance(value, np.ndarray) and value.ndim):
            kind = "an object" if isinstance(value, dict) else "a list"
            return f"has {kind} in the column {column!r}: write one text, number or truth value there."
    return ""


def _records(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]] | BadRow]:
    """The rows of a file with all columns; those named in `columns` must be in its line of column names."""
    kind = file_format(path)
    if kind not in TABLES:
        raise InputError(f"The file {path} is none of {', '.join(TABLES)} (plain, .gz or .xz): rename or convert it.")
    if kind == ".jsonl":
        yield from _jsonl(path, columns)
        return
    header: list[str] | None = None
    for row in _tsv(path) if kind == ".tsv" else _csv(path):
        problem = row.problem if isinstance(row, BadRow) else ""
        if header is None:
            header = [] if isinstance(row, BadRow) else row[1]
            if problem := problem or _unfit_header(header, columns):
                raise InputError(f"{path} line {row[0]} {problem}")
        elif isinstance(row, BadRow):
            yield row
        elif len(header) > 1 and [field.removeprefix("\ufeff") for field in row[1]] == header:
            yield BadRow(row[0], "repeats the line of column names, as where files were joined: remove it.")
        elif len(row[1]) != len(header):
            cause = "a text holds a tab (.csv and .jsonl can express it)" if kind == ".tsv" else "a text with a comma is not quoted"
            yield BadRow(row[0], f"has {len(row[1])} fields where the first line names {len(header)}: perhaps {cause}.")
        else:
            yield row[0], dict(zip(header, row[1], strict=True))


def _tsv(path: Path) -> Iterator[tuple[int, list[str]] | BadRow]:
    for line, text in _lines(path):
        if fields := text.rstrip("\r\n"):
            problem = _unusable(text)
            yield BadRow(line, problem) if problem else (line, fields.split("\t"))


def _csv(path: Path) -> Iterator[tuple[int, list[str]] | BadRow]:
    # Python's own limit, 131,072 characters a field, is one for the whole process. It is never lowered: ours is kept in `texts`.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    lines = _lines(path)
    record: list[str] = []
    again: deque[str] = deque()
    line, size, reread = 1, 0, 0

    def texts() -> Iterator[str]:
        nonlocal size
        while again or (text := next(lines, (0, ""))[1]):
            record.append(again.popleft() if again else text)
            size += LONGEST_LINE if _TOO_LONG in record[-1] else len(record[-1])
            # Read line by line, the inside of a field would be taken for rows.
            if size > LONGEST_LINE and len(record) > 1:
                raise InputError(
                    f"{path} line {line} begins a record of more than {LONGEST_LINE:,} characters: a quote is not closed there, or a "
                    "field is that large. Close the quote, or shorten or remove the record."
                )
            yield record[-1]

    reader = csv.reader(texts(), strict=True)
    while True:
        record.clear()
        size = 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield BadRow(line, _not_csv(record[0], error))
            # A quote that is never closed takes in the lines below, which are no worse for it: only the first one is bad.
            again.extendleft(reversed(record[1:]))
            reread += size
            if reread > _MOST_REREAD:
                raise InputError(f"{path} has too many quotes that are not closed, the last in line {line}: check its quotes.") from error
            reader = csv.reader(texts(), strict=True)
            line += 1
            continue
        if fields is None:
            return
        if fields:
            problem = _unusable("".join(record))
            yield BadRow(line, problem) if problem else (line, fields)
        line += len(record)


def _not_csv(text: str, error: csv.Error) -> str:
    """What is wrong with the record that this line begins."""
    if "\r" in text.rstrip("\r\n") and "new-line" in str(error):
        return _CARRIAGE_RETURNS
    too_long = _unusable(text) if _TOO_LONG in text else ""
    return too_long or f"begins a record that is not CSV ({error}): check its quotes."


def _jsonl(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]] | BadRow]:
    for line, text in _lines(path):
        if text.strip():
            found = _json_object(text, columns)
            yield BadRow(line, found) if isinstance(found, str) else (line, found)


class _RepeatedKey(Exception):
    """An object has two values for a key."""


def _json_object(text: str, columns: Mapping[str, str]) -> dict[str, str] | str:
    """The object in a line, its values as texts; or what is wrong with the line."""
    if problem := _unusable(text):
        return problem
    try:
        record = json.loads(text, object_pairs_hook=_distinct_keys)
    except _RepeatedKey as error:
        return f"has the key {error} twice in one object: keep one of them."
    except (ValueError, RecursionError) as error:
        return _CARRIAGE_RETURNS if "\r" in text.rstrip("\r\n") else f"is not JSON ({error}): each line must be one object."
    if not isinstance(record, dict):
        return "is not a JSON object with the columns as its keys."
    if problem := _unfit_value(record, columns):
        return problem
    values = {name: value or "" if isinstance(value, str | None) else json.dumps(value) for name, value in record.items()}
    return _unusable("".join(values.values())) or values


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKey(next(repr(name) for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, decoded. A byte that is not UTF-8 becomes a lone surrogate, as in the names of files; so does an endless line.

    `_unusable` finds both. An endless line with an odd number of quotes opens or closes a field of a .csv file, and so does what stands
    for it.
    """
    with open_bytes(path) as file:
        for number in itertools.count(1):
            line = file.readline(LONGEST_LINE)
            if not line:
                return
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                quotes = line.count(b'"')
                while line and not line.endswith(b"\n"):
                    line = file.readline(LONGEST_LINE)
                    quotes += line.count(b'"')
                yield number, _TOO_LONG + ',",' * (quotes % 2)
                continue
            skipped = len(_BYTE_ORDER_MARK) if number == 1 and line.startswith(_BYTE_ORDER_MARK) else 0
            yield number, line[skipped:].decode("utf-8", errors="surrogateescape")


def _unusable(text: str) -> str:
    """What is wrong with a text that is too long or that UTF-8 cannot express, or nothing."""
    if _TOO_LONG in text:
        return f"is longer than {LONGEST_LINE:,} bytes: shorten its text or remove the line."
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before, code = text[max(0, error.start - 20) : error.start], ord(text[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code < 0xDD00 else f"half of a surrogate pair, \\u{code:04x},"
        return f"is not UTF-8 ({what} after {before!r}): convert the file, for example with `iconv -t UTF-8`, or mend the line."
    return ""


def _tfds(name: str, default_split: str, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]] | BadRow]:
    # TFDS takes a second to import, and most labelled text is in files.
    from bert_jax.data.tfds import prepared_tfds, tfds_examples

    name, _, split = name.partition("[")
    split = split.removesuffix("]") or default_split
    builder = prepared_tfds(name)
    try:
        builder.info.splits[split]  # raises for a split that is not there
    except (KeyError, ValueError) as error:
        splits = ", ".join(builder.info.splits)
        raise InputError(f"The data set tfds:{name} has no split {split!r}; it has {splits}: name one as tfds:{name}[SPLIT].") from error
    for number, example in enumerate(tfds_examples(name, builder, split)):
        problem = _unfit_value(example, columns)
        values = {column: _text(value, builder.info.features[column]) for column, value in example.items()}
        yield BadRow(number, problem) if problem else (number, values)


def _text(value: Any, feature: Any) -> str:
    """A value of a TFDS example as text; a class by its name, no class (-1 in a test set without labels) as nothing."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if hasattr(feature, "int2str"):
        return str(feature.int2str(int(value))) if value >= 0 else ""
    return str(value)
