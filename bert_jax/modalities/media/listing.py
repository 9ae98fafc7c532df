"""The files that `inspect` looks at, with their classes: those of a source, or those that a table names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bert_jax.data.data_sets import is_data_set
from bert_jax.data.tables import TABLES, count_rows, file_format, read_rows
from bert_jax.modalities.inspection import Asked
from bert_jax.modalities.media.items import Item, Listed, below
from bert_jax.modalities.media.sources import Examples, Files, Source
from bert_jax.storage.files import on_disk


class Entry(NamedTuple):
    """A file, or a path in a table, and its class, if it has one."""

    given: Item | Listed
    label: str | None = None

    @property
    def name(self) -> str:
        """The path as it is shown."""
        return self.given.typed if isinstance(self.given, Listed) else self.given.name

    def item(self) -> Item:
        """Return the file.

        Raises:
            Unreadable: the path is not one of a file in the folder of the table.
        """
        given = self.given
        return Item(given.typed, below(given.folder, given.typed)) if isinstance(given, Listed) else given


@dataclass(frozen=True)
class Listing:
    """The files of a corpus.

    Attributes:
        entries: iterates over them from the beginning.
        count: their number, or None if it is not known in advance.
    """

    entries: Callable[[], Iterator[Entry]]
    count: int | None


def has_columns(name: str) -> bool:
    """Return whether a source is a table or a data set."""
    return is_data_set(name) or file_format(Path(name)) in TABLES


def open_listing(name: str, asked: Asked, open_source: Callable[[str], Source]) -> Listing:
    """Return the files of a corpus or of evaluation data.

    Raises:
        InputError: they do not exist, or a table or data set lacks a column.
    """
    if file_format(Path(name)) in TABLES and not is_data_set(name):
        return _of_table(on_disk(name, "The table"), asked)
    source = open_source(name)
    if isinstance(source, Examples):
        return Listing(lambda: _of_examples(source, asked.label), None)
    if not isinstance(source, Files):
        return Listing(lambda: map(Entry, source.documents()), None)
    files = source.files
    folders = [path.relative_to(source.path).parts[:-1] for path in files] if source.path.is_dir() else []
    has_classes = all(folders) and len({parts[0] for parts in folders}) > 1
    labels = [parts[0] for parts in folders] if has_classes else [None] * len(files)
    return Listing(lambda: (Entry(Item(str(path), path), label) for path, label in zip(files, labels, strict=True)), len(files))


def _of_table(table: Path, asked: Asked) -> Listing:
    columns = {"--text": asked.text or "text"} | ({"--label": asked.label} if asked.label else {})

    def entries() -> Iterator[Entry]:
        for _, (typed, *labels) in read_rows(str(table), columns, ""):
            yield Entry(Listed(typed, table.parent), *(label or None for label in labels))

    return Listing(entries, count_rows(table))


def _of_examples(source: Examples, label: str) -> Iterator[Entry]:
    for item, text in source.labelled(label):
        yield Entry(item, text or None)
