"""The interface of an input modality: the documents of a corpus, and their encoding as token ids and, optionally, unit vectors.

`bert_jax.modalities.MODALITIES` lists the built-in modalities; programs can pass in others (`load(path, modalities=[...])`). A
modality does not depend on JAX: it refers to its embedding module in the model by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

from bert_jax.config import CorpusOptions, VocabularyConfig
from bert_jax.data.reader import Reader
from bert_jax.data.records import corpora
from bert_jax.data.records.corpora import Prepared
from bert_jax.data.records.encoding import Encoder
from bert_jax.data.records.source import Source
from bert_jax.data.tables import Table
from bert_jax.storage.files import resolve_path

D = TypeVar("D")
O = TypeVar("O", bound=CorpusOptions)  # noqa: E741  # options


class Modality(ABC, Generic[D, O]):
    """An input modality. It is stateless, and is pickled and sent to other processes.

    Attributes:
        name: its name in configurations and in `model.json`.
        options: the configuration class of its corpora; the default of `options.modality` is `name`.
        embedding: the key of its embedding module in `bert_jax.model.encoder.EMBEDDINGS`.
        tables: built-in labelled tables, by name.
    """

    name: str
    options: type[O]
    embedding: str = "tokens"
    tables: Mapping[str, Table] = MappingProxyType({})

    @abstractmethod
    def open_source(self, name: str, config: O) -> Source[D]:
        """Return the source for the value of `source` or `valid_source` in a configuration.

        Raises:
            InputError: the data do not exist, or a package must be installed to read them.
        """

    @abstractmethod
    def content(self, document: D) -> bytes:
        """Return the complete content of a raw document; its hash determines whether the document is held out."""

    def key(self, document: D) -> bytes:
        """Return a key that is equal for identical documents, to detect leaks of held-out data; by default the complete content."""
        return self.content(document)

    @abstractmethod
    def learn(self, documents: Iterable[D], config: O, vocabulary: VocabularyConfig) -> Reader:
        """Learn a vocabulary from raw documents, deterministically.

        Raises:
            InputError: no vocabulary can be learned from the documents.
        """

    @abstractmethod
    def load(self, directory: Path) -> Reader:
        """Load the vocabulary that `Reader.save` wrote.

        Raises:
            InputError: the vocabulary is missing or damaged.
        """

    def load_given(self, vocabulary: VocabularyConfig) -> Reader:
        """Load the existing vocabulary that `vocabulary.path` of a configuration names.

        Raises:
            InputError: the vocabulary is missing or damaged.
        """
        return self.load(resolve_path(vocabulary.path))

    @abstractmethod
    def encoder(self, reader: Reader, config: O) -> Encoder[D]:
        """Return the encoder that tokenizes raw documents."""

    @abstractmethod
    def queries(self, document: D, config: O) -> list[str]:
        """Return the sentences of a raw document as a user would type them in a query."""

    @abstractmethod
    def with_mask(self, reader: Reader, query: str) -> str:
        """Return the query with its middle token replaced by [MASK]; the query has at least one token."""

    def prepare(
        self, config: O, reader: Reader, data_dir: Path, show_progress: bool = True, beam: Sequence[str] | None = None
    ) -> Prepared:
        """Return the tokenized records of a corpus, preparing them if necessary; see `bert_jax.data.records.corpora.prepare`."""
        return corpora.prepare(config, self, self.encoder(reader, config), data_dir, show_progress, beam)
