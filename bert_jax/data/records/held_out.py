"""Hold out documents by a hash of their content, so that copies stay together and the order of the files does not matter.

If the held-out data come from a separate source, their documents may also be in the training data; hashes detect such leaks.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from bert_jax.config import CorpusOptions
from bert_jax.data.records.source import Raw, Source
from bert_jax.errors import InputError

D = TypeVar("D")
O = TypeVar("O", bound=CorpusOptions)  # noqa: E741  # options
Split = Literal["train", "valid"]

_HASH_VALUES = 1 << 64


@dataclass(frozen=True)
class DividedSource(Generic[D]):
    """Raw data of which the documents with a content hash below `limit` are held out."""

    raw: Raw[D, Any]
    source: Source[D]
    limit: int
    held_out: frozenset[int] = frozenset()
    """Keys of the documents of a separate held-out source; a document of this source with one of these keys is a leak."""
    leave_out: bool = False
    """Whether to drop leaked documents."""

    def documents(
        self, on_read: Callable[[int], None] | None = None, on_leak: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Split, D]]:
        """Yield each document with its split; `on_leak` is called for each leaked document."""
        for document in self.source.documents(on_read):
            leaked = bool(self.held_out) and _key(self.raw, document) in self.held_out
            if leaked:
                on_leak()
            if not (leaked and self.leave_out):
                yield "valid" if _content_hash(self.raw, document) < self.limit else "train", document

    def parts(self) -> "list[DividedSource[D]]":
        """Split the data into parts that can be read independently; concatenated, they are the complete data."""
        return [replace(self, source=part) for part in self.source.parts()]


def divide(raw: Raw[D, O], config: O) -> list[DividedSource[D]]:
    """Return the sources of a corpus with their splits: all of `valid_source` is held out if given, else `valid_fraction` of `source`.

    This reads all of `valid_source`, which is small, and keeps eight bytes per document. If a corpus is too small for the
    fraction, one document is held out.

    Raises:
        InputError: there are no data, or only one distinct document, so that none can be held out.
    """
    source = raw.open_source(config.source, config)
    if config.valid_source:
        valid = raw.open_source(config.valid_source, config)
        held_out = frozenset(_key(raw, document) for document in valid.documents())
        return [DividedSource(raw, source, 0, held_out, config.leaks == "leave_out"), DividedSource(raw, valid, _HASH_VALUES)]
    return [DividedSource(raw, source, _limit(raw, config, source))]


def documents(raw: Raw[D, O], config: O, split: Split) -> Iterator[D]:
    """Stream the raw documents of one split of a corpus.

    Raises:
        InputError: as for `divide`, or the documents cannot be read.
    """
    for source in divide(raw, config):
        for found, document in source.documents():
            if found == split:
                yield document


def _content_hash(raw: Raw[D, Any], document: D) -> int:
    """Return a hash of a document's content, uniform in [0, 2^64)."""
    return _hash(raw.content(document))


def _key(raw: Raw[D, Any], document: D) -> int:
    return _hash(raw.key(document))


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, person=b"held-out").digest())


def _limit(raw: Raw[D, O], config: O, source: Source[D]) -> int:
    """Return a limit that gives both splits at least one document; reads only as many documents as needed to establish that."""
    limit = int(config.valid_fraction * _HASH_VALUES)
    lowest, highest = _HASH_VALUES, -1
    for document in source.documents():
        value = _content_hash(raw, document)
        lowest, highest = min(lowest, value), max(highest, value)
        if lowest < limit <= highest:
            return limit
    if highest < 0:
        raise InputError(f"The corpus {config.source} contains no text: everything in it is blank.")
    if lowest == highest:
        raise InputError(
            f"The corpus {config.source} contains only one document (or copies of one), so none can be held out: add documents (in text, a "
            "blank line separates them), or set corpus.valid_source to separate held-out data."
        )
    return lowest + 1 if lowest >= limit else highest
