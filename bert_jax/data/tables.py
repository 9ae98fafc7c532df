"""Tables of text: .tsv, .csv and .jsonl files, also .gz and .xz, and TFDS data sets, read by column names."""

import csv
import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.errors import InputError

_FORMATS = (".tsv", ".csv", ".jsonl")
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """The values that were asked for, in that order, and the line of the file (or the example of the data set) they begin at."""

    line: int
    values: tuple[str, ...]


def read_rows(source: str, columns: Mapping[str, str], split: str) -> Iterator[Row]:
    """The rows of a file, or of a TFDS data set (`tfds:NAME` or `tfds:NAME[SPLIT]`).

    A .tsv file has no quoting: every tab ends a field. A .csv file is quoted by `"`. Both begin with a line of column
    names. A line of a .jsonl file is an object; numbers and truth values are taken as they are written.

    Args:
        source: where the rows are.
        columns: from the configuration's name of a column to the column's own name.
        split: of a TFDS data set that names none.

    Raises:
        InputError: the file is missing, damaged, empty, not UTF-8, of another kind, or lacks a column.
    """
    records = _tfds(source.removeprefix("tfds:"), split) if source.startswith("tfds:") else read_records(Path(source).expanduser())
    empty = True
    for line, record in records:
        for field, column in columns.items():
            if column not in record:
                raise InputError(
                    f"{source} has no column {column!r} (line {line}); its columns are {', '.join(map(repr, record))}. "
                    f"Set {field} to one of them."
                )
        empty = False
        yield Row(line, tuple(record[column] for column in columns.values()))
    if empty:
        raise InputError(f"{source} holds no examples: it is empty, or a line of column names with nothing below it.")


def read_records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Every row of a .tsv, .csv or .jsonl file with the line it begins at; errors as in `read_rows`."""
    name = path.name.removesuffix(path.suffix) if path.suffix in _OPENERS else path.name
    kind = Path(name).suffix
    if kind not in _FORMATS:
        raise InputError(f"The labelled file {path} is none of {', '.join(_FORMATS)} (plain, .gz or .xz): rename or convert it.")
    if kind == ".jsonl":
        yield from _jsonl(path)
        return
    header: list[str] | None = None
    for line, fields in _tsv(path) if kind == ".tsv" else _csv(path):
        if header is None:
            header = fields
        elif len(fields) != len(header):
            cause = "a text holds a tab (.csv and .jsonl can express it)" if kind == ".tsv" else "a text with a comma is not quoted"
            raise InputError(f"{path} line {line} has {len(fields)} fields where its first line names {len(header)}: perhaps {cause}.")
        else:
            yield line, dict(zip(header, fields, strict=True))


def _tsv(path: Path) -> Iterator[tuple[int, list[str]]]:
    for line, text in numbered_lines(path):
        if fields := text.rstrip("\r\n"):
            yield line, fields.split("\t")


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((text for _, text in numbered_lines(path)), strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file at the record that begins in line {line} ({error}): check its quotes.") from error


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path} line {line} is not JSON ({error}): each line must be one object.") from error
        if not isinstance(record, dict):
            raise InputError(f"{path} line {line} is not a JSON object with the columns as its keys.")
        texts = {name: json.dumps(value) for name, value in record.items() if not isinstance(value, str | None)}
        yield line, {name: texts.get(name, value or "") for name, value in record.items()}


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, decoded."""
    offset = 0
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            for number, line in enumerate(file, 1):
                skipped = len(_BYTE_ORDER_MARK) if number == 1 and line.startswith(_BYTE_ORDER_MARK) else 0
                try:
                    yield number, line[skipped:].decode("utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path} is not UTF-8 at byte {offset + skipped + error.start:,} (line {number}: {error.reason}): convert it, "
                        "for example with `iconv -t UTF-8`."
                    ) from error
                offset += len(line)
    except FileNotFoundError as error:
        raise InputError(f"The labelled file {path} does not exist: name a .tsv, .csv or .jsonl file, a tfds: data set or demo.") from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged ({error}): fetch or compress it again.") from error
    except OSError as error:
        raise InputError(f"The labelled file {path} cannot be read ({os.strerror(error.errno or 0)}).") from error


def _tfds(name: str, default_split: str) -> Iterator[tuple[int, dict[str, str]]]:
    # TFDS takes a second to import, and most labelled text is in files.
    from bert_jax.data.sources import prepared_tfds, tfds_examples

    name, _, split = name.partition("[")
    split = split.removesuffix("]") or default_split
    builder = prepared_tfds(name)
    try:
        builder.info.splits[split]  # raises for a split that is not there
    except (KeyError, ValueError) as error:
        splits = ", ".join(builder.info.splits)
        raise InputError(f"The data set tfds:{name} has no split {split!r}; it has {splits}: name one as tfds:{name}[SPLIT].") from error
    for number, example in enumerate(tfds_examples(name, builder, split)):
        yield number, {column: _text(value, builder.info.features[column]) for column, value in example.items()}


def _text(value: Any, feature: Any) -> str:
    """A value of a TFDS example as text; a class by its name, no class (-1 in a test set without labels) as nothing."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if hasattr(feature, "int2str"):
        return str(feature.int2str(int(value))) if value >= 0 else ""
    return str(value)
