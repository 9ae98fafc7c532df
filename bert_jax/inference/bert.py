"""The loaded model and its methods: fill masks, score texts, predict next sentences, embed and classify.

For models of images or recordings, a text is a path, the bytes of a file, or an array. Texts are given as one, a list or any
iterable. They are processed in chunks and, within a chunk, packed into batches of a few fixed shapes, so that texts of many
lengths need only a handful of compiled programs. Answers are returned in the order of the texts, and an answer does not depend
on the other texts.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, cast, overload

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.convert.imports import is_foreign, read_source
from bert_jax.errors import InputError
from bert_jax.inference.chunks import ChunkedAsk
from bert_jax.inference.forward import Forward
from bert_jax.modalities.base import Modality
from bert_jax.modalities.media.items import Half, Item, Masked
from bert_jax.model.directory import ModelDescription, finished
from bert_jax.storage.files import resolve_path
from bert_jax.tasks import COMMON_QUESTIONS, embedding, find, questions
from bert_jax.tasks.base import Task
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.multilabel import LabelSet
from bert_jax.tasks.pretraining import Prediction
from bert_jax.tasks.question import Answers, Loaded, Question
from bert_jax.tasks.similar import Neighbor
from bert_jax.tasks.stored import build, load_model
from bert_jax.tasks.tagging.questions import Span

Single: TypeAlias = str | bytes | Path | tuple[NDArray[Any], int] | Item | Masked | Half
"""A text; or a path, the bytes of a file, samples with their rate, or one of these with masked units. An array is one input or many."""


class UnusedTensorsWarning(UserWarning):
    """An imported model has tensors that no part of the BERT model here uses."""


def load(
    path: str | Path, compute: ComputeConfig | None = None, tasks: Sequence[Task] = (), modalities: Sequence[Modality[Any, Any]] = ()
) -> "Bert":
    """Load a model for inference: the directory of a stage, such as `runs/demo/pretrain`, or a model from another library.

    For a pre-trained model, the newest checkpoint is loaded; for a fine-tuned model, the best one. Models from other libraries are
    those that `python -m bert_jax import` reads: a Hugging Face directory, a name on the Hub, or a Google TensorFlow checkpoint. The
    parameters are replicated on every local device, regardless of the devices they were trained on.

    Args:
        path: the directory, or the name on the Hub.
        compute: how to compute the model, for example its data type.
        tasks: tasks that are not part of this package, for models trained on them.
        modalities: modalities that are not part of this package, for models that read them.

    Raises:
        InputError: there is no model in the directory (the message lists models below it), no checkpoint, or a checkpoint that does
            not fit the model.
    """
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    on_every_device = NamedSharding(mesh, PartitionSpec())
    if is_foreign(path):
        imported = read_source(path)
        if imported.unused:
            names = ", ".join(sorted(imported.unused))
            warnings.warn(f"{path} has tensors that are not used: {names}.", UnusedTensorsWarning, stacklevel=3)
        description, tokenizer, params = imported.description, imported.tokenizer, jax.device_put(imported.params, on_every_device)
        result: Mapping[str, Any] = {}
    else:
        description, tokenizer, params = load_model(resolve_path(path), on_every_device, tasks, modalities)
        result = finished(resolve_path(path)) or {}
    model = build(description, tokenizer.vocab_size, compute or ComputeConfig(), others=tasks)
    return Bert(description, tokenizer, model, params, mesh, tasks, result)


class Bert:
    """A trained model, as returned by `bert_jax.load`.

    A pre-trained model supports `fill_mask`, `score` and, if it was trained for it, `next_sentence`; a classifier, of one or several
    labels, supports `classify`, a regression model `regress`, and a tagger `tag`; all support `embed` and `similar`. A method that the
    model does not support raises InputError. A text that is too long for the model is truncated, with a `TruncationWarning`.

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
    ) -> None:
        """Wrap a model; use `load` to create one. Rows are sharded along the single axis of the mesh."""
        self.config: EncoderConfig = description.encoder
        self.tokenizer = tokenizer
        self.labels = description.labels
        self.truncated = 0
        self._tasks = tasks
        self._model = Loaded(Forward(model, params, tokenizer, mesh), tokenizer, description, result)

    @property
    def params(self) -> Any:
        """The parameters, a tree of arrays."""
        return self._model.forward.params

    @overload
    def fill_mask(self, texts: Single, top_k: int = 5, words: Sequence[str] | None = None) -> list[list[Prediction]]: ...
    @overload
    def fill_mask(self, texts: Iterable[Any], top_k: int = 5, words: Sequence[str] | None = None) -> list[list[list[Prediction]]]: ...
    def fill_mask(
        self, texts: Single | Iterable[Any], top_k: int = 5, words: Sequence[str] | None = None
    ) -> list[list[Prediction]] | list[list[list[Prediction]]]:
        """Return the most probable tokens at each `[MASK]` of a text, most probable first. Masks are predicted independently.

        Args:
            texts: one text or several, each with at least one [MASK].
            top_k: the number of predictions per mask; at most the number of `words`, if they are given.
            words: the only tokens to consider. Their probabilities are still relative to the full vocabulary, as with
                `targets` in Hugging Face's pipeline, and do not add up to 1.

        Returns:
            For one text, a list of predictions for each of its masks, from left to right; for several texts, a list of these.
            A long text is truncated around its masks.

        Raises:
            InputError: the model has no masked-token head, a text has no [MASK] or is empty, masks are too far apart, `top_k` is
                invalid, or a word is not a single token of the vocabulary.
        """
        return self._unwrap(texts, self._answer("fill_mask", texts, None, top_k=top_k, words=words))

    @overload
    def score(self, texts: Single) -> float: ...
    @overload
    def score(self, texts: Iterable[Any]) -> list[float]: ...
    def score(self, texts: Single | Iterable[Any]) -> float | list[float]:
        """Return the pseudo-log-likelihood of a text (Salazar et al. 2020, section 2), which is never above 0.

        It is the sum, over the tokens of the text, of the natural log probability of each token when that token alone is
        masked. [CLS], [SEP], and any [PAD] and [MASK] in the text are excluded. Scoring a text of n tokens costs n times as much
        as the other methods.

        Raises:
            InputError: the model has no masked-token head, or a text is empty.
        """
        return self._unwrap(texts, self._answer("score", texts, None))

    @overload
    def next_sentence(self, a: Single, b: Single) -> float: ...
    @overload
    def next_sentence(self, a: Iterable[Any], b: Iterable[Any]) -> list[float]: ...
    def next_sentence(self, a: Single | Iterable[Any], b: Single | Iterable[Any]) -> float | list[float]:
        """Return the probability that B follows A (for a model trained on sentence order: that A and B are not swapped).

        Raises:
            InputError: the model has no next-sentence head, was not trained on the task or has one segment type; a text is empty;
                or the lists differ in length.
        """
        return self._unwrap(a, self._answer("next_sentence", a, b))

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts, by name, that `embed` can prepend to each text."""
        return dict(self._model.description.embedding.prompts)

    @property
    def embedding_length(self) -> int:
        """The number of tokens, including [CLS] and [SEP], to which `embed` truncates a text."""
        return embedding.text_length(self._model.description)

    def vector_size(self, pooling: str | None = None) -> int:
        """Return the size of the vectors that `embed` computes with this pooling."""
        return embedding.vector_size(self._model.description, self._model.description.embedding.pooling if pooling is None else pooling)

    def embed(
        self,
        texts: Single | Iterable[Any],
        pooling: str | None = None,
        layer: int = -1,
        normalize: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray:
        """Compute embedding vectors of texts. Options that are None default to the values stored with the model.

        Args:
            texts: one text or several.
            pooling: how the hidden states of a text's tokens, including [CLS] and [SEP], are pooled into one vector: `mean` (the
                default for models trained here), `cls`, `max`, `mean_sqrt_len_tokens`, `weightedmean` or `lasttoken`, as in
                sentence-transformers. Several poolings are concatenated, as in `cls+mean`.
            layer: which of the N + 1 hidden states to pool: 0 (the embeddings) to N, or -1 (the last layer).
            normalize: scale the vectors to unit length.
            prompt: a text to prepend to each text, such as "query: "; an empty string for none.
            prompt_name: the name of one of the model's `prompts`, as an alternative to `prompt`.

        Returns:
            float32 [texts, `vector_size(pooling)`], or a single vector for a single text. A vector has D numbers per pooling.

        Raises:
            InputError: a text is empty, the pooling is unknown, the model does not have the layer or prompt, or both `prompt` and
                `prompt_name` are given.
        """
        options = {"pooling": pooling, "layer": layer, "normalize": normalize, "prompt": prompt, "prompt_name": prompt_name}
        return self._unwrap(texts, self._answer("embed", texts, None, **options))

    @overload
    def similar(self, queries: Single, texts: Iterable[Any], top_k: int = 5) -> list[Neighbor]: ...
    @overload
    def similar(self, queries: Iterable[Any], texts: Iterable[Any], top_k: int = 5) -> list[list[Neighbor]]: ...
    def similar(self, queries: Single | Iterable[Any], texts: Iterable[Any], top_k: int = 5) -> list[Neighbor] | list[list[Neighbor]]:
        """Return the texts that are nearest to each query, by the cosine of their embeddings, nearest first.

        If the model has prompts for queries and for documents, they are prepended, as in sentence-transformers.

        Args:
            queries: one text or several.
            texts: the texts to search.
            top_k: the number of texts per query; at most all of them are returned.

        Raises:
            InputError: there are no texts to search, a text is empty, or `top_k` is not positive.
        """
        return self._unwrap(queries, self._answer("similar", queries, None, among=texts, top_k=top_k))

    @overload
    def classify(
        self, texts: Single, pairs: Single | None = None, threshold: float | None = None
    ) -> Classification | LabelSet: ...
    @overload
    def classify(
        self, texts: Iterable[Any], pairs: Iterable[Any] | None = None, threshold: float | None = None
    ) -> list[Classification] | list[LabelSet]: ...
    def classify(
        self, texts: Single | Iterable[Any], pairs: Single | Iterable[Any] | None = None, threshold: float | None = None
    ) -> Classification | LabelSet | list[Classification] | list[LabelSet]:
        """Return the predicted class of each text, or of each pair of texts; for a multi-label classifier, all their labels.

        Args:
            texts: one text or several.
            pairs: the second text of each pair.
            threshold: for a multi-label classifier, the probability from which a label counts; None for that which was tuned on the dev
                set.

        Raises:
            InputError: the model is not a classifier, it has one label per text and a threshold is given, pairs are given to a model
                with one segment type, a text is empty, or the lists differ in length.
        """
        options = {} if threshold is None else {"threshold": threshold}
        return self._unwrap(texts, self._answer("classify", texts, pairs, **options))

    @overload
    def regress(self, texts: Single, pairs: Single | None = None) -> float: ...
    @overload
    def regress(self, texts: Iterable[Any], pairs: Iterable[Any] | None = None) -> list[float]: ...
    def regress(self, texts: Single | Iterable[Any], pairs: Single | Iterable[Any] | None = None) -> float | list[float]:
        """Return the predicted number of each text, or of each pair of texts.

        Raises:
            InputError: the model is not a regression model; see also `classify`.
        """
        return self._unwrap(texts, self._answer("regress", texts, pairs))

    @overload
    def tag(self, texts: str) -> list[Span]: ...
    @overload
    def tag(self, texts: Iterable[str | Sequence[str]]) -> list[list[Span]]: ...
    def tag(self, texts: str | Iterable[str | Sequence[str]]) -> list[Span] | list[list[Span]]:
        """Return the tagged spans of each text: its entities or, for tags without prefixes such as parts of speech, its words.

        A text that is longer than the model's limit is read in overlapping windows, so nothing is truncated.

        Args:
            texts: one text or several. A text may also be a list of words, whose string has spaces between words, except next to Chinese
                characters.

        Returns:
            For one text, its spans in order; for several texts, a list of these. Offsets are characters of the text as given.

        Raises:
            InputError: the model is not a tagger, or a text is empty.
        """
        return self._unwrap(texts, self._answer("tag", texts, None))

    def answer(self, name: str, texts: Iterable[Any], pairs: Iterable[Any] | None = None, **options: Any) -> Answers:
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
        """Return the options of a question for any number of calls of `answer`, after work that need not be repeated.

        Raises:
            InputError: see `answer`.
        """
        question, ask = self.question(name), ChunkedAsk(self._model)
        with self._counted(ask):
            return question.prepared(self._model, ask, **options)

    @property
    def questions(self) -> dict[str, Question]:
        """The questions that the model can answer, by name."""
        own = (*find(self._model.description.kind, self._tasks).questions, *COMMON_QUESTIONS)
        return {question.name: question for question in own if not self._unsupported_reason(question)}

    def width(self, name: str, **options: Any) -> int:
        """Return the size of the vectors that answer a question, or 0 if its answers are not vectors."""
        return self.questions[name].width(self._model, **options)

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
        own = {question.name: question for question in (*find(self._model.description.kind, self._tasks).questions, *COMMON_QUESTIONS)}
        if name not in own:
            task = next((task for task, question in questions(self._tasks) if question.name == name), None)
            required = f"{name} requires {task.noun}, which this model is not. Load one, such as runs/demo/{task.stage}." if task else ""
            raise InputError(f"{required or f'There is no question {name!r}.'} {self._supported()}")
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
