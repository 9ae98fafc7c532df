"""The text modality: documents are lists of paragraphs, and token ids represent word pieces, characters, words or bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bert_jax.config import CorpusConfig, VocabularyConfig, VocabularyOptions
from bert_jax.data.reader import Reader
from bert_jax.data.records import held_out
from bert_jax.data.records.held_out import Split
from bert_jax.data.tables import Table
from bert_jax.errors import InputError
from bert_jax.modalities.base import Expected, Modality
from bert_jax.modalities.inspection import Asked
from bert_jax.modalities.text import demo, inspection, sources
from bert_jax.modalities.text.encoding import DocumentEncoder, document_sentences
from bert_jax.modalities.text.pipelines import BYTE_TOKENS
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.modalities.text.tokenizer_files import SPECIAL_TOKENS


class Text(Modality[list[str], CorpusConfig]):
    """The text modality."""

    name = "text"
    options = CorpusConfig
    tables: Mapping[str, Table] = MappingProxyType({"demo": demo.rows})

    def open_source(self, name: str, config: CorpusConfig) -> sources.Source:
        """Return the source for text files, the demo, or a data set."""
        return sources.open_source(name, config)

    def content(self, document: list[str]) -> bytes:
        """Return the paragraphs, one per line, in UTF-8."""
        return "\n".join(document).encode(errors="replace")

    def key(self, document: list[str]) -> bytes:
        """Return the characters without whitespace, in UTF-8."""
        return "".join("".join(paragraph.split()) for paragraph in document).encode(errors="replace")

    def learn(self, documents: Iterable[list[str]], config: CorpusConfig, vocabulary: VocabularyOptions) -> Tokenizer:
        """Learn a vocabulary of word pieces, characters or words; bytes need not be learned."""
        sentences = (sentence for document in documents for sentence in self.queries(document, config))
        return Tokenizer.train(sentences, _of_text(vocabulary), segmenter=config.segmenter)

    def load(self, directory: Path) -> Tokenizer:
        """Load the tokenizer, and check that its files agree."""
        tokenizer = Tokenizer.load(directory)
        vocab_file, json_file = directory / "vocab.txt", directory / "tokenizer.json"
        if vocab_file.is_file() and json_file.is_file() and vocab_file.read_bytes() != tokenizer.token_lines():
            raise InputError(f"{vocab_file} and {json_file} do not contain the same vocabulary: one was edited or replaced. Restore it.")
        return tokenizer

    def expected(self, config: CorpusConfig, vocabulary: VocabularyOptions) -> Expected:
        """Return the size of the vocabulary."""
        vocabulary = _of_text(vocabulary)
        return Expected(len(SPECIAL_TOKENS) + len(BYTE_TOKENS) if vocabulary.kind == "bytes" else vocabulary.size)

    def load_given(self, vocabulary: VocabularyOptions) -> Tokenizer:
        """Load a tokenizer of any origin, with the normalization and word-length settings of the configuration."""
        vocabulary = _of_text(vocabulary)
        return Tokenizer.load(vocabulary.path, vocabulary.lowercase, vocabulary.strips_accents, vocabulary.other_max_word_length)

    def encoder(self, reader: Reader, config: CorpusConfig) -> DocumentEncoder:
        """Return the encoder that finds sentences, tokens and words."""
        assert isinstance(reader, Tokenizer)
        return DocumentEncoder(reader, config)

    def recognizes(self, source: str) -> bool:
        """Return whether a source is built in, or has files of text."""
        try:
            opened = self.open_source(source, CorpusConfig(source=source))
            return bool(opened.files) if isinstance(opened, sources.FilesSource) else True
        except InputError:
            return False

    def inspect(self, asked: Asked) -> inspection.Inspection:
        """Return the numbers of documents and tokens, and repeats and leaks."""
        if asked.text or asked.label:
            raise InputError("--text and --label are for images and audio; of a table of text, the longest column is read. Leave them out.")
        config = CorpusConfig(source=asked.source, encoding_errors=asked.encoding_errors)
        tokenizer = Tokenizer.load(asked.vocabulary) if asked.vocabulary else None
        return inspection.inspect(config, asked.rows, asked.batch_size, tokenizer, asked.evaluation_files, asked.show_progress)

    def queries(self, document: list[str], config: CorpusConfig) -> list[str]:
        """Return the sentences of a document."""
        return document_sentences(document, config.sentence_ends)

    def as_document(self, labelled: Any) -> list[str]:
        """Return the lines of a text as paragraphs."""
        return sources.paragraphs(str(labelled))

    def features(self, reader: Reader, train: Sequence[str], test: Sequence[str]) -> tuple[Any, Any]:
        """Return TF-IDF weights of n-grams of one to three characters."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32)
        return vectorizer.fit_transform(train), vectorizer.transform(test)

    def with_mask(self, reader: Reader, query: str) -> str:
        """Return the sentence with its middle token replaced by [MASK], and with it the other bytes of its character."""
        assert isinstance(reader, Tokenizer)
        offsets = reader.encode(query).offsets
        start, end = offsets[len(offsets) // 2]
        tokens = (offsets[:, 0] == start).sum() if reader.kind == "bytes" else 1
        return f"{query[:start]}{'[MASK]' * tokens}{query[end:]}"


def _of_text(vocabulary: VocabularyOptions) -> VocabularyConfig:
    if not isinstance(vocabulary, VocabularyConfig):
        raise InputError(
            f"A corpus of text needs a vocabulary of word pieces, characters, words or bytes, not a {vocabulary.kind}: set "
            "--config.vocabulary=wordpiece, or name a corpus of another modality."
        )
    return vocabulary


def documents(config: CorpusConfig, split: Split) -> Iterator[list[str]]:
    """Stream the documents of one split of a text corpus, as lists of sentences.

    Raises:
        InputError: the corpus is empty, cannot be read, or has only one document, so that none can be held out.
    """
    text = Text()
    return (text.queries(document, config) for document in held_out.documents(text, config, split))
