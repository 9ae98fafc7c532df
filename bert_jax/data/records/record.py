"""The contents of a record, and the counts that are kept for each split."""

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
    """The interface of a tokenized document; see `Document` for the attributes."""

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
        tokens: token ids, uint16 [n], or uint32 for vocabularies of more than 65,536 tokens.
        sentence_starts: index of the first token of each sentence, int32 [s]; the first is 0. Pairs of segments A and B are split
            only at sentence starts.
        word_starts: true where a token starts a word, bool [n]. Whole-word masking masks the tokens of a word together.
        units: uint8 or float [n, U], the unit vector of each token, if the modality has units.
    """

    tokens: NDArray[np.unsignedinteger]
    sentence_starts: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    units: NDArray[Any] | None = None


@dataclass
class Counts:
    """Statistics of a split, stored in `metadata.json` with the records. A modality may add fields in a subclass."""

    documents: int = 0
    empty_documents: int = 0
    """Documents that were dropped because they had no tokens."""
    single_sentence_documents: int = 0
    sentences: int = 0
    tokens: int = 0
    leaked_documents: int = 0
    """Training documents that are also in a separate held-out source, whether or not they were left out."""
    bytes: int = 0
    """Size of the raw data."""

    @classmethod
    def of(cls, document: EncodedDocument, size: int) -> Self:
        """Return the counts of one document of `size` bytes."""
        if not len(document.tokens):
            return cls(empty_documents=1, bytes=size)
        sentences = len(document.sentence_starts)
        return cls(
            documents=1, single_sentence_documents=int(sentences == 1), sentences=sentences, tokens=len(document.tokens), bytes=size
        )

    def add(self, other: "Counts") -> None:
        """Add other counts to these, in place."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


def token_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """Return the smallest type that can represent every token id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def columns(vocab_size: int, units: Units | None) -> dict[str, tuple[tuple[int | None, ...], Any]]:
    """Return the shape and type of each column of a record."""
    one_dimensional = {"tokens": token_dtype(vocab_size), "sentence_starts": np.int32, "word_starts": np.uint8}
    optional: Mapping[str, Any] = {"units": ((None, units.size), units.dtype)} if units else {}
    return {name: ((None,), dtype) for name, dtype in one_dimensional.items()} | dict(optional)


def to_record(document: EncodedDocument) -> dict[str, Any]:
    """Return the columns of a document's record; word starts are packed eight to a byte."""
    starts = np.packbits(document.word_starts)
    record = {"tokens": document.tokens, "sentence_starts": document.sentence_starts, "word_starts": starts}
    return record if document.units is None else record | {"units": document.units}


def from_record(record: Mapping[str, Any]) -> Document:
    """The inverse of `to_record`."""
    tokens = record["tokens"]
    word_starts = np.unpackbits(record["word_starts"], count=len(tokens)).view(np.bool_)
    return Document(tokens, record["sentence_starts"], word_starts, record.get("units"))


def check_counts(counts: Mapping[str, Counts]) -> None:
    """Check that every split has a document.

    Raises:
        InputError: a split has no document with at least one token.
    """
    for split, count in counts.items():
        if not count.documents:
            raise InputError(
                f"No document of the corpus's {split} data has any tokens ({count.empty_documents:,} are empty): check corpus.source "
                "and corpus.valid_source, and that the vocabulary matches the data."
            )


def check_leaks(corpus: CorpusOptions, leaked: int) -> None:
    """Check that the number of leaked documents is allowed by the configuration.

    Raises:
        InputError: training documents also appear in the held-out data, and `corpus.leaks` is `refuse`.
    """
    if leaked and corpus.leaks == "refuse":
        raise InputError(
            f"{leaked:,} documents of {corpus.source} also appear in the held-out data {corpus.valid_source}, and corpus.leaks=refuse: "
            "remove them, or set it to leave_out to train without them."
        )
