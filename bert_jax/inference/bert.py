"""The loaded model and its methods: fill masks, score texts, predict next sentences, embed and classify.

For models of images or recordings, a text is a path, the bytes of a file, or an array. Texts are given as one, a list or any
iterable. They are processed in chunks and, within a chunk, packed into batches of a few fixed shapes, so that texts of many
lengths need only a handful of compiled programs. Answers are returned in the order of the texts, and an answer does not depend
on the other texts.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.config import ComputeConfig
from bert_jax.convert.imports import is_foreign, read_source
from bert_jax.inference.chunks import MEMORY_ADVICE
from bert_jax.inference.engines import find_engine
from bert_jax.inference.model import Model, Single
from bert_jax.modalities.base import Modality
from bert_jax.model.directory import finished
from bert_jax.model.resolution import resolve_compute
from bert_jax.runtime.device_memory import memory_advice
from bert_jax.storage.files import resolve_path
from bert_jax.tasks import embedding
from bert_jax.tasks.answering.questions import Answer
from bert_jax.tasks.attention import AttentionWeights
from bert_jax.tasks.base import Task
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.influence import InfluentialToken
from bert_jax.tasks.multilabel import LabelSet
from bert_jax.tasks.pretraining import Prediction, ScoredToken
from bert_jax.tasks.similar import Neighbor
from bert_jax.tasks.stored import build, load_model
from bert_jax.tasks.tagging.questions import Span
from bert_jax.training.sharding import platform


class UnusedTensorsWarning(UserWarning):
    """An imported model has tensors that no part of the BERT model here uses."""


def load(
    path: str | Path,
    compute: ComputeConfig | None = None,
    tasks: Sequence[Task] = (),
    modalities: Sequence[Modality[Any, Any]] = (),
    *,
    engine: str = "jax",
    dtype: str | None = None,
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
        engine: what computes the encoder: `jax`, or `onnxruntime`, which is faster on CPUs and converts the model by itself (needs the
            packages onnx and onnxruntime). The heads are computed by JAX.
        dtype: the type of matrix products: `float32` or `bfloat16` with JAX, `float32` or `int8` with ONNX Runtime; None for that of
            `compute`, or float32. With int8, answers are approximate, and depend slightly on the texts in the same batch.

    Raises:
        InputError: there is no model in the directory (the message lists models below it), no checkpoint, or a checkpoint that does
            not fit the model; or the engine is unknown, cannot compute the model, or is not installed.
    """
    chosen = find_engine(engine, dtype)
    compute = chosen.compute(compute, dtype)
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    on_every_device = NamedSharding(mesh, PartitionSpec())
    with memory_advice("loading the model", MEMORY_ADVICE):
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
    compute = resolve_compute(compute, description.encoder, (), platform(mesh))
    model = build(description, tokenizer.vocab_size, compute, others=tasks)
    return Bert(description, tokenizer, model, params, mesh, tasks, result, chosen.hidden_states(description, params, dtype))


class Bert(Model):
    """A trained model, as returned by `bert_jax.load`.

    A pre-trained model supports `fill_mask`, `score` and, if it was trained for it, `next_sentence`; a classifier, of one or several
    labels, supports `classify`, a regression model `regress`, and both `influence`; a tagger supports `tag`, and a question answering
    model `answer`; all support `embed`, `similar` and `attention`. A method that the model does not support raises InputError. A text
    that is too long for the model is truncated, with a `TruncationWarning`.
    """

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
    def score(self, texts: Single, tokens: Literal[False] = False) -> float: ...
    @overload
    def score(self, texts: Single, tokens: Literal[True]) -> list[ScoredToken]: ...
    @overload
    def score(self, texts: Iterable[Any], tokens: Literal[False] = False) -> list[float]: ...
    @overload
    def score(self, texts: Iterable[Any], tokens: Literal[True]) -> list[list[ScoredToken]]: ...
    def score(
        self, texts: Single | Iterable[Any], tokens: bool = False
    ) -> float | list[float] | list[ScoredToken] | list[list[ScoredToken]]:
        """Return the pseudo-log-likelihood of a text (Salazar et al. 2020, section 2), which is never above 0.

        It is the sum, over the tokens of the text, of the natural log probability of each token when that token alone is
        masked. [CLS], [SEP], and any [PAD] and [MASK] in the text are excluded. Scoring a text of n tokens costs n times as much
        as the other methods.

        Args:
            texts: one text or several.
            tokens: return the terms of the sum, a list of tokens for each text, instead of the sum.

        Raises:
            InputError: the model has no masked-token head, or a text is empty.
        """
        return self._unwrap(texts, self._answer("score", texts, None, **({"tokens": True} if tokens else {})))

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
    def attention(self, texts: Single, pairs: Single | None = None, layer: int | None = None) -> AttentionWeights: ...
    @overload
    def attention(self, texts: Iterable[Any], pairs: Iterable[Any] | None = None, layer: int | None = None) -> list[AttentionWeights]: ...
    def attention(
        self, texts: Single | Iterable[Any], pairs: Single | Iterable[Any] | None = None, layer: int | None = None
    ) -> AttentionWeights | list[AttentionWeights]:
        """Return how much each token of a text, or of a pair of texts, attends to every token, by layer and head.

        Args:
            texts: one text or several.
            pairs: the second text of each pair.
            layer: only this layer, from 1, or from -1 for the last; None for all.

        Returns:
            The tokens, with [CLS] and [SEP], and the weights, float32 [layers, heads, n, n], of each text.

        Raises:
            InputError: there is no such layer, the engine computes the last layer only, a text is empty, or the answer would be too large.
        """
        return self._unwrap(texts, self._answer("attention", texts, pairs, layer=layer))

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
            threshold: for a multi-label classifier, the probability from which a label counts; None for the one that was tuned on the dev
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
    def influence(self, texts: Single) -> list[InfluentialToken]: ...
    @overload
    def influence(self, texts: Iterable[Any]) -> list[list[InfluentialToken]]: ...
    def influence(self, texts: Single | Iterable[Any]) -> list[InfluentialToken] | list[list[InfluentialToken]]:
        """Return how much each token of a text speaks for (above 0) or against the prediction of `classify` or `regress`.

        It is the token's vector, as it enters the encoder, times the gradient of the greatest output by that vector.

        Raises:
            InputError: the model neither classifies nor rates, the engine has no gradients, or a text is empty.
        """
        return self._unwrap(texts, self._answer("influence", texts, None))

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

    @overload
    def answer(
        self, questions: str, passages: str, threshold: float | None = None, max_answer_tokens: int | None = None
    ) -> Answer | None: ...
    @overload
    def answer(
        self, questions: Iterable[str], passages: Iterable[str], threshold: float | None = None, max_answer_tokens: int | None = None
    ) -> list[Answer | None]: ...
    def answer(
        self, questions: str | Iterable[str], passages: str | Iterable[str], threshold: float | None = None,
        max_answer_tokens: int | None = None,
    ) -> Answer | list[Answer | None] | None:  # fmt: skip
        """Return the part of a passage that answers a question, or None if the passage does not answer it.

        A passage that is longer than the model's limit is read in overlapping windows, so nothing of it is truncated.

        Args:
            questions: one question or several.
            passages: the passage of each question.
            threshold: by how much the score of no answer may exceed that of the best answer; None for what was tuned on the dev set. Models
                that were not trained on questions without answers, and imported ones, always answer.
            max_answer_tokens: the maximum number of tokens in an answer; None for the value used in training, or 30.

        Raises:
            InputError: the model is not a question answering model, a text is empty, or the lists differ in length.
        """
        options = {"threshold": threshold, "max_answer_tokens": max_answer_tokens}
        return self._unwrap(questions, self._answer("answer", questions, passages, **options))
