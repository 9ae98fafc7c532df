"""Media files and data sets as streams of items, and the labeled examples in folders, tables and data sets."""

import glob
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.data.data_sets import DataSet, open_data_set
from bert_jax.data.records import source
from bert_jax.data.tables import TABLES, Row, file_format, read_rows
from bert_jax.errors import InputError
from bert_jax.modalities.media.extractor import Content, Unreadable
from bert_jax.modalities.media.items import Item, below, require_file
from bert_jax.storage.files import on_disk, sha256

_HASH_CONTENTS_UP_TO = 256 << 20
_FILES_PER_PART = 1_000

Source = source.Source[Item]


@dataclass(frozen=True)
class Files:
    """Media files, given by the absolute path of a file, folder or glob.

    Attributes:
        path: the file, folder or glob.
        suffixes: lowercase suffixes of the files to read.
        first: index of the first file of this part.
        last: index after its last file; 0 for all files.
    """

    path: Path
    suffixes: tuple[str, ...]
    first: int = 0
    last: int = 0

    @property
    def files(self) -> list[Path]:
        return list_files(self.path, self.suffixes)[self.first : self.last or None]

    @property
    def stored_bytes(self) -> int | None:
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> dict[str, Any]:
        """Return the number of files and a hash of their names and contents or, above 256 MB, of their sizes and modification times."""
        files = self.files
        folder = os.path.commonpath([path.parent for path in files])
        stats = [path.stat() for path in files]
        by_content = sum(stat.st_size for stat in stats) <= _HASH_CONTENTS_UP_TO
        digest = hashlib.sha256()
        for path, stat in zip(files, stats, strict=True):
            version = sha256(path) if by_content else f"{stat.st_size} {stat.st_mtime_ns}"
            digest.update(f"{os.path.relpath(path, folder)}\0{version}\0".encode(errors="surrogateescape"))
        return {"files": len(files), "sha256": digest.hexdigest()}

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[Item]:
        return _measured((Item(str(path), path) for path in self.files), on_read)

    def parts(self) -> list[Source]:
        count = len(self.files)
        return [
            Files(self.path, self.suffixes, self.first + start, self.first + min(start + _FILES_PER_PART, count))
            for start in range(0, count, _FILES_PER_PART)
        ]


@dataclass(frozen=True)
class Examples:
    """A data set with a column of the medium.

    Attributes:
        name: the name of the data set, as typed.
        data: the data set.
        feature: `image` or `audio`.
    """

    name: str
    data: DataSet
    feature: str

    @property
    def stored_bytes(self) -> int | None:
        return None

    def identity(self) -> dict[str, Any]:
        self.data.media(self.feature, ())
        return self.data.identity()

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[Item]:
        return _measured((item for item, _ in self.labelled("")), on_read)

    def labelled(self, label: str) -> Iterator[tuple[Item, str]]:
        """Yield each item with the text in a column, or "" if no column is named."""
        for index, (content, values) in enumerate(self.data.media(self.feature, [label] if label else [])):
            value = values.get(label)
            yield Item(f"{self.name} {index}", content), "" if value is None else str(value)

    def parts(self) -> list[Source]:
        return [Examples(self.name, part, self.feature) for part in self.data.parts()]


@dataclass(frozen=True)
class InMemory:
    """Items that a package provides; `identity` says which, at which version."""

    make: Callable[[], Iterable[Item]]
    described: tuple[tuple[str, str], ...]

    @property
    def stored_bytes(self) -> int | None:
        return None

    def identity(self) -> dict[str, Any]:
        return dict(self.described)

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[Item]:
        return _measured(self.make(), on_read)

    def parts(self) -> list[Source]:
        return [self]


@dataclass(frozen=True)
class Demo:
    """Labeled data that a package contains.

    Attributes:
        name: what the data are.
        package: the package.
        examples: yields the name, content, label and split of each item.
    """

    name: str
    package: str
    examples: Callable[[], Iterable[tuple[str, Content, str, str]]]

    @property
    def unlabeled(self) -> Source:
        """The items without those of the test set.

        Raises:
            InputError: the package is not installed.
        """
        try:
            version = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            raise InputError(f"The demo needs the package {self.package}: pip install {self.package}") from None
        return InMemory(self._items, (("demo", self.name), (self.package, version)))

    def _items(self) -> Iterator[Item]:
        return (Item(name, content) for name, content, _, split in self.examples() if split != "test")

    def rows(self, columns: Mapping[str, str], split: str) -> Iterator[Row]:
        """Yield the labeled rows of a split; a built-in table."""
        if len(columns) > 2:
            raise InputError(f"The demo has no columns {', '.join(columns.values())}: it has one input and its label.")
        for line, (name, content, label, own) in enumerate(self.examples()):
            if own == split:
                yield Row(line, (Item(name, content), label))


def list_files(location: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files that a file name, a folder (searched recursively) or a glob refers to, sorted.

    Hidden files and folders are left out, such as the copies in `.ipynb_checkpoints`.

    Raises:
        InputError: there is no such file or folder, or it contains no file with one of the suffixes.
    """
    kinds = ", ".join(suffixes)
    if location.is_file():
        if location.suffix.lower() not in suffixes:
            raise InputError(f"The file {location} is not one of {kinds}: convert it, or name a folder.")
        return [location]
    if location.is_dir():
        found: Iterable[Path] = _files_below(location)
    elif glob.has_magic(str(location)):
        # Brackets in the names of existing folders are not part of a pattern.
        folder = next(parent for parent in location.parents if parent.is_dir())
        matches = folder.glob(str(location.relative_to(folder)))
        found = (path for path in matches if not any(part.startswith(".") for part in path.relative_to(folder).parts[:-1]))
    else:
        raise InputError(f"The data {location} does not exist: name a file, a folder, a glob, a data set (tfds: or hf:) or demo.")
    files = sorted(path for path in found if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file())
    if not files:
        raise InputError(f"The data {location} has no files that end in {kinds}.")
    return files


def _files_below(location: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those below it, except in hidden ones. Links are followed.

    Raises:
        InputError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"The folder {error.filename} cannot be read ({error.strerror}): change its permissions, or move it away.")

    for folder, folders, files in os.walk(location, onerror=refuse, followlinks=True):
        # A link to a folder that contains it would never end.
        above = {os.path.realpath(path) for path in (Path(folder), *Path(folder).parents)}
        folders[:] = [name for name in folders if not name.startswith(".") and os.path.realpath(Path(folder, name)) not in above]
        yield from (Path(folder, name) for name in files)


def labelled_rows(name: str, columns: Mapping[str, str], split: str, suffixes: tuple[str, ...], feature: str) -> Iterator[Row]:
    """Yield labeled rows, with items in place of paths, from a folder per class, a table with a column of paths, or a data set.

    The columns are those of `bert_jax.data.tables.read_rows`; the columns of inputs come first.

    Raises:
        InputError: as for `read_rows`; or a folder has only one class, or no files; or a path leads out of the table's folder.
    """
    inputs = [field for field in columns if field.startswith("finetune.data.")]
    if data := open_data_set(name, split):
        yield from _rows_of(Examples(name, data, feature), columns)
        return
    location = on_disk(name, "The data")
    if file_format(location) in TABLES:
        for line, values in read_rows(name, columns, split):
            items = [_file_of_row(location, line, typed) for typed in values[: len(inputs)]]
            yield Row(line, (*items, *values[len(inputs) :]))
        return
    if len(columns) > 2:
        raise InputError(f"{name} is not a table, so it has no columns {', '.join(columns.values())}: name a {', '.join(TABLES)} file.")
    if not location.is_dir():
        raise InputError(f"{name} is neither a folder with a folder per class nor a {', '.join(TABLES)} file. Name one of these.")
    yield from _folders(location, suffixes)


def _folders(location: Path, suffixes: tuple[str, ...]) -> Iterator[Row]:
    """Yield the files of a folder per class, as torchvision's ImageFolder reads them."""
    files = list_files(location, suffixes)
    loose = next((path for path in files if path.parent == location), None)
    if loose:
        raise InputError(f"{loose} is not in the folder of a class: move it to {location}/CLASS, where CLASS is its class.")
    classes = {path.relative_to(location).parts[0] for path in files}
    if len(classes) < 2:
        raise InputError(f"{location} has files of only one class, {min(classes)}: it needs a folder for each of at least two classes.")
    for line, path in enumerate(files):
        yield Row(line, (Item(str(path), path), path.relative_to(location).parts[0]))


def _file_of_row(table: Path, line: int, typed: str) -> Item:
    try:
        path = below(table.parent, typed)
        require_file(path)
    except Unreadable as error:
        raise InputError(f"{table} line {line} names the file {typed!r}, which {error}. Correct or remove the line.") from None
    return Item(typed, path)


def _rows_of(data: Examples, columns: Mapping[str, str]) -> Iterator[Row]:
    if len(columns) > 2:
        raise InputError(f"The data set {data.name} is read as one {data.feature} and its label: leave finetune.data.text_pair empty.")
    (label,) = [column for field, column in columns.items() if not field.startswith("finetune.data.")]
    for line, values in enumerate(data.labelled(label)):
        yield Row(line, values)


def _measured(items: Iterable[Item], on_read: Callable[[int], None] | None) -> Iterator[Item]:
    for item in items:
        if on_read:
            on_read(item.size)
        yield item
