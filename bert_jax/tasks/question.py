"""The interface of a question that models answer, and what it needs of a loaded model.

Importing a question must not import JAX or Flax, so that `--help` loads quickly; its functions import them where needed.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.display import Json

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import BatchShapes, Queries
    from bert_jax.data.reader import Reader
    from bert_jax.data.tables import Row
    from bert_jax.model.directory import ModelDescription

Answers: TypeAlias = "Sequence[Any] | np.ndarray"
"""One answer per text."""


ONE_SEGMENT_TYPE = (
    "This model has only one segment type (encoder.segment_types=1), so it cannot distinguish sentence B from A. Load a model with two "
    "segment types for questions about pairs."
)


class Encode(Protocol):
    """Converts texts, and the second text of each pair, to queries of at most `positions` tokens."""

    def __call__(self, texts: Sequence[Any], pairs: Sequence[Any] | None, reader: Reader, positions: int, /) -> Queries: ...


class Forward(Protocol):
    """A model placed on its devices; implemented by `bert_jax.inference.forward.Forward`."""

    model: Any
    params: Any
    shapes: BatchShapes

    def per_example(self, queries: Queries, work: Callable[[Any], Any]) -> Finish[np.ndarray]:
        """Apply `work` to each batch and return its outputs [B, E, ...] per example, [n, ...]."""

    def vectors(self, queries: Queries, modes: tuple[str, ...], layer: int | None, skipped: int = 0) -> Finish[np.ndarray]:
        """Return the pooled hidden states of each example, float32 [n, D * modes]."""

    def per_token(self, queries: Queries, work: Callable[[Any], Any]) -> Finish[np.ndarray]:
        """Apply `work` to each batch and return its outputs [B, L, ...] per token of each example, [t, ...]."""

    def check_every_layer(self) -> None:
        """Raise InputError if the engine computes the hidden states of the last layer only."""

    def queries_and_keys(self, batch: Any) -> Any:
        """Return the queries and keys of every layer, [B, L, N, 2, D], for `per_token`."""

    def per_masked_token(self, queries: Queries, head: Callable[..., Any]) -> Finish[Any]:
        """Apply `head(hidden, rows, columns, which)` to the masked tokens and return its outputs per masked token, [c, ...]."""

    def encode(self, batch: Any) -> Any:
        """Return the hidden states [B, L, D] of a batch."""


@dataclass(frozen=True)
class Loaded:
    """A trained model, as passed to a question; `result` is that of the stage that trained it, empty for others."""

    forward: Forward
    tokenizer: Reader
    description: ModelDescription
    result: Json = field(default_factory=dict)


class Ask(Protocol):
    """Processes texts in chunks and returns the answers that `start` produces for each chunk, in order."""

    def __call__(
        self,
        texts: Iterable[Any],
        pairs: Iterable[Any] | None,
        start: Callable[[Any], Finish[Answers]],
        encode: Encode = ...,
        max_tokens: int = 0,
    ) -> list[Answers]: ...


class Question(ABC):
    """A question that a model answers about texts, available as a method of the loaded model and as a command.

    Attributes:
        name: the method name; the command uses dashes instead of underscores.
        help: a description of the command.
        examples: example arguments, for the command's help.
        parts: the heads that the question needs, by the top-level names of their parameters.
        pairs: whether each text is paired with a second one.
        sides: what a pair consists of, in messages.
        masked: whether the question is about the [MASK] tokens of a text; long texts are then truncated around them.
        windowed: whether a long text is read in overlapping windows instead of being truncated.
        options: names of the question's own keyword arguments, which `add_options` adds to the command.
        vectors: whether the answers are vectors, which can be stored in a .npy file.
        files: those of the options that are texts, for which the command takes a file.
        formats: suffixes of files that `rows` reads, possibly packed, each with what such a file is, for the command's help.
        by_id: the field of a record that a .json output holds for each id, for files whose `rows` have ids; empty for no such output.
        lists: whether a value of a table may be a list, in JSON; see `given`.
        quadratic: whether the answers grow with the square of the length of a text, so that few texts are asked about at once.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]] = ()
    pairs: ClassVar[Literal["none", "optional", "required"]] = "none"
    sides: ClassVar[str] = "two texts, A and B (or two paths)"
    masked: ClassVar[bool] = False
    windowed: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()
    vectors: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[Mapping[str, str]] = {}
    by_id: ClassVar[str] = ""
    lists: ClassVar[bool] = False
    quadratic: ClassVar[bool] = False

    def add_options(self, command: argparse.ArgumentParser) -> None:  # noqa: B027  # most have none
        """Add the flags of the question's options to its command."""

    def why_not(self, description: ModelDescription) -> str:
        """Return why a model cannot answer the question even though it has the task and heads that it needs; empty if it can."""
        del description
        return ""

    def prepared(self, model: Loaded, ask: Ask, **options: Any) -> dict[str, Any]:
        """Return the options for any number of calls of `ask`, after work that need not be repeated; by default, the options themselves."""
        del model, ask
        return options

    def rows(self, path: Path, result: Json) -> Iterator[Row]:
        """Yield the texts or pairs of a file whose suffix is one of `formats`, by default none; `str` shows them.

        After both texts of a pair, a row may have the id of the pair in the file. `result` is that of the stage that trained the model,
        empty for others.

        Raises:
            InputError: the file cannot be read or is malformed.
        """
        del path, result
        return iter(())

    def given(self, value: str) -> Any:
        """Return the text that a value of a table stands for, such as a list of words; by default, the value."""
        return value

    @abstractmethod
    def start(self, model: Loaded, **options: Any) -> Callable[[Any], Finish[Answers]]:
        """Check the options and return a function that starts the computation for a chunk of texts on the devices.

        Raises:
            InputError: the model does not support an option.
        """

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[Any], pairs: Iterable[Any] | None, **options: Any) -> Answers:
        """Return the answers for all texts, in input order."""
        return [answer for chunk in ask(texts, pairs, self.start(model, **options), self.encode) for answer in chunk]

    def encode(self, texts: Sequence[Any], pairs: Sequence[Any] | None, reader: Reader, positions: int, /) -> Queries:
        """Convert a chunk of texts to queries; by default, each text or pair is one example, truncated to `positions` tokens.

        Raises:
            TextError: see `bert_jax.data.queries.encode_queries`.
        """
        from bert_jax.data.queries import encode_queries

        return encode_queries(texts, pairs, reader, positions, self.masked)

    @abstractmethod
    def record(self, answer: Any) -> dict[str, Any]:
        """Return an answer as JSON values, for a line of an output file."""

    @abstractmethod
    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return human-readable lines for records, which contain `text` and, for pairs, `text_pair`."""

    def portable(self, model: Loaded) -> Json | None:
        """Return what a page needs to answer the question without a server, beside the model's parameters; None if no page can.

        `as` names the function of `serving/page/alone/answers.js` that answers it; the rest is what this function needs.
        """
        del model
        return None

    def prefix(self, model: Loaded, option: str = "", **options: Any) -> str:
        """Return what is put before each text, or before those of one of the `files`; by default, nothing.

        Raises:
            InputError: the model does not support an option.
        """
        del model, option, options
        return ""

    def predictions(self, masks: int, **options: Any) -> int:
        """Return how many predictions the answers for so many masked tokens hold; 0 if the question is not about them."""
        del masks, options
        return 0

    def width(self, model: Loaded, **options: Any) -> int:
        """Return the size of the answer vectors; 0 if the answers are not vectors."""
        del model, options
        return 0

    def max_tokens(self, model: Loaded) -> int:
        """Return the maximum number of tokens per text, beyond which texts are truncated."""
        return model.description.encoder.max_positions
