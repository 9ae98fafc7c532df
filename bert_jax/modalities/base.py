"""The interface of an input modality: what a corpus consists of, and how it becomes ids and, beside them, units.

`bert_jax.modalities.MODALITIES` lists those that come along; a program hands in others (`load(path, modalities=[...])`). A modality
holds no arrays of JAX: it names the module of the model that embeds what it reads.
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
    """What a corpus consists of. It has no state, and is sent to other processes.

    Attributes:
        name: in configurations and in `model.json`.
        options: what a configuration says of a corpus of it; its `modality` is the name.
        embedding: a name in `bert_jax.model.encoder.EMBEDDINGS`.
        tables: labelled tables that come along with it, by name.
    """

    name: str
    options: type[O]
    embedding: str = "tokens"
    tables: Mapping[str, Table] = MappingProxyType({})

    @abstractmethod
    def open_source(self, name: str, config: O) -> Source[D]:
        """The raw documents that a configuration's `source` or `valid_source` means.

        Raises:
            InputError: there are none, or something must be installed to read them.
        """

    @abstractmethod
    def content(self, document: D) -> bytes:
        """All of a raw document, a hash of which decides whether it is held out."""

    def key(self, document: D) -> bytes:
        """What makes two raw documents the same, if one is in the training data and one is held out; by default all of it."""
        return self.content(document)

    @abstractmethod
    def learn(self, documents: Iterable[D], config: O, vocabulary: VocabularyConfig) -> Reader:
        """A vocabulary from raw documents, the same one from the same documents.

        Raises:
            InputError: nothing can be learned from them.
        """

    @abstractmethod
    def load(self, directory: Path) -> Reader:
        """The vocabulary that `Reader.save` has written.

        Raises:
            InputError: it is not there, or damaged.
        """

    def load_given(self, vocabulary: VocabularyConfig) -> Reader:
        """The existing vocabulary that a configuration names in `vocabulary.path`.

        Raises:
            InputError: it is not there, or damaged.
        """
        return self.load(resolve_path(vocabulary.path))

    @abstractmethod
    def encoder(self, reader: Reader, config: O) -> Encoder[D]:
        """What makes ids of raw documents."""

    @abstractmethod
    def queries(self, document: D, config: O) -> list[str]:
        """The sentences of a raw document as a user would type them in a query."""

    @abstractmethod
    def with_mask(self, reader: Reader, query: str) -> str:
        """A query of one id or more with a [MASK] in place of the id in its middle."""

    def prepare(
        self, config: O, reader: Reader, data_dir: Path, show_progress: bool = True, beam: Sequence[str] | None = None
    ) -> Prepared:
        """The corpus as records: see `bert_jax.data.records.corpora.prepare`, also for `beam`."""
        return corpora.prepare(config, self, self.encoder(reader, config), data_dir, show_progress, beam)
