"""Read columns of .tsv, .csv and .jsonl files (also .gz and .xz) and of data sets, and lines of plain-text files.

All input is streamed. On a malformed row, the `scan_*` functions yield a `BadRow` and continue; the `read_*` functions raise
`InputError`.
"""

import csv
import itertools
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bert_jax.data.data_sets import DataSet, open_data_set
from bert_jax.errors import InputError
from bert_jax.storage.files import on_disk
from bert_jax.storage.streams import PACKED, open_bytes

TABLES = (".tsv", ".csv", ".jsonl")
LONGEST_LINE = 1 << 24
"""Maximum bytes in a line, so that a file without line breaks need not fit in memory; no model reads a text this long. Also the
maximum number of characters in a record of a .csv file, which may span several lines."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOO_LONG = "\udc00"
"""Placeholder for a line of more than `LONGEST_LINE` bytes."""
_MOST_REREAD = 1 << 26
"""Maximum characters of a .csv file to parse again after malformed records; limits the time that unbalanced quotes can cost."""
_MAX_NAMED = 50
"""Maximum number of columns listed in an error message."""
_CARRIAGE_RETURNS = "ends lines with a carriage return alone: convert the file, for example with `tr '\\r' '\\n'`."

T = TypeVar("T")


class Row(NamedTuple):
    """The requested values, in order, and the line of the file where they begin (or the index of the example in its data set).

    Values are strings; a modality other than text may replace what a string names.
    """

    line: int
    values: tuple[Any, ...]


Table = Callable[[Mapping[str, str], str], Iterator[Row]]
"""A built-in table: a function that takes columns, keyed by the configuration fields that set them, and a split, and yields rows."""


class BadRow(NamedTuple):
    """The line where a malformed row begins, and its problem, phrased as the end of a sentence whose subject is the line."""

    line: int
    problem: str


class ListColumn(str):
    """The name of a column whose values may be lists; their text is JSON."""


class JsonColumn(ListColumn):
    """The name of a column whose values may be lists or objects; their text is JSON."""


def file_format(path: Path) -> str:
    """Return the suffix that identifies the file format, ignoring compression: `.tsv` for `reviews.tsv.gz`."""
    return Path(path.stem).suffix if path.suffix in PACKED else path.suffix


def read_rows(source: str, columns: Mapping[str, str], split: str) -> Iterator[Row]:
    """Yield the rows of a file or of a data set (see `bert_jax.data.data_sets`).

    A .tsv file has no quoting: every tab ends a field. A .csv file uses `"` for quoting. Both begin with a header line of
    unique column names. Each line of a .jsonl file is an object; numbers and booleans are read as they are written, so `true`
    and `"true"` give the same text, and null gives an empty text.

    Args:
        source: a file or a data set.
        columns: column names, keyed by the configuration fields that set them.
        split: the split to read if the name of a data set does not include one.

    Raises:
        InputError: the file is missing, damaged, empty, not UTF-8 or of an unsupported format; a column is missing or appears
            twice in the header; or a value is an object, a non-finite number or, except in a `ListColumn`, a list.
    """
    if data := open_data_set(source, split):
        return _checked(source, _select(source, _examples(source, data, columns), columns))
    return _checked(source, scan_rows(on_disk(source, "The table"), columns))


def scan_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file as `read_rows` does, with a `BadRow` for each malformed row.

    Raises:
        InputError: the file is unusable: it is missing, damaged, empty or of an unsupported format; a column is missing or
            appears twice in the header; or a record of a .csv file is longer than `LONGEST_LINE` characters.
    """
    return _select(str(path), _records(path, columns), columns)


def read_records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield every row of a .tsv, .csv or .jsonl file with the line where it begins; raises the same errors as `read_rows`."""
    return _checked(str(path), _records(path, {}))


def read_lines(path: Path, blank: bool = False) -> Iterator[Row]:
    """Yield every non-blank line, or every line, without its line ending; raises the same errors as `read_rows`."""
    return _checked(str(path), scan_lines(path, blank))


def scan_lines(path: Path, blank: bool = False) -> Iterator[Row | BadRow]:
    """Yield every line, without its line ending, with a `BadRow` for each malformed line; blank lines only if asked for.

    Raises:
        InputError: the file is missing or damaged.
    """
    for line, text in _lines(path):
        if blank or text.strip():
            problem = text_problem(text)
            yield BadRow(line, problem) if problem else Row(line, (text.rstrip("\r\n"),))


def count_rows(path: Path) -> int:
    """Count the rows, including malformed ones, that `scan_rows` yields for a table or `scan_lines` for any other file.

    The rows are not validated.

    Raises:
        InputError: the file is missing or damaged.
    """
    kind = file_format(path)
    if kind == ".csv":
        return max(0, sum(1 for _ in _csv(path)) - 1)
    if kind == ".tsv":
        return max(0, sum(1 for _, text in _lines(path) if text.rstrip("\r\n")) - 1)
    return sum(1 for _, text in _lines(path) if text.strip())


def _checked(source: str, rows: Iterator[T | BadRow]) -> Iterator[T]:
    """Raise `InputError` at the first bad row."""
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
        problem = _missing_column(values, columns)
        yield BadRow(line, problem) if problem else Row(line, tuple(values[column] for column in columns.values()))
    if empty:
        raise InputError(f"{source} contains no examples: it is empty or has only a header line.")


def _missing_column(record: Mapping[str, str], columns: Mapping[str, str]) -> str:
    for field, column in columns.items():
        if column not in record:
            names = [*map(repr, itertools.islice(record, _MAX_NAMED)), *["..."] * (len(record) > _MAX_NAMED)]
            return f"has no column {column!r} among {', '.join(names)}: set {field} to one of them."
    return ""


def _header_problem(header: list[str], columns: Mapping[str, str]) -> str:
    """Return the problem with a header line, or "". Several unnamed columns, which spreadsheets add, are allowed."""
    if any("\r" in name for name in header):
        return _CARRIAGE_RETURNS
    if any("\0" in name for name in header):
        return "contains NUL characters, as UTF-16 text does: convert the file to UTF-8, for example with `iconv -f UTF-16LE -t UTF-8`."
    if repeated := [name for name, count in Counter(header).items() if name and count > 1]:
        return f"names the column {repeated[0]!r} more than once: give each column a unique name."
    problem = _missing_column(dict.fromkeys(header, ""), columns)
    if problem and len(header) == 1 and any(separator in header[0] for separator in ",;|\t"):
        return f"has only one column, {header[0]!r}: separate columns with commas in a .csv file and with tabs in a .tsv file."
    return problem


def _value_problem(record: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Return the problem with the first value that cannot be read as text, or ""."""
    for column in columns.values():
        value = record.get(column)
        if isinstance(value, str):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            return f"has the non-finite number {value} in column {column!r}: use text or a finite number."
        if isinstance(column, JsonColumn if isinstance(value, dict) else ListColumn):
            continue
        if isinstance(value, list | dict):
            kind = "an object" if isinstance(value, dict) else "a list"
            return f"has {kind} in column {column!r}: use a single string, number or boolean."
    return ""


def _records(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]] | BadRow]:
    """Yield the rows of a file with all columns; those named in `columns` must be in its header."""
    kind = file_format(path)
    if kind not in TABLES:
        raise InputError(f"The file {path} is not one of {', '.join(TABLES)} (plain, .gz or .xz): rename or convert it.")
    if kind == ".jsonl":
        yield from _jsonl(path, columns)
        return
    header: list[str] | None = None
    for row in _tsv(path) if kind == ".tsv" else _csv(path):
        problem = row.problem if isinstance(row, BadRow) else ""
        if header is None:
            header = [] if isinstance(row, BadRow) else row[1]
            if problem := problem or _header_problem(header, columns):
                raise InputError(f"{path} line {row[0]} {problem}")
        elif isinstance(row, BadRow):
            yield row
        elif len(header) > 1 and [field.removeprefix("\ufeff") for field in row[1]] == header:
            yield BadRow(row[0], "repeats the header, as if files had been concatenated: remove the line.")
        elif len(row[1]) != len(header):
            cause = "a text contains a tab (use .csv or .jsonl for it)" if kind == ".tsv" else "a text with a comma is not quoted"
            yield BadRow(row[0], f"has {len(row[1])} fields but the header has {len(header)}: perhaps {cause}.")
        else:
            yield row[0], dict(zip(header, row[1], strict=True))


def _tsv(path: Path) -> Iterator[tuple[int, list[str]] | BadRow]:
    for line, text in _lines(path):
        if fields := text.rstrip("\r\n"):
            problem = text_problem(text)
            yield BadRow(line, problem) if problem else (line, fields.split("\t"))


def _csv(path: Path) -> Iterator[tuple[int, list[str]] | BadRow]:
    # Python's limit of 131,072 characters per field is process-wide. It is only ever raised; our own limit is enforced in `texts`.
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
            # Not a `BadRow`: resuming at the next line would parse the inside of a field as rows.
            if size > LONGEST_LINE and len(record) > 1:
                raise InputError(
                    f"{path} line {line} begins a record of more than {LONGEST_LINE:,} characters: a quote is not closed, or a "
                    "field is too long. Close the quote, or shorten or remove the record."
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
            # An unclosed quote swallows the lines that follow, which may be valid: report only the first line and parse the rest again.
            again.extendleft(reversed(record[1:]))
            reread += size
            if reread > _MOST_REREAD:
                raise InputError(f"{path} has too many unclosed quotes, the last in line {line}: check its quotes.") from error
            reader = csv.reader(texts(), strict=True)
            line += 1
            continue
        if fields is None:
            return
        if fields:
            problem = text_problem("".join(record))
            yield BadRow(line, problem) if problem else (line, fields)
        line += len(record)


def _not_csv(text: str, error: csv.Error) -> str:
    """Describe the problem with the record that begins with `text`."""
    if "\r" in text.rstrip("\r\n") and "new-line" in str(error):
        return _CARRIAGE_RETURNS
    too_long = text_problem(text) if _TOO_LONG in text else ""
    return too_long or f"begins a record that is not CSV ({error}): check its quotes."


def _jsonl(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]] | BadRow]:
    for line, text in _lines(path):
        if text.strip():
            found = _json_object(text, columns)
            yield BadRow(line, found) if isinstance(found, str) else (line, found)


class _RepeatedKey(Exception):
    """A JSON object has two values for the same key."""


def _json_object(text: str, columns: Mapping[str, str]) -> dict[str, str] | str:
    """Return the object in a line with its values as text, or a description of the problem with the line."""
    if problem := text_problem(text):
        return problem
    try:
        record = json.loads(text, object_pairs_hook=_distinct_keys)
    except _RepeatedKey as error:
        return f"has the key {error} twice in one object: keep one of them."
    except (ValueError, RecursionError) as error:
        return _CARRIAGE_RETURNS if "\r" in text.rstrip("\r\n") else f"is not JSON ({error}): each line must be one object."
    if not isinstance(record, dict):
        return "is not a JSON object with the columns as its keys."
    if problem := _value_problem(record, columns):
        return problem
    return _texts(record)


def _texts(record: Mapping[str, Any]) -> dict[str, str] | str:
    """Return the values of JSON as text, or a description of the problem with one of them."""
    values = {
        name: value or "" if isinstance(value, str | None) else json.dumps(value, ensure_ascii=not isinstance(value, list))
        for name, value in record.items()
    }
    return text_problem("".join(values.values())) or values


def _examples(source: str, data: DataSet, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]] | BadRow]:
    """Yield the requested columns of a data set as those of a .jsonl file."""
    if problem := _missing_column(dict.fromkeys(data.columns(), ""), columns):
        raise InputError(f"{source} {problem}")
    for number, example in enumerate(data.examples([*map(str, columns.values())])):
        found = _value_problem(example, columns) or _texts(example)
        yield BadRow(number, found) if isinstance(found, str) else (number, found)


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKey(next(repr(name) for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered, decoded lines. A byte that is not UTF-8 becomes a lone surrogate (`surrogateescape`), and so does an overlong line.

    `text_problem` detects both. An overlong line with an odd number of quotes opens or closes a field of a .csv file, so its
    placeholder does too.
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


def text_problem(text: str) -> str:
    """Return the problem with a text that is too long or not valid UTF-8, or ""."""
    if _TOO_LONG in text:
        return f"is longer than {LONGEST_LINE:,} bytes: shorten its text or remove the line."
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before, code = text[max(0, error.start - 20) : error.start], ord(text[error.start])
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code < 0xDD00 else f"the unpaired surrogate \\u{code:04x}"
        return f"is not UTF-8 ({what} after {before!r}): convert the file, for example with `iconv -t UTF-8`, or fix the line."
    return ""
