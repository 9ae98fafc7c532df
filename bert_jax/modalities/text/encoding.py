"""Tokenize text documents, and count their characters and unknown words."""

import importlib.metadata
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bert_jax.config import CorpusConfig
from bert_jax.data.records.encoding import Encoder
from bert_jax.data.records.record import SPLITS, Counts, EncodedDocument, token_dtype
from bert_jax.modalities.text.files import count_dropped
from bert_jax.modalities.text.sentences import Ends, split_sentences
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.modalities.text.unknown import UnknownCharacters
from bert_jax.modalities.text.words import encode_words

_SEARCHED = 100
"""Number of documents to search for examples of unknown words."""


class TokenizedDocument(NamedTuple):
    """A document of n tokens and s sentences, without special tokens.

    Attributes:
        tokens: token ids, uint16 [n], or uint32 for vocabularies of more than 65,536 tokens.
        sentence_starts: index of the first token of each sentence, int32 [s]; the first is 0.
        word_starts: true where a token starts a word, bool [n].
        unknown: number of characters of the text that became [UNK], in overlong words and in others, int64 [2].
    """

    tokens: NDArray[np.unsignedinteger]
    sentence_starts: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    unknown: NDArray[np.int64]

    @property
    def units(self) -> None:
        """None: token ids carry all of the input."""


@dataclass
class TextCounts(Counts):
    """Statistics of a split of text; `bytes` is its size in UTF-8."""

    unknown_tokens: int = 0
    characters: int = 0
    """Characters of the text, excluding whitespace."""
    unknown_in_long_words: int = 0
    """Characters that became [UNK] in words longer than the tokenizer's limit."""
    unknown_in_other_words: int = 0
    """Characters that became [UNK] in other words."""
    dropped_characters: int = 0
    """Control characters, and U+FFFD for bytes that were not UTF-8."""


@dataclass(frozen=True)
class DocumentEncoder(Encoder[list[str]]):
    """Splits documents into sentences and sentences into tokens, and finds the word starts."""

    reader: Tokenizer
    config: CorpusConfig

    counts = TextCounts

    def identity(self) -> dict[str, Any]:
        """Return the settings that determine how the text is split, and the tokenizer's fingerprint."""
        config = self.config
        identity = {"segmenter": config.segmenter, "sentence_ends": config.sentence_ends, "tokenizer": self.reader.fingerprint}
        return identity | ({"jieba": importlib.metadata.version("jieba")} if config.segmenter == "jieba" else {})

    def __call__(self, documents: list[list[str]]) -> list[TokenizedDocument]:
        """Tokenize documents, which are lists of paragraphs; sentences without tokens are dropped."""
        split = [document_sentences(document, self.config.sentence_ends) for document in documents]
        ids, word_starts, lengths, unknown = encode_words(self.reader, list(itertools.chain.from_iterable(split)), self.config.segmenter)
        tokens: NDArray[np.unsignedinteger] = ids.astype(token_dtype(self.reader.vocab_size))
        tokenized = []
        token, sentence = 0, 0
        for sentences in split:
            document_lengths = lengths[sentence : sentence + len(sentences)]
            end = token + int(document_lengths.sum())
            starts = (np.cumsum(document_lengths) - document_lengths)[document_lengths > 0].astype(np.int32)
            document_unknown = unknown[sentence : sentence + len(sentences)].sum(0)
            tokenized.append(TokenizedDocument(tokens[token:end], starts, word_starts[token:end], document_unknown))
            token, sentence = end, sentence + len(sentences)
        return tokenized

    def count(self, raw: list[str], document: EncodedDocument) -> TextCounts:
        """Return the counts of a document that was encoded by this encoder."""
        counts = TextCounts.of(document, sum(len(paragraph.encode()) for paragraph in raw))
        counts.dropped_characters = sum(map(count_dropped, raw)) if self.reader.kind != "bytes" else 0
        counts.characters = sum(len(piece) for paragraph in raw for piece in paragraph.split())
        if counts.documents:
            counts.unknown_tokens = int(np.count_nonzero(document.tokens == self.reader.unk_id))
            counts.unknown_in_long_words, counts.unknown_in_other_words = map(int, cast(TokenizedDocument, document).unknown)
        return counts

    def size(self, raw: list[str]) -> int:
        """Return the number of characters."""
        return sum(map(len, raw))

    def warnings(self, info: Mapping[str, Any], first: Iterable[list[str]]) -> list[str]:
        """Return a warning if more than a few characters became [UNK]."""
        fields = ("characters", "unknown_in_long_words", "unknown_in_other_words")
        unknown = UnknownCharacters(*(sum(info[split][field] for split in SPLITS) for field in fields))
        if not unknown.too_many:
            return []
        # Unknown words this frequent also occur in the first documents.
        searched = itertools.islice(first, _SEARCHED)
        sentences = [sentence for paragraphs in searched for sentence in document_sentences(paragraphs, self.config.sentence_ends)]
        words = list(itertools.chain.from_iterable(self.reader.unknown_words(sentences)))
        return [unknown.warning(words, self.reader.max_word_length or 0, self.reader.kind)]


def document_sentences(paragraphs: Iterable[str], ends: Ends) -> list[str]:
    """Return the sentences of a document; no sentence extends past the end of a paragraph."""
    return [sentence for paragraph in paragraphs for sentence in split_sentences(paragraph, ends)]
