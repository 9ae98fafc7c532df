"""Which documents are held out: a hash of the content decides, so copies stay together and the order of files changes nothing.

Held-out data of their own may be in the training data too; such documents are found by their hashes.
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

_PLACES = 1 << 64


@dataclass(frozen=True)
class DividedSource(Generic[D]):
    """Raw data whose documents with a place below `limit` are held out."""

    raw: Raw[D, Any]
    source: Source[D]
    limit: int
    held_out: frozenset[int] = frozenset()
    """Keys of the documents of held-out data of their own: where one is in these data too, it has leaked."""
    leave_out: bool = False
    """Whether documents that have leaked are left out."""

    def documents(
        self, on_read: Callable[[int], None] | None = None, on_leak: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Split, D]]:
        """Each document with its split; `on_leak` hears of each that has leaked."""
        for document in self.source.documents(on_read):
            leaked = bool(self.held_out) and _key(self.raw, document) in self.held_out
            if leaked:
                on_leak()
            if not (leaked and self.leave_out):
                yield "valid" if _place(self.raw, document) < self.limit else "train", document

    def parts(self) -> "list[DividedSource[D]]":
        """The same in parts that can be read apart; one after the other they are the whole."""
        return [replace(self, source=part) for part in self.source.parts()]


def divide(raw: Raw[D, O], config: O) -> list[DividedSource[D]]:
    """The sources of a corpus, divided: `valid_source` is all held out, else `valid_fraction` of `source` is.

    Held-out data of their own are read here: their documents are few, and eight bytes of each are kept. Of a corpus that is too
    small for the fraction one document is held out.

    Raises:
        InputError: there are no data, or they are one document, of which none can be held out.
    """
    source = raw.open_source(config.source, config)
    if config.valid_source:
        valid = raw.open_source(config.valid_source, config)
        held_out = frozenset(_key(raw, document) for document in valid.documents())
        return [DividedSource(raw, source, 0, held_out, config.leaks == "leave_out"), DividedSource(raw, valid, _PLACES)]
    return [DividedSource(raw, source, _limit(raw, config, source))]


def documents(raw: Raw[D, O], config: O, split: Split) -> Iterator[D]:
    """The raw documents of one side of a corpus, streaming.

    Raises:
        InputError: as for `divide`, or they cannot be read.
    """
    for source in divide(raw, config):
        for side, document in source.documents():
            if side == split:
                yield document


def _place(raw: Raw[D, Any], document: D) -> int:
    """A document's place among all that are possible, uniform in [0, 2^64)."""
    return _hash(raw.content(document))


def _key(raw: Raw[D, Any], document: D) -> int:
    return _hash(raw.key(document))


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, person=b"held-out").digest())


def _limit(raw: Raw[D, O], config: O, source: Source[D]) -> int:
    """The limit for which both splits have a document; looks no further than it must to see that they have."""
    limit = int(config.valid_fraction * _PLACES)
    lowest, highest = _PLACES, -1
    for document in source.documents():
        place = _place(raw, document)
        lowest, highest = min(lowest, place), max(highest, place)
        if lowest < limit <= highest:
            return limit
    if highest < 0:
        raise InputError(f"The corpus {config.source} holds no text: everything in it is blank.")
    if lowest == highest:
        raise InputError(
            f"The corpus {config.source} holds only one document (or copies of one), so none can be held out: separate the documents by "
            "blank lines, or name held-out text in corpus.valid_source."
        )
    return lowest + 1 if lowest >= limit else highest
