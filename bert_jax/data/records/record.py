"""What is in a record, and what is counted of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bert_jax.config import CorpusOptions
from bert_jax.data.reader import Units
from bert_jax.errors import InputError

SPLITS = ("train", "valid")


class EncodedDocument(Protocol):
    """What is recorded of a document; the attributes are those of `Document`."""

    @property
    def tokens(self) -> np.ndarray: ...
    @property
    def sentence_starts(self) -> np.ndarray: ...
    @property
    def word_starts(self) -> np.ndarray: ...
    @property
    def units(self) -> np.ndarray | None: ...


class Document(NamedTuple):
    """A document of n tokens and s sentences, without special tokens.

    Attributes:
        tokens: ids, uint16 or (vocabularies beyond 65,536) uint32 [n].
        sentence_starts: index of the first token of each sentence, int32 [s]; the first is 0. A sentence is what is never cut where a
            pair of A and B is made.
        word_starts: true where a token begins a word, bool [n]. A word is what is masked together, if whole words are.
        units: uint8 or float [n, U], where the modality has them.
    """

    tokens: NDArray[np.unsignedinteger]
    sentence_starts: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    units: NDArray[Any] | None = None


@dataclass
class Counts:
    """What a split holds; written to `metadata.json` beside the records. A modality may count more in a subclass."""

    documents: int = 0
    empty_documents: int = 0
    """Dropped: they had no token."""
    single_sentence_documents: int = 0
    sentences: int = 0
    tokens: int = 0
    leaked_documents: int = 0
    """Of the training documents those that are in held-out data of their own too, whether they were left out or not."""
    bytes: int = 0
    """Of the raw data."""

    @classmethod
    def of(cls, document: EncodedDocument, size: int) -> Self:
        """The counts of one document of so many bytes."""
        if not len(document.tokens):
            return cls(empty_documents=1, bytes=size)
        sentences = len(document.sentence_starts)
        return cls(
            documents=1, single_sentence_documents=int(sentences == 1), sentences=sentences, tokens=len(document.tokens), bytes=size
        )

    def add(self, other: "Counts") -> None:
        """Adds the counts of others."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest type that holds every token id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def columns(vocab_size: int, units: Units | None) -> dict[str, tuple[tuple[int | None, ...], Any]]:
    """The shape and type of each column of a record."""
    plain = {"tokens": token_dtype(vocab_size), "sentence_starts": np.int32, "word_starts": np.uint8}
    beside: Mapping[str, Any] = {"units": ((None, units.size), units.dtype)} if units else {}
    return {name: ((None,), dtype) for name, dtype in plain.items()} | dict(beside)


def to_record(document: EncodedDocument) -> dict[str, Any]:
    """The document as the columns of a record; eight word starts share a byte."""
    starts = np.packbits(document.word_starts)
    record = {"tokens": document.tokens, "sentence_starts": document.sentence_starts, "word_starts": starts}
    return record if document.units is None else record | {"units": document.units}


def from_record(record: Mapping[str, Any]) -> Document:
    """The inverse of `to_record`."""
    tokens = record["tokens"]
    word_starts = np.unpackbits(record["word_starts"], count=len(tokens)).view(np.bool_)
    return Document(tokens, record["sentence_starts"], word_starts, record.get("units"))


def check_counts(counts: Mapping[str, Counts]) -> None:
    """Every split must hold something.

    Raises:
        InputError: a split has no document with a token.
    """
    for split, count in counts.items():
        if not count.documents:
            raise InputError(
                f"The {split} text of the corpus holds not one document with a token ({count.empty_documents:,} without): "
                "check corpus.source and corpus.valid_source, and that the vocabulary fits the language."
            )


def check_leaks(corpus: CorpusOptions, leaked: int) -> None:
    """There must be no more leaks than the configuration allows.

    Raises:
        InputError: training documents stand in the held-out text, and `corpus.leaks` refuses that.
    """
    if leaked and corpus.leaks == "refuse":
        raise InputError(
            f"{leaked:,} documents of {corpus.source} stand in the held-out text {corpus.valid_source} too, and corpus.leaks=refuse: clean "
            "the text, or set it to leave_out to train without them."
        )
