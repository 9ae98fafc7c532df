"""What is in a record, and what is counted of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_jax.config import CorpusConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text.encoding import TokenizedDocument
from bert_jax.modalities.text.files import count_dropped

SPLITS = ("train", "valid")


@dataclass
class Counts:
    """What a split holds; written to `metadata.json` beside the records."""

    documents: int = 0
    empty_documents: int = 0
    """Dropped: they had no token."""
    single_sentence_documents: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    characters: int = 0
    """Of the text, white space aside."""
    unknown_in_long_words: int = 0
    """Characters that became [UNK] in words longer than the vocabulary takes."""
    unknown_in_other_words: int = 0
    """Characters that became [UNK] in words with a character that the vocabulary lacks."""
    leaked_documents: int = 0
    """Of the training text those that stand in a held-out text of its own too, whether they were left out or not."""
    dropped_characters: int = 0
    """Control characters, and U+FFFD for bytes that were not UTF-8."""
    bytes: int = 0
    """UTF-8 bytes of the text."""

    def add(self, paragraphs: list[str], document: TokenizedDocument, unk_id: int) -> None:
        """Count a document in."""
        self.bytes += sum(len(paragraph.encode()) for paragraph in paragraphs)
        self.dropped_characters += sum(map(count_dropped, paragraphs))
        self.characters += sum(len(piece) for paragraph in paragraphs for piece in paragraph.split())
        if not len(document.tokens):
            self.empty_documents += 1
            return
        self.documents += 1
        self.single_sentence_documents += len(document.sentence_starts) == 1
        self.sentences += len(document.sentence_starts)
        self.tokens += len(document.tokens)
        self.unknown_tokens += int(np.count_nonzero(document.tokens == unk_id))
        self.unknown_in_long_words += int(document.unknown[0])
        self.unknown_in_other_words += int(document.unknown[1])


def to_record(document: TokenizedDocument) -> dict[str, Any]:
    """The document as the columns of a record; eight word starts share a byte."""
    starts = np.packbits(document.word_starts)
    return {"tokens": document.tokens, "sentence_starts": document.sentence_starts, "word_starts": starts}


def from_record(record: dict[str, Any]) -> TokenizedDocument:
    """The inverse of `to_record`."""
    tokens = record["tokens"]
    word_starts = np.unpackbits(record["word_starts"], count=len(tokens)).view(np.bool_)
    return TokenizedDocument(tokens, record["sentence_starts"], word_starts, np.zeros(2, np.int64))


def check_counts(counts: dict[str, Counts]) -> None:
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


def check_leaks(corpus: CorpusConfig, leaked: int) -> None:
    """There must be no more leaks than the configuration allows.

    Raises:
        InputError: training documents stand in the held-out text, and `corpus.leaks` refuses that.
    """
    if leaked and corpus.leaks == "refuse":
        raise InputError(
            f"{leaked:,} documents of {corpus.source} stand in the held-out text {corpus.valid_source} too, and corpus.leaks=refuse: clean "
            "the text, or set it to leave_out to train without them."
        )
