"""Access to the public data sets of TensorFlow Datasets."""

import importlib.util
import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bert_jax.errors import InputError

_PART = 10_000
"""Examples in a part."""


@dataclass(frozen=True)
class Tfds:
    """A data set of TensorFlow Datasets; implements `bert_jax.data.data_sets.DataSet`.

    Data sets that were prepared as ArrayRecord are read without TensorFlow.

    Attributes:
        source: `tfds:NAME` or `tfds:NAME[SPLIT]`; `tfds:imdb_reviews[train+unsupervised]` selects several splits.
        default_split: the split to read if `source` does not name one.
    """

    source: str
    default_split: str = "train"

    @property
    def _name(self) -> str:
        return self.source.removeprefix("tfds:").partition("[")[0]

    @property
    def _split(self) -> str:
        return self.source.partition("[")[2].removesuffix("]") or self.default_split

    def identity(self) -> dict[str, Any]:
        builder = self._open()
        return {"tfds": builder.info.full_name, "split": self._split, "examples": builder.info.splits[self._split].num_examples}

    def columns(self) -> Sequence[str]:
        return [*(self._open().info.features or ())]

    def text_columns(self) -> Sequence[str]:
        self._require("text")
        return [column for column in ("title", "text") if column in self.columns()]

    def examples(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        return (values for _, values in self._examples("", columns))

    def media(self, feature: str, columns: Sequence[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
        self._require(feature)
        rate = getattr(self._open().info.features[feature], "sample_rate", None)
        return (((content, int(rate)) if rate else content, values) for content, values in self._examples(feature, columns))

    def parts(self) -> "Sequence[Tfds]":
        splits = self._open().info.splits
        slices = []
        for piece in self._split.split("+"):
            count = splits[piece].num_examples
            starts = range(0, count, _PART)
            slices += [piece] if "[" in piece else [f"{piece}[{start}:{min(start + _PART, count)}]" for start in starts]
        return [replace(self, source=f"tfds:{self._name}[{piece}]") for piece in slices]

    def _examples(self, feature: str, columns: Sequence[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
        builder = self._open()
        for column in columns:
            self._require(column)
        features = builder.info.features
        for example in tfds_examples(self._name, builder, self._split):
            yield example.get(feature), {column: _value(example[column], features[column]) for column in columns}

    def _require(self, column: str) -> None:
        if column not in (columns := self.columns()):
            raise InputError(f"The data set {self.source} has no column {column!r}; its columns are {', '.join(columns)}.")

    def _open(self) -> Any:
        """Return the builder, after checking that it has the split."""
        builder = prepared_tfds(self._name)
        try:
            builder.info.splits[self._split]  # raises if there is no such split
        except (KeyError, ValueError) as error:
            splits = ", ".join(builder.info.splits)
            raise InputError(
                f"The data set tfds:{self._name} has no split {self._split!r}; it has {splits}. Name one: tfds:{self._name}[SPLIT]."
            ) from error
        return builder


def _value(value: Any, feature: Any) -> Any:
    """Return a value as `DataSet.examples` does; "" for class -1, as in test sets without labels."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray) and value.ndim:
        return [_value(one, feature.feature) for one in value] if hasattr(feature, "feature") else value.tolist()
    if hasattr(feature, "int2str"):
        return str(feature.int2str(int(value))) if value >= 0 else ""
    return float(value) if isinstance(value, np.floating) and not math.isfinite(value) else str(value)


def prepared_tfds(name: str) -> Any:
    """Return the `tfds.core.DatasetBuilder` of a public data set, which is downloaded and prepared if necessary.

    Raises:
        InputError: the data set does not exist, or cannot be prepared on this machine; the message says what to install or do.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # registers glue and similar data sets

    try:
        with quiet_tfds():
            builder = tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise InputError(f"TensorFlow Datasets has no data set {name!r}: see https://www.tensorflow.org/datasets/catalog.") from error
    if not builder.is_prepared():
        alternatives = f"or copy the prepared data set to {builder.data_dir}, or set TFDS_DATA_DIR to its location."
        # Without this check, TFDS would download everything and only then fail to unpack it.
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine, and preparing it needs TensorFlow and the network: "
                f"pip install tensorflow apache-beam, then tfds build {name} --file_format=array_record; {alternatives}"
            )
        try:
            builder.download_and_prepare(file_format="array_record")
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"The data set tfds:{name} is not prepared on this machine and cannot be prepared now ({reason}): check the network and "
                f"the data set's own dependencies, then run tfds build {name} --file_format=array_record; {alternatives}"
            ) from error
    return builder


@contextmanager
def quiet_tfds() -> Iterator[None]:
    """Suppress the output and log messages of TFDS; real problems are raised as exceptions."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def tfds_examples(name: str, builder: Any, split: str) -> Iterator[dict[str, Any]]:
    """Yield the examples of a split of a prepared data set, as NumPy values and bytes.

    Raises:
        InputError: the data set was prepared as TFRecord, and TensorFlow is not installed.
    """
    try:
        yield from builder.as_data_source(split)
    except NotImplementedError:
        if not _has_tensorflow():
            raise InputError(
                f"The data set tfds:{name} was prepared as TFRecord ({builder.data_dir}), which needs TensorFlow: pip install tensorflow, "
                f"or prepare it again as ArrayRecord: tfds build {name} --file_format=array_record."
            ) from None
        import tensorflow_datasets as tfds

        yield from tfds.as_numpy(builder.as_dataset(split))


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None
