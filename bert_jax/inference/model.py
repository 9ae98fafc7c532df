"""A loaded model that answers questions by their names, whatever its task."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from jax.sharding import Mesh
from numpy.typing import NDArray

from bert_jax.config import EncoderConfig
from bert_jax.data.queries import BatchShapes
from bert_jax.errors import InputError
from bert_jax.inference.chunks import ChunkedAsk
from bert_jax.inference.engines.base import HiddenStates
from bert_jax.inference.forward import Forward
from bert_jax.modalities.media.items import Half, Item, Masked
from bert_jax.model.directory import ModelDescription
from bert_jax.tasks import COMMON_QUESTIONS, find, questions
from bert_jax.tasks.base import Task
from bert_jax.tasks.display import Json
from bert_jax.tasks.question import Answers, Loaded, Question

Single: TypeAlias = str | bytes | Path | tuple[NDArray[Any], int] | Item | Masked | Half
"""A text; or a path, the bytes of a file, samples with their rate, or one of these with masked units. An array is one input or many."""


class Model:
    """A trained model on its devices.

    Attributes:
        config: the encoder's architecture.
        tokenizer: converts text to token ids and back; for images and recordings, their codebook.
        labels: the class names of a classifier; empty for a pre-trained model.
        truncated: the number of texts that have been truncated since the model was loaded.
    """

    def __init__(
        self,
        description: ModelDescription,
        tokenizer: Any,
        model: Any,
        params: Any,
        mesh: Mesh,
        tasks: Sequence[Task] = (),
        result: Mapping[str, Any] = MappingProxyType({}),
        hidden_states: HiddenStates | None = None,
    ) -> None:
        """Wrap a model; use `load` to create one. See also `Forward`."""
        self.config: EncoderConfig = description.encoder
        self.tokenizer = tokenizer
        self.labels = description.labels
        self.truncated = 0
        self._tasks = tasks
        self._model = Loaded(Forward(model, params, tokenizer, mesh, hidden_states), tokenizer, description, result)

    @property
    def params(self) -> Any:
        """The parameters, a tree of arrays."""
        return self._model.forward.params

    @property
    def module(self) -> Any:
        """The Flax module; its methods are applied to `params`."""
        return self._model.forward.model

    @property
    def description(self) -> ModelDescription:
        """The description that is stored with the model."""
        return self._model.description

    @property
    def shapes(self) -> BatchShapes:
        """The shapes of the batches that are computed."""
        return self._model.forward.shapes

    @contextmanager
    def in_rows(self, length: int) -> Iterator[None]:
        """Pack texts into rows of at least `length` tokens, provided that they fill more than half of one, in the body of the context."""
        shapes = self.shapes
        self._model.forward.shapes = replace(shapes, least=(length,))
        try:
            yield
        finally:
            # What running out of memory has changed meanwhile stays.
            self._model.forward.shapes = replace(self.shapes, least=shapes.least)

    @property
    def noun(self) -> str:
        """What the model is, such as "a classifier"."""
        return find(self._model.description.kind, self._tasks).noun

    def ask(self, name: str, texts: Iterable[Any], pairs: Iterable[Any] | None = None, **options: Any) -> Answers:
        """Answer a question about each text.

        Args:
            name: a key of `questions`, such as `classify`, or a question of a task that was passed to `load`.
            texts: the texts.
            pairs: the second text of each pair, if the question is about pairs.
            options: the question's own options.

        Raises:
            InputError: the model cannot answer the question, a text is empty, or the lists differ in length.
        """
        return self._answer(name, texts, pairs, **options)

    def prepared(self, name: str, **options: Any) -> dict[str, Any]:
        """Return the options of a question for any number of calls of `ask`, after work that need not be repeated.

        Raises:
            InputError: see `ask`.
        """
        question, ask = self.question(name), ChunkedAsk(self._model)
        with self._counted(ask):
            return question.prepared(self._model, ask, **options)

    @property
    def questions(self) -> dict[str, Question]:
        """The questions that the model can answer, by name."""
        own = (*find(self._model.description.kind, self._tasks).questions, *COMMON_QUESTIONS)
        return {question.name: question for question in own if not self._unsupported_reason(question)}

    @property
    def portable(self) -> dict[str, Json]:
        """What a page needs to answer questions without a server, by the question; see `bert_jax.tasks.question.Question.portable`."""
        if self.tokenizer.units:
            return {}
        found = {name: question.portable(self._model) for name, question in self.questions.items()}
        return {name: values for name, values in found.items() if values is not None}

    def width(self, name: str, **options: Any) -> int:
        """Return the size of the vectors that answer a question, or 0 if its answers are not vectors."""
        return self.questions[name].width(self._model, **options)

    def prefix(self, name: str, option: str = "", **options: Any) -> str:
        """Return what a question puts before each text, or before those of an option, and what counts toward `max_tokens`."""
        return self.questions[name].prefix(self._model, option, **options)

    def max_tokens(self, name: str) -> int:
        """Return the number of tokens to which a question truncates texts."""
        return self.questions[name].max_tokens(self._model)

    def _answer(self, name: str, texts: Single | Iterable[Any], pairs: Single | Iterable[Any] | None, **options: Any) -> Answers:
        question, ask = self.question(name), ChunkedAsk(self._model)
        if unknown := [option for option in options if option not in question.options]:
            task = find(self._model.description.kind, self._tasks)
            raise InputError(f"{name} has no option {unknown[0]!r} with this model, {task.noun}.")
        if self._is_one(texts) or (pairs is not None and self._is_one(pairs)):
            if not (self._is_one(texts) and (pairs is None or self._is_one(pairs))):
                noun = self.tokenizer.nouns.input
                raise InputError(f"A single {noun} and a list cannot be paired: give two {noun}s, or two lists of the same length.")
            texts, pairs = (texts,), None if pairs is None else (pairs,)
        for given in (texts, () if pairs is None else pairs):
            if isinstance(given, bytes) or not isinstance(given, Iterable):
                noun = self.tokenizer.nouns.input
                raise InputError(f"This model reads {noun}s, not {type(given).__name__}: pass one {noun}, or several.")
        with self._counted(ask):
            return question.ask(self._model, ask, cast(Iterable[Any], texts), cast("Iterable[Any] | None", pairs), **options)

    @contextmanager
    def _counted(self, ask: ChunkedAsk) -> Iterator[None]:
        """Count the texts that are truncated, and warn about them."""
        try:
            yield
        finally:
            self.truncated += ask.truncated
        ask.warn(stacklevel=6)

    def _is_one(self, inputs: Any) -> bool:
        return self.tokenizer.is_one(inputs)

    def _unwrap(self, inputs: Any, answers: Answers) -> Any:
        """Return the answers, or for a single input its answer."""
        return answers[0] if self._is_one(inputs) else answers

    def question(self, name: str) -> Question:
        """Return the question of this name.

        Raises:
            InputError: the model cannot answer it.
        """
        own_task = find(self._model.description.kind, self._tasks)
        own = {question.name: question for question in (*own_task.questions, *COMMON_QUESTIONS)}
        if name not in own:
            fault = f"There is no question {name!r}."
            for task, question in questions(self._tasks):
                if question.name == name:
                    model = question.examples[0].split()[0]
                    fault = f"{name} requires {task.noun}, but this model is {own_task.noun}. Load one, such as {model}."
                    break
            raise InputError(f"{fault} {self._supported()}")
        if fault := self._unsupported_reason(own[name]):
            raise InputError(f"{fault} {self._supported()}")
        return own[name]

    def _supported(self) -> str:
        return f"This model supports {', '.join(self.questions)}."

    def _unsupported_reason(self, question: Question) -> str:
        """Return why the model cannot answer a question of its task, or an empty string if it can."""
        if absent := [part for part in question.parts if part in self._model.description.absent]:
            return (
                f"{question.name} needs {' and '.join(absent)}, which this model's checkpoint does not contain. Import the model with "
                "--initialize-missing to initialize the head randomly, then train it."
            )
        return question.why_not(self._model.description)
