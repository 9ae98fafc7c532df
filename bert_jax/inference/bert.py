"""A trained model in a program: fill blanks, score texts, judge whether a sentence follows, embed, classify.

Texts come as one string, a list or any iterable. They are worked on in chunks and, inside a chunk, packed into batches of
a few fixed shapes, so that many different lengths need a handful of compiled programs; the answers come back in the order
of the texts, and no answer depends on what else was asked.
"""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.convert.imports import is_foreign, read_source
from bert_jax.data.queries import Queries, encode_queries
from bert_jax.errors import InputError, TextError
from bert_jax.inference.forward import Forward
from bert_jax.modalities.base import Modality
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model.directory import ModelDescription
from bert_jax.runtime.ahead import Finish, one_ahead
from bert_jax.storage.files import resolve_path
from bert_jax.tasks import OF_EVERY_MODEL, embedding, find, questions
from bert_jax.tasks.base import Answers, Loaded, Question, Task
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.pretraining import Prediction
from bert_jax.tasks.pretraining.questions import ONE_SEGMENT_TYPE
from bert_jax.tasks.stored import build, load_model

T = TypeVar("T")

CHUNK = 2048
"""Texts that are packed and sent to the devices together."""

class TruncationWarning(UserWarning):
    """Texts were longer than the model's positions and were cut."""


class UnusedTensorsWarning(UserWarning):
    """A model from elsewhere has tensors that no part of ours takes."""


def load(
    path: str | Path, compute: ComputeConfig | None = None, tasks: Sequence[Task] = (), modalities: Sequence[Modality[Any, Any]] = ()
) -> "Bert":
    """A model, ready to use: the directory of a stage, such as `runs/demo/pretrain`, or a model from elsewhere.

    Of a pre-trained model the newest checkpoint is taken, of a fine-tuned one the best. From elsewhere comes what
    `python -m bert_jax import` reads: a Hugging Face directory, a name on its hub, Google's TensorFlow checkpoints. The
    parameters are placed whole on each local device, whatever devices they were trained on.

    Args:
        path: the directory, or the name on the hub.
        compute: how it is computed.
        tasks: tasks that do not come along, for models of them.
        modalities: modalities that do not come along, for models of them.

    Raises:
        InputError: there is no model in the directory (naming those below it), no checkpoint, or one that does not fit.
    """
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    whole = NamedSharding(mesh, PartitionSpec())
    if is_foreign(path):
        imported = read_source(path)
        if imported.unused:
            names = ", ".join(sorted(imported.unused))
            warnings.warn(f"{path} has tensors that are not used: {names}.", UnusedTensorsWarning, stacklevel=3)
        description, tokenizer, params = imported.description, imported.tokenizer, jax.device_put(imported.params, whole)
    else:
        description, tokenizer, params = load_model(resolve_path(path), whole, tasks, modalities)
    model = build(description, tokenizer.vocab_size, compute or ComputeConfig(), others=tasks)
    return Bert(description, tokenizer, model, params, mesh, tasks)


class Bert:
    """A trained model, as `bert_jax.load` gives it.

    A pre-trained model has `fill_mask`, `score` and, if it learned the task, `next_sentence`; a classifier has `classify`;
    both have `embed`. A method that the model does not have raises InputError. A text that is too long for the model is
    cut, with a `TruncationWarning`; `truncated` counts them since loading.

    Attributes:
        config: the architecture.
        tokenizer: text to token ids and back.
        labels: the classes of a classifier; empty for a pre-trained model.
        truncated: texts that were cut.
    """

    def __init__(
        self, description: ModelDescription, tokenizer: Tokenizer, model: Any, params: Any, mesh: Mesh, tasks: Sequence[Task] = ()
    ) -> None:
        """Wrap a model; `load` is the way to get one. The mesh has one axis, over which rows are cut."""
        self.config: EncoderConfig = description.encoder
        self.tokenizer = tokenizer
        self.labels = description.labels
        self.truncated = 0
        self._tasks = tasks
        self._model = Loaded(Forward(model, params, tokenizer, mesh), tokenizer, description)

    @property
    def params(self) -> Any:
        """The parameters, a tree of arrays."""
        return self._model.forward.params

    @overload
    def fill_mask(self, texts: str, top_k: int = 5, words: Sequence[str] | None = None) -> list[list[Prediction]]: ...
    @overload
    def fill_mask(self, texts: Iterable[str], top_k: int = 5, words: Sequence[str] | None = None) -> list[list[list[Prediction]]]: ...
    def fill_mask(
        self, texts: str | Iterable[str], top_k: int = 5, words: Sequence[str] | None = None
    ) -> list[list[Prediction]] | list[list[list[Prediction]]]:
        """The likeliest tokens at each `[MASK]` of a text, the likeliest first; every mask for itself, the others unknown.

        Args:
            texts: each with one or more [MASK].
            top_k: predictions for each mask; where there are fewer `words`, as many as there are.
            words: the only answers that are considered. Their probabilities stay those among the whole vocabulary, as with
                `targets` in Hugging Face's pipeline, and do not add up to 1.

        Returns:
            For one text a list of predictions for each of its masks, from left to right; for many a list of these. A long
            text is cut around its masks.

        Raises:
            InputError: a model without the masked-token head, no [MASK] in a text, an empty text, masks too far apart, an
                impossible `top_k`, or a word that is not one token of the vocabulary.
        """
        return _flat(texts, self._answer("fill_mask", texts, None, top_k=top_k, words=words))

    @overload
    def score(self, texts: str) -> float: ...
    @overload
    def score(self, texts: Iterable[str]) -> list[float]: ...
    def score(self, texts: str | Iterable[str]) -> float | list[float]:
        """How probable the model finds a text: its pseudo-log-likelihood (Salazar et al. 2020, section 2), never above 0.

        That is the sum, over the tokens of the text, of the natural logarithm of the probability of the token where it alone
        is covered. [CLS], [SEP] and any [PAD] and [MASK] in the text are not counted. A text of n tokens costs n times an
        answer of the other methods.

        Raises:
            InputError: a model without the masked-token head, or an empty text.
        """
        return _flat(texts, self._answer("score", texts, None))

    @overload
    def next_sentence(self, a: str, b: str) -> float: ...
    @overload
    def next_sentence(self, a: Iterable[str], b: Iterable[str]) -> list[float]: ...
    def next_sentence(self, a: str | Iterable[str], b: str | Iterable[str]) -> float | list[float]:
        """The probability that B follows A (for a model of sentence order: that they are not swapped).

        Raises:
            InputError: a model without the head, the task or a second segment type, an empty text, or lists of two lengths.
        """
        return _flat(a, self._answer("next_sentence", a, b))

    @property
    def prompts(self) -> dict[str, str]:
        """The texts by name that `embed` can put before each text."""
        return dict(self._model.description.embedding.prompts)

    @property
    def embedding_length(self) -> int:
        """The tokens, [CLS] and [SEP] among them, to which `embed` cuts a text."""
        return embedding.text_length(self._model.description)

    def vector_size(self, pooling: str | None = None) -> int:
        """How many numbers a vector of `embed` with this pooling has."""
        return embedding.vector_size(self._model.description, self._model.description.embedding.pooling if pooling is None else pooling)

    def embed(
        self,
        texts: str | Iterable[str],
        pooling: str | None = None,
        layer: int = -1,
        normalize: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """Vectors of texts. What is not given is as the model's description says, which an imported model brings with it.

        Args:
            texts: one or many.
            pooling: how the vectors of a text's tokens, [CLS] and [SEP] included, become one: `mean` (of a model of our own),
                `cls`, `max`, `mean_sqrt_len_tokens`, `weightedmean` or `lasttoken`, as in sentence-transformers; several are
                joined, such as `cls+mean`.
            layer: of the N + 1 hidden states, 0 (the embeddings) to N or -1 (the last layer).
            normalize: scale the vectors to length 1.
            prompt: a text to put before each text, such as "query: "; an empty one for none.
            prompt_name: the name of one of the model's `prompts`, instead.

        Returns:
            float32 [texts, `vector_size(pooling)`], of one pooling D numbers each; one vector for a single text.

        Raises:
            InputError: an empty text, another pooling, a layer or a prompt that the model does not have, or two prompts.
        """
        options = {"pooling": pooling, "layer": layer, "normalize": normalize, "prompt": prompt, "prompt_name": prompt_name}
        return _flat(texts, self._answer("embed", texts, None, **options))

    @overload
    def classify(self, texts: str, pairs: str | None = None) -> Classification: ...
    @overload
    def classify(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[Classification]: ...
    def classify(self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None) -> Classification | list[Classification]:
        """The class of each text, or of each text with its pair.

        Raises:
            InputError: a model that is not a classifier, pairs for one with a single segment type, an empty text, or lists of two lengths.
        """
        return _flat(texts, self._answer("classify", texts, pairs))

    def answer(self, name: str, texts: Iterable[str], pairs: Iterable[str] | None = None, **options: Any) -> Answers:
        """The answers of the model to a question about each text, by the question's name; `questions` has them.

        Args:
            name: such as `classify`, or that of a question of a task that was handed to `load`.
            texts: many.
            pairs: the second text of each pair, where the question is about pairs.
            options: as the question takes them.

        Raises:
            InputError: a question that the model cannot answer, an empty text, or lists of two lengths.
        """
        return self._answer(name, texts, pairs, **options)

    @property
    def questions(self) -> dict[str, Question]:
        """What the model can answer, by name."""
        own = (*find(self._model.description.kind, self._tasks).questions, *OF_EVERY_MODEL)
        return {question.name: question for question in own if not self._fault(question)}

    def width(self, name: str, **options: Any) -> int:
        """How many numbers each vector has that answers a question; 0 where answers are no vectors."""
        return self.questions[name].width(self._model, **options)

    def most_tokens(self, name: str) -> int:
        """The tokens to which a question cuts texts."""
        return self.questions[name].most_tokens(self._model)

    def _answer(self, name: str, texts: str | Iterable[str], pairs: str | Iterable[str] | None, **options: Any) -> Answers:
        question, asking = self._question(name), _Asking(self._model)
        if isinstance(texts, str) or isinstance(pairs, str):
            if not (isinstance(texts, str) and isinstance(pairs, str | None)):
                raise InputError("One text and many cannot be paired: give two texts, or two lists of the same length.")
            texts, pairs = [texts], None if pairs is None else [pairs]
        try:
            answers = question.ask(self._model, asking, texts, pairs, **options)
        finally:
            self.truncated += asking.truncated
        if asking.truncated:
            warnings.warn(
                f"{asking.truncated:,} of {asking.count:,} texts are longer than the {asking.positions} tokens that the model takes "
                "and were cut.",
                TruncationWarning,
                stacklevel=3,
            )
        return answers

    def _question(self, name: str) -> Question:
        own = {question.name: question for question in (*find(self._model.description.kind, self._tasks).questions, *OF_EVERY_MODEL)}
        if name not in own:
            task = next((task for task, question in questions(self._tasks) if question.name == name), None)
            wanted = f"{name} takes {task.noun}, which this is not: load one, such as runs/demo/{task.stage}." if task else ""
            raise InputError(f"{wanted or f'There is no question {name!r}.'} This model can {' and '.join(self.questions)}.")
        if fault := self._fault(own[name]):
            raise InputError(f"{fault} This model can {' and '.join(self.questions)}.")
        return own[name]

    def _fault(self, question: Question) -> str:
        """Why the model cannot answer a question of its task."""
        if absent := [part for part in question.parts if part in self._model.description.absent]:
            return (
                f"{question.name} needs {' and '.join(absent)}, which this model's checkpoint does not hold: import the model with "
                "--initialize-missing to start the head from random numbers, then train it."
            )
        return question.fault(self._model.description)


class _Asking:
    """Works on texts chunk by chunk (`bert_jax.tasks.base.Ask`), and counts those that were cut.

    Attributes:
        truncated: texts that were cut.
        count: texts that were asked about.
        positions: the tokens to which they were cut.
    """

    def __init__(self, model: Loaded) -> None:
        self._model = model
        self.truncated, self.count, self.positions = 0, 0, model.description.encoder.max_positions

    def __call__(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None,
        start: Callable[[Queries], Finish[T]],
        masked: bool = False,
        most_tokens: int = 0,
    ) -> list[T]:
        """What `start` makes of each chunk of texts, the next chunk being sent to the devices before it is waited for.

        Args:
            texts: many.
            pairs: the second text of each, or None.
            start: sends a chunk to the devices.
            masked: texts are asked about their [MASK]s, around which they are cut.
            most_tokens: cuts texts to fewer than the model's positions; 0 does not.
        """
        encoder = self._model.description.encoder
        if pairs is not None and encoder.segment_types == 1:
            # The lookup would take row 0 for segment 1, and the answer would be a number that nothing was trained to give.
            raise InputError(ONE_SEGMENT_TYPE)
        self.positions = min(encoder.max_positions, most_tokens or encoder.max_positions)

        def started() -> Iterator[Finish[T]]:
            for first, (some, theirs) in _chunks(texts, pairs):
                try:
                    queries = encode_queries(some, theirs, self._model.tokenizer, self.positions, masked)
                except TextError as error:
                    raise TextError(first + error.index, error.problem) from None
                self.truncated += queries.truncated
                self.count = first + len(some)
                yield start(queries)

        return list(one_ahead(started()))


def _flat(texts: str | Iterable[str], answers: Answers) -> Any:
    """The answers; for a single text its answer alone."""
    return answers[0] if isinstance(texts, str) else answers


def _chunks(texts: Iterable[str], pairs: Iterable[str] | None) -> Iterator[tuple[int, tuple[list[str], list[str] | None]]]:
    """The index of the first text of each chunk, its texts and their pairs."""
    left, right = iter(texts), None if pairs is None else iter(pairs)
    for first in itertools.count(0, CHUNK):
        some = list(itertools.islice(left, CHUNK))
        theirs = None if right is None else list(itertools.islice(right, CHUNK))
        if theirs is not None and len(theirs) != len(some):
            raise InputError(
                f"There are {first + min(len(some), len(theirs))} texts on one side and more on the other: give each text its pair."
            )
        if not some:
            return
        yield first, (some, theirs)
