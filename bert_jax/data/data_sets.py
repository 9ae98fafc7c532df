"""Data sets with named columns: those of TensorFlow Datasets and Hugging Face, by name, and those that are saved on disk."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from bert_jax.data.hugging_face import HuggingFace, is_saved
from bert_jax.data.tfds import Tfds


class DataSet(Protocol):
    """Examples of a data set, such as those of a split. It is opened where it is read, so that it can be sent to other machines.

    Every method raises `InputError` if there is no such data set, split or column, or if it cannot be read on this machine.
    """

    def identity(self) -> dict[str, Any]:
        """Return JSON values that change whenever the examples change."""

    def columns(self) -> Sequence[str]:
        """Return the names of all columns."""

    def text_columns(self) -> Sequence[str]:
        """Return the columns of which a document consists."""

    def examples(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield some columns of each example, as strings, numbers, booleans, None, or lists and dictionaries of these.

        A class is given by its name, and a missing class as "" or None.
        """

    def media(self, feature: str, columns: Sequence[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield the image or recording of each example, with some columns as `examples` yields them.

        Args:
            feature: `image` or `audio`.
            columns: the other columns.

        Yields:
            the bytes of a file, an array, or an array and its sample rate.
        """

    def parts(self) -> "Sequence[DataSet]":
        """Return parts that can be read independently; concatenated, they are the complete data."""


def is_data_set(source: str) -> bool:
    """Return whether a source is the name of a data set, or the path of one that was saved."""
    return source.startswith(("tfds:", "hf:")) or is_saved(source)


def open_data_set(source: str, split: str = "train") -> DataSet | None:
    """Return the data set that a source names, or None if it names something else; `split` is read if it does not name a split."""
    if source.startswith("tfds:"):
        return Tfds(source, split)
    return HuggingFace(source, split) if is_data_set(source) else None
