"""Text as a modality: documents are lists of paragraphs, ids are word pieces or characters."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from bert_jax.config import CorpusConfig, VocabularyConfig
from bert_jax.data.reader import Reader
from bert_jax.data.records import held_out
from bert_jax.data.records.held_out import Split
from bert_jax.data.tables import Table
from bert_jax.errors import InputError
from bert_jax.modalities.base import Modality
from bert_jax.modalities.text import demo, sources
from bert_jax.modalities.text.encoding import DocumentEncoder, document_sentences
from bert_jax.modalities.text.tokenizer import Tokenizer


class Text(Modality[list[str], CorpusConfig]):
    """Text."""

    name = "text"
    options = CorpusConfig
    tables: Mapping[str, Table] = MappingProxyType({"demo": demo.rows})

    def open_source(self, name: str, config: CorpusConfig) -> sources.Source:
        """Files, the demo, or a TFDS data set."""
        return sources.open_source(name, config)

    def content(self, document: list[str]) -> bytes:
        """The paragraphs, a line each."""
        return "\n".join(document).encode(errors="replace")

    def key(self, document: list[str]) -> bytes:
        """The characters, white space aside."""
        return "".join("".join(paragraph.split()) for paragraph in document).encode(errors="replace")

    def learn(self, documents: Iterable[list[str]], config: CorpusConfig, vocabulary: VocabularyConfig) -> Tokenizer:
        """A vocabulary of word pieces or characters."""
        return Tokenizer.train((sentence for document in documents for sentence in self.queries(document, config)), vocabulary)

    def load(self, directory: Path) -> Tokenizer:
        """The tokenizer, whose files must agree."""
        tokenizer = Tokenizer.load(directory)
        tokens, whole = directory / "vocab.txt", directory / "tokenizer.json"
        if tokens.is_file() and whole.is_file() and tokens.read_bytes() != tokenizer.token_lines():
            raise InputError(f"{tokens} and {whole} do not hold the same vocabulary: one was edited or swapped. Restore it.")
        return tokenizer

    def load_given(self, vocabulary: VocabularyConfig) -> Tokenizer:
        """A tokenizer of any origin, on some points as the configuration says."""
        return Tokenizer.load(vocabulary.path, vocabulary.lowercase, vocabulary.strips_accents, vocabulary.other_max_word_length)

    def encoder(self, reader: Reader, config: CorpusConfig) -> DocumentEncoder:
        """Sentences, tokens and words."""
        assert isinstance(reader, Tokenizer)
        return DocumentEncoder(reader, config)

    def queries(self, document: list[str], config: CorpusConfig) -> list[str]:
        """The sentences."""
        return document_sentences(document, config.sentence_ends)

    def with_mask(self, reader: Reader, query: str) -> str:
        """The sentence with the token in its middle masked."""
        assert isinstance(reader, Tokenizer)
        offsets = reader.encode(query).offsets
        start, end = offsets[len(offsets) // 2]
        return f"{query[:start]}[MASK]{query[end:]}"


def documents(config: CorpusConfig, split: Split) -> Iterator[list[str]]:
    """The documents of one side of a corpus of text as lists of sentences, streaming.

    Raises:
        InputError: there is no text, it cannot be read, or it is one document, of which none can be held out.
    """
    text = Text()
    return (text.queries(document, config) for document in held_out.documents(text, config, split))
