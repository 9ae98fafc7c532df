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
from bert_jax.data.queries import Queries, cover_one_by_one, encode_queries
from bert_jax.errors import InputError, TextError
from bert_jax.inference import embedding
from bert_jax.inference.answers import Classification, Prediction, allowed_answers
from bert_jax.inference.forward import Finish, Forward, one_ahead
from bert_jax.modalities.base import Modality
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import ModelDescription
from bert_jax.model.pooling import pooling_modes
from bert_jax.storage.files import resolve_path
from bert_jax.training.checkpoints.loading import load_parameters

T = TypeVar("T")

CHUNK = 2048
"""Texts that are packed and sent to the devices together."""

_SCORED_BATCHES = 32
"""Batches that the copies of texts to be scored fill at once."""

_NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fill_mask": ("pretraining", ("masked_token",)),
    "score": ("pretraining", ("masked_token",)),
    "next_sentence": ("pretraining", ("pooler", "next_sentence")),
    "classify": ("classification", ("pooler", "classifier")),
    "embed": ("", ()),
}
"""The kind of model, if it must be one, and the heads that each method needs."""

_ONE_SEGMENT_TYPE = (
    "This model has one segment type (encoder.segment_types=1), so it cannot tell sentence B from A. Load one with two to ask about pairs."
)


class TruncationWarning(UserWarning):
    """Texts were longer than the model's positions and were cut."""


class UnusedTensorsWarning(UserWarning):
    """A model from elsewhere has tensors that no part of ours takes."""


def load(path: str | Path, compute: ComputeConfig | None = None, modalities: Sequence[Modality[Any, Any]] = ()) -> "Bert":
    """A model, ready to use: the directory of a stage, such as `runs/demo/pretrain`, or a model from elsewhere.

    Of a pre-trained model the newest checkpoint is taken, of a classifier the best. From elsewhere comes what
    `python -m bert_jax import` reads: a Hugging Face directory, a name on its hub, Google's TensorFlow checkpoints. The
    parameters are placed whole on each local device, whatever devices they were trained on.

    Args:
        path: of the model.
        compute: how it is computed.
        modalities: others than those of this package that it may be of.

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
        directory = resolve_path(path)
        description, tokenizer = model_directory.read(directory, modalities)
        shapes = model_directory.parameter_shapes(description, tokenizer.vocab_size)
        shapes = jax.tree.map(lambda leaf: leaf.update(sharding=whole), shapes)
        params = load_parameters(directory, shapes, model_directory.identity(description, tokenizer), alone=True)
    model = description.build(tokenizer.vocab_size, compute or ComputeConfig())
    return Bert(description, tokenizer, model, params, mesh)


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

    def __init__(self, description: ModelDescription, tokenizer: Tokenizer, model: Any, params: Any, mesh: Mesh) -> None:
        """Wrap a model; `load` is the way to get one. The mesh has one axis, over which rows are cut."""
        self.config: EncoderConfig = description.encoder
        self.tokenizer = tokenizer
        self.labels = description.labels
        self.truncated = 0
        self._description = description
        self._forward = Forward(model, params, tokenizer, mesh)

    @property
    def params(self) -> Any:
        """The parameters, a tree of arrays."""
        return self._forward.params

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
        self._require("fill_mask")
        if not 1 <= top_k <= self.tokenizer.vocab_size:
            raise InputError(f"top_k={top_k} is not possible: it takes 1 to {self.tokenizer.vocab_size}, the size of the vocabulary.")
        allowed = allowed_answers(self.tokenizer, words, self._description.spare_rows)
        most = min(top_k, int(allowed.sum()))

        def start(queries: Queries) -> Finish[list[list[list[Prediction]]]]:
            finish = self._forward.likeliest(queries, allowed, most)
            return lambda: self._predictions(queries, *finish())

        return _flat(texts, self._ask(texts, None, start, covered=True))

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
        self._require("score")
        tokenizer, forward = self.tokenizer, self._forward
        uncounted = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
        at_once = _SCORED_BATCHES * forward.shapes.devices * forward.shapes.tokens

        def sums(count: int, texts: np.ndarray, copies: Queries) -> Finish[np.ndarray]:
            finish = forward.log_probabilities(copies)
            return lambda: np.bincount(texts, finish(), count)

        def start(queries: Queries) -> Finish[list[float]]:
            count = len(queries.examples)
            started = (sums(count, *copied) for copied in cover_one_by_one(queries, uncounted, at_once))
            total: np.ndarray = sum(one_ahead(started), np.zeros(count))
            return total.tolist

        return _flat(texts, self._ask(texts, None, start))

    @overload
    def next_sentence(self, a: str, b: str) -> float: ...
    @overload
    def next_sentence(self, a: Iterable[str], b: Iterable[str]) -> list[float]: ...
    def next_sentence(self, a: str | Iterable[str], b: str | Iterable[str]) -> float | list[float]:
        """The probability that B follows A (for a model of sentence order: that they are not swapped).

        Raises:
            InputError: a model without the head, the task or a second segment type, an empty text, or lists of two lengths.
        """
        self._require("next_sentence")

        def start(queries: Queries) -> Finish[list[float]]:
            finish = self._forward.follows(queries)
            return lambda: finish().tolist()

        return _flat(a, self._ask(a, b, start))

    @property
    def prompts(self) -> dict[str, str]:
        """The texts by name that `embed` can put before each text."""
        return dict(self._description.embedding.prompts)

    @property
    def embedding_length(self) -> int:
        """The tokens, [CLS] and [SEP] among them, to which `embed` cuts a text."""
        return embedding.text_length(self._description)

    def vector_size(self, pooling: str | None = None) -> int:
        """How many numbers a vector of `embed` with this pooling has."""
        return embedding.vector_size(self._description, self._description.embedding.pooling if pooling is None else pooling)

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
        settings = self._description.embedding
        pooling = settings.pooling if pooling is None else pooling
        modes = pooling_modes(pooling)
        states = self.config.layers + 1
        if not -states <= layer < states:
            raise InputError(f"layer={layer} is not possible: it takes 0, the embeddings, to {states - 1} or -1, the last layer.")
        below = layer % states if layer % states < states - 1 else None
        before, length = embedding.chosen_prompt(settings, prompt, prompt_name), self.embedding_length
        skipped = embedding.uncounted_tokens(settings, before, self.tokenizer, length)

        def start(queries: Queries) -> Finish[np.ndarray]:
            return self._forward.vectors(queries, modes, below, skipped)

        found = self._ask(embedding.with_prompt(before, texts), None, start, most_tokens=length)
        vectors = np.concatenate([np.zeros((0, self.config.width * len(modes)), np.float32), *found])
        vectors = embedding.finished(vectors, settings, self.vector_size(pooling), normalize)
        return vectors[0] if isinstance(texts, str) else vectors

    @overload
    def classify(self, texts: str, pairs: str | None = None) -> Classification: ...
    @overload
    def classify(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[Classification]: ...
    def classify(self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None) -> Classification | list[Classification]:
        """The class of each text, or of each text with its pair.

        Raises:
            InputError: a model that is not a classifier, pairs for one with a single segment type, an empty text, or lists of two lengths.
        """
        self._require("classify")

        def start(queries: Queries) -> Finish[list[Classification]]:
            finish = self._forward.classes(queries)
            return lambda: self._classifications(finish())

        return _flat(texts, self._ask(texts, pairs, start))

    def _require(self, method: str) -> None:
        if fault := self._fault(method):
            possible = " and ".join(other for other in _NEEDS if not self._fault(other))
            raise InputError(f"{fault} This model can {possible}.")

    def _fault(self, method: str) -> str:
        """Why the model does not have the method."""
        kind, parts = _NEEDS[method]
        if kind and self._description.kind != kind:
            wanted, stage = ("a pre-trained model", "pretrain") if kind == "pretraining" else ("a classifier", "finetune")
            return f"{method} takes {wanted}, which this is not: load one, such as runs/demo/{stage}."
        if absent := [part for part in parts if part in self._description.absent]:
            return (
                f"{method} needs {' and '.join(absent)}, which this model's checkpoint does not hold: import the model with "
                "--initialize-missing to start the head from random numbers, then train it."
            )
        if method == "next_sentence" and self._description.next_sentence == "none":
            return (
                "This model was pre-trained without the next-sentence task (pretrain.rows.next_sentence='none'), so it cannot tell "
                "whether a sentence follows. Load a model that was trained with 'nsp' or 'sop'."
            )
        if method == "next_sentence" and self.config.segment_types == 1:
            return _ONE_SEGMENT_TYPE
        return ""

    def _predictions(self, queries: Queries, probabilities: np.ndarray, ids: np.ndarray) -> list[list[list[Prediction]]]:
        """The predictions [masks, top_k] of each text."""
        masks, most = ids.shape
        flat = ids.ravel().tolist()
        made = [Prediction(*fields) for fields in zip(self.tokenizer.tokens(flat), flat, probabilities.ravel().tolist(), strict=True)]
        columns = iter([made[start : start + most] for start in range(0, masks * most, most)])
        return [list(itertools.islice(columns, count)) for count in np.bincount(queries.owners).tolist()]

    def _classifications(self, probabilities: np.ndarray) -> list[Classification]:
        best = probabilities.argmax(1).tolist()
        rows = zip(best, probabilities.tolist(), strict=True)
        return [Classification(self.labels[top], row[top], dict(zip(self.labels, row, strict=True))) for top, row in rows]

    def _ask(
        self,
        texts: str | Iterable[str],
        pairs: str | Iterable[str] | None,
        start: Callable[[Queries], Finish[T]],
        covered: bool = False,
        most_tokens: int = 0,
    ) -> list[T]:
        """What `start` makes of each chunk of texts, the next chunk being sent to the devices before it is waited for.

        Args:
            covered: texts are asked about their [MASK]s, around which they are cut.
            most_tokens: cuts texts to fewer than the model's positions; 0 does not.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            if not (isinstance(texts, str) and isinstance(pairs, str | None)):
                raise InputError("One text and many cannot be paired: give two texts, or two lists of the same length.")
            texts, pairs = [texts], None if pairs is None else [pairs]
        if pairs is not None and self.config.segment_types == 1:
            # The lookup would take row 0 for segment 1, and the answer would be a number that nothing was trained to give.
            raise InputError(_ONE_SEGMENT_TYPE)
        positions = min(self.config.max_positions, most_tokens or self.config.max_positions)
        truncated, count = self.truncated, 0

        def started() -> Iterator[Finish[T]]:
            nonlocal count
            for first, (some, theirs) in _chunks(texts, pairs):
                try:
                    queries = encode_queries(some, theirs, self.tokenizer, positions, covered)
                except TextError as error:
                    raise TextError(first + error.index, error.problem) from None
                self.truncated += queries.truncated
                count = first + len(some)
                yield start(queries)

        found = list(one_ahead(started()))
        if self.truncated > truncated:
            warnings.warn(
                f"{self.truncated - truncated:,} of {count:,} texts are longer than the {positions} tokens that the model takes "
                "and were cut.",
                TruncationWarning,
                stacklevel=3,
            )
        return found


def _flat(texts: str | Iterable[str], chunks: Iterable[Sequence[Any]]) -> Any:
    """The answers of all chunks; for a single text its answer alone."""
    answers = list(itertools.chain.from_iterable(chunks))
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
