"""Raw data: documents of any type, where they come from and what tells them apart."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from bert_jax.config import CorpusOptions

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)
O_contra = TypeVar("O_contra", bound=CorpusOptions, contravariant=True)


class Source(Protocol[D_co]):
    """Raw data: its documents, how much there is, and what tells it from other data."""

    @property
    def stored_bytes(self) -> int | None:
        """Bytes to read, for a progress bar; None where nobody knows."""

    def identity(self) -> dict[str, Any]:
        """JSON values that change when the data change."""

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[D_co]:
        """Each document; `on_read` is called with the bytes that were read."""

    def parts(self) -> "Sequence[Source[D_co]]":
        """The same data in parts that machines can read apart; one after the other they are the whole."""


class Raw(Protocol[D, O_contra]):
    """How raw documents are found and compared; it is sent to other machines."""

    def open_source(self, name: str, config: O_contra) -> Source[D]:
        """The source that a configuration's `source` or `valid_source` means.

        Raises:
            InputError: there is no such data, or something must be installed to read it.
        """

    def content(self, document: D) -> bytes:
        """All of a document."""

    def key(self, document: D) -> bytes:
        """What makes two documents the same, such as a text without its white space."""
