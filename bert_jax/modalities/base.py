"""The interface of an input modality: the documents of a corpus, and their encoding as token ids and, optionally, unit vectors.

`bert_jax.modalities.MODALITIES` lists the built-in modalities; programs can pass in others (`load(path, modalities=[...])`). A
modality does not depend on JAX: it refers to its embedding module in the model by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from bert_jax.config import CorpusOptions, VocabularyOptions
from bert_jax.data.nouns import Nouns
from bert_jax.data.reader import Grid, Reader, Units
from bert_jax.data.records import corpora
from bert_jax.data.records.corpora import Prepared
from bert_jax.data.records.encoding import Encoder
from bert_jax.data.records.source import Raw, Source
from bert_jax.data.tables import Row, Table, read_rows
from bert_jax.errors import InputError
from bert_jax.modalities.inspection import Asked, Report
from bert_jax.storage.files import resolve_path

D = TypeVar("D")
O = TypeVar("O", bound=CorpusOptions)  # noqa: E741  # options

Filled: TypeAlias = dict[str, Any]
"""A filled-in query as JSON values: `text`, and either `masks`, the predictions for each mask, or `note` and `pictures`."""


class Expected(NamedTuple):
    """What is known of a vocabulary before it exists: its size, and the type and arrangement of the units, if any."""

    vocab_size: int
    units: Units | None = None
    grid: Grid | None = None


class Modality(ABC, Generic[D, O]):
    """An input modality. It is stateless, and is pickled and sent to other processes.

    Attributes:
        name: its name in configurations and in `model.json`.
        options: the configuration class of its corpora; the default of `options.modality` is `name`.
        embedding: the key of its embedding module in `bert_jax.model.embeddings.EMBEDDINGS`.
        tables: built-in labelled tables, by name.
        nouns: what its inputs and their parts are called, as in `bert_jax.data.reader.Reader`.
    """

    name: str
    options: type[O]
    embedding: str = "tokens"
    tables: Mapping[str, Table] = MappingProxyType({})
    nouns: Nouns = Nouns()

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
    def learn(self, documents: Iterable[D], config: O, vocabulary: VocabularyOptions) -> Reader:
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

    @abstractmethod
    def expected(self, config: O, vocabulary: VocabularyOptions) -> Expected:
        """Return what a configuration says about a vocabulary that it will learn. Its ids begin with the five special tokens."""

    def load_given(self, vocabulary: VocabularyOptions) -> Reader:
        """Load the existing vocabulary that `vocabulary.path` of a configuration names.

        Raises:
            InputError: the vocabulary is missing or damaged.
        """
        return self.load(resolve_path(vocabulary.path))

    @abstractmethod
    def encoder(self, reader: Reader, config: O) -> Encoder[D]:
        """Return the encoder that tokenizes raw documents."""

    def read_rows(self, source: str, columns: Mapping[str, str], split: str) -> Iterator[Row]:
        """Yield the labeled rows of a source that is not one of `tables`; see `bert_jax.data.tables.read_rows`."""
        return read_rows(source, columns, split)

    def recognizes(self, source: str) -> bool:
        """Return whether `inspect` can tell from the names of a source's files that they are of this modality."""
        del source
        return False

    def inspect(self, asked: Asked) -> Report:
        """Report what a corpus holds, before training.

        Raises:
            InputError: the corpus does not exist or cannot be read, or it cannot be inspected as asked.
        """
        raise InputError(f"{asked.source} cannot be inspected: the modality {self.name} does not support it.")

    @abstractmethod
    def queries(self, document: D, config: O) -> list[Any]:
        """Return the sentences of a raw document, or other parts that follow each other, as a user would give them in a query."""

    def as_document(self, labelled: Any) -> D:
        """Return a labeled input as a raw document, to continue pre-training on it.

        Raises:
            InputError: the modality does not support it.
        """
        raise InputError(
            f"The adapt stage continues pre-training on the labeled texts, and the corpus is of the modality {self.name}: set "
            "--config.adapt=none. To pre-train further on unlabeled data, set --config.pretrain.checkpoint and --config.corpus.source."
        )

    @abstractmethod
    def with_mask(self, reader: Reader, query: Any) -> Any:
        """Return the query with a token, or several, replaced by [MASK]; the query has at least one token."""

    @abstractmethod
    def features(self, reader: Reader, train: Sequence[Any], test: Sequence[Any]) -> tuple[Any, Any]:
        """Return plain features [n, F] of labeled inputs for a linear model, dense or sparse."""

    def filled(self, reader: Reader, query: Any, masks: Sequence[Sequence[Any]]) -> Filled:
        """Return how a query is shown with the predictions for each of its masks, most probable first."""
        del reader
        return {"text": query, "masks": [[{"token": p.token, "probability": p.probability} for p in mask] for mask in masks]}

    def pictures(self, reader: Reader, query: Any) -> list[str]:
        """Return pictures of a query as data URIs; none if people read it."""
        del reader, query
        return []

    def sheet(self, reader: Reader) -> str:
        """Return a picture of the vocabulary as a data URI, or "" if people read it."""
        del reader
        return ""

    def prepare(
        self,
        config: O,
        reader: Reader,
        data_dir: Path,
        show_progress: bool = True,
        beam: Sequence[str] | None = None,
        raw: Raw[D, O] | None = None,
    ) -> Prepared:
        """Return the tokenized records of a corpus, preparing them if necessary; see `bert_jax.data.records.corpora.prepare`.

        `raw` opens the raw data, if it is not the modality itself that does.
        """
        return corpora.prepare(config, raw or self, self.encoder(reader, config), data_dir, show_progress, beam)
