"""Interfaces of raw data: sources of documents of any type, and the comparison of documents."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from bert_jax.config import CorpusOptions

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)
O_contra = TypeVar("O_contra", bound=CorpusOptions, contravariant=True)


class Source(Protocol[D_co]):
    """A source of raw documents."""

    @property
    def stored_bytes(self) -> int | None:
        """Number of bytes to read, for a progress bar; None if unknown."""

    def identity(self) -> dict[str, Any]:
        """Return JSON values that change whenever the data change."""

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[D_co]:
        """Yield each document; `on_read` is called with the number of bytes that were just read."""

    def parts(self) -> "Sequence[Source[D_co]]":
        """Split the data into parts that machines can read independently; concatenated, they are the complete data."""


class Raw(Protocol[D, O_contra]):
    """Opens and compares raw documents; it is pickled and sent to other machines."""

    def open_source(self, name: str, config: O_contra) -> Source[D]:
        """Return the source for the value of `source` or `valid_source` in a configuration.

        Raises:
            InputError: the data do not exist, or a package must be installed to read them.
        """

    def content(self, document: D) -> bytes:
        """Return the complete content of a document."""

    def key(self, document: D) -> bytes:
        """Return a key that is equal for documents considered identical, for example the text without whitespace."""
