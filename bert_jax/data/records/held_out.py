"""Which documents are held out: a hash of the text decides, so copies stay together and the order of files changes nothing.

Held-out text of its own may stand in the training text; such documents are found by their hashes.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from bert_jax.config import CorpusConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text.sources import Source, open_source

Split = Literal["train", "valid"]

_PLACES = 1 << 64


@dataclass(frozen=True)
class DividedText:
    """Raw text whose documents with a place below `limit` are held out."""

    source: Source
    limit: int
    held_out: frozenset[int] = frozenset()
    """Keys of the documents of a held-out text of its own: where one stands in this text too, it has leaked."""
    leave_out: bool = False
    """Whether documents that have leaked are left out."""

    def documents(
        self, on_read: Callable[[int], None] | None = None, on_leak: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Split, list[str]]]:
        """Each document as its split and its paragraphs; `on_leak` hears of each that has leaked."""
        for paragraphs in self.source.documents(on_read):
            leaked = bool(self.held_out) and _key(paragraphs) in self.held_out
            if leaked:
                on_leak()
            if not (leaked and self.leave_out):
                yield "valid" if _place(paragraphs) < self.limit else "train", paragraphs

    def parts(self) -> list["DividedText"]:
        """The same in parts that can be read apart; one after the other they are the whole."""
        return [replace(self, source=part) for part in self.source.parts()]


def divide(config: CorpusConfig) -> list[DividedText]:
    """The text of a corpus, divided: `valid_source` is all held out, else `valid_fraction` of `source` is.

    Held-out text of its own is read here: its documents are few, and eight bytes of each are kept. Of a corpus that is too
    small for the fraction one document is held out.

    Raises:
        InputError: there is no text, or it is one document, of which none can be held out.
    """
    source = open_source(config.source, config)
    if config.valid_source:
        valid = open_source(config.valid_source, config)
        held_out = frozenset(map(_key, valid.documents()))
        return [DividedText(source, 0, held_out, config.leaks == "leave_out"), DividedText(valid, _PLACES)]
    return [DividedText(source, _limit(config, source))]


def _place(paragraphs: list[str]) -> int:
    """A document's place among all possible texts, uniform in [0, 2^64)."""
    return _hash("\n".join(paragraphs))


def _key(paragraphs: list[str]) -> int:
    """What makes two documents the same text: their characters, white space aside."""
    return _hash("".join("".join(paragraph.split()) for paragraph in paragraphs))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8, person=b"held-out").digest())


def _limit(config: CorpusConfig, source: Source) -> int:
    """The limit for which both splits have a document; looks no further than it must to see that they have."""
    limit = int(config.valid_fraction * _PLACES)
    lowest, highest = _PLACES, -1
    for paragraphs in source.documents():
        place = _place(paragraphs)
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
