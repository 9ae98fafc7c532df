"""A trained model in a program: fill blanks, judge whether a sentence follows, embed, classify.

Texts come as one string, a list or any iterable. They are worked on in chunks and, inside a chunk, sorted by length into
rows of a few fixed shapes, so that many different lengths need a handful of compiled programs; the answers come back in
the order of the texts, and no answer depends on what else was asked.
"""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax import model_directory
from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.data.packing import Batch, Placement, assemble, pad_rows
from bert_jax.data.pairs import Examples
from bert_jax.errors import InputError
from bert_jax.model.heads import example_mean
from bert_jax.model_directory import ModelDescription
from bert_jax.tokenizer import Tokenizer
from bert_jax.training.checkpoint import Checkpoints

T = TypeVar("T")

CHUNK = 1024
"""Texts that are sorted and worked on together."""

_SHORTEST_ROW = 16
_ROWS = {"cpu": 8}
_ACCELERATOR_ROWS = 64
"""Rows that a device takes at once, unless one is all there is. Empty rows cost a CPU as much time as others, and a GPU hardly any."""
_MASK_SLOTS = 32
"""Masked positions that go through the vocabulary head at once."""


class TextError(InputError):
    """One of the given texts cannot be worked on: `problem` is what is wrong with text number `index` (from 0)."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(f"Text {index} (counted from 0) {problem}")
        self.index, self.problem = index, problem


class TruncationWarning(UserWarning):
    """Texts were longer than the model's positions and were cut."""


@dataclass(frozen=True)
class Prediction:
    """A token that may stand in a blank."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class Classification:
    """The likeliest class of a text, and the probability of each."""

    label: str
    probability: float
    probabilities: dict[str, float]


def load(path: str | Path, compute: ComputeConfig | None = None) -> "Bert":
    """The model in the directory of a stage, such as `runs/demo/pretrain` or `runs/demo/finetune`.

    Of a pre-trained model the newest checkpoint is taken, of a classifier the best. The parameters are placed whole on
    each local device, whatever devices they were trained on.

    Raises:
        InputError: there is no model in the directory (naming those below it), no checkpoint, or one that does not fit.
    """
    directory = Path(path).expanduser()
    description, tokenizer = model_directory.read(directory)
    model = description.build(tokenizer.vocab_size, compute or ComputeConfig())
    mesh = Mesh(np.array(jax.local_devices()), ("data",))
    field = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    names = ("tokens", "positions", "segments", "example_ids", "cls_positions", "masked_positions")
    shapes = jax.eval_shape(model.init, jax.random.key(0), dict.fromkeys(names, field))["params"]
    whole = NamedSharding(mesh, PartitionSpec())
    checkpoints = Checkpoints(directory / "checkpoints", keep=None, alone=True)
    try:
        step = checkpoints.best() if description.kind == "classification" else checkpoints.latest
        params = checkpoints.restore_params(jax.tree.map(lambda leaf: leaf.update(sharding=whole), shapes), step)
    finally:
        checkpoints.close()
    return Bert(description, tokenizer, model, params, mesh)


# Sends a batch (as given, and as placed on the devices) to the devices; what it returns waits for an answer per row.
Work = Callable[[Batch, Any], Callable[[], Iterable[T]]]


class Bert:
    """A trained model, as `bert_jax.load` gives it.

    A pre-trained model has `fill_mask` and, if it learned the task, `next_sentence`; a classifier has `classify`; both have
    `embed`. A method that the model does not have raises InputError. A text that is too long for the model is cut, with a
    `TruncationWarning`; `truncated` counts them since loading.

    Attributes:
        params: the parameters, a tree of arrays.
        config: the architecture.
        tokenizer: text to token ids and back.
        labels: the classes of a classifier; empty for a pre-trained model.
        truncated: texts that were cut.
    """

    def __init__(self, description: ModelDescription, tokenizer: Tokenizer, model: Any, params: Any, mesh: Mesh) -> None:
        """Wrap a model; `load` is the way to get one. The mesh has one axis, over which rows are cut."""
        self.params = params
        self.config: EncoderConfig = description.encoder
        self.tokenizer = tokenizer
        self.labels = description.labels
        self.truncated = 0
        self._description = description
        self._mesh = mesh
        self._rows = mesh.size * _ROWS.get(mesh.devices.flat[0].platform, _ACCELERATOR_ROWS)
        self._model = model

    @overload
    def fill_mask(self, texts: str, top_k: int = 5) -> list[list[Prediction]]: ...
    @overload
    def fill_mask(self, texts: Iterable[str], top_k: int = 5) -> list[list[list[Prediction]]]: ...
    def fill_mask(self, texts: str | Iterable[str], top_k: int = 5) -> list[list[Prediction]] | list[list[list[Prediction]]]:
        """The likeliest tokens at each `[MASK]` of a text, the likeliest first; every mask for itself, the others unknown.

        Returns:
            For one text a list of predictions for each of its masks, from left to right; for many a list of these. A long
            text is cut around its masks.

        Raises:
            InputError: a classifier, no [MASK] in a text, an empty text, masks too far apart, or an impossible `top_k`.
        """
        self._require("pretraining", "fill_mask")
        if not 1 <= top_k <= self.tokenizer.vocab_size:
            raise InputError(f"top_k={top_k} is not possible: it takes 1 to {self.tokenizer.vocab_size}, the size of the vocabulary.")

        def finish(batch: Batch, hidden: jax.Array) -> Callable[[], list[list[list[Prediction]]]]:
            rows, columns = np.nonzero(batch["tokens"] == self.tokenizer.mask_id)
            found = [
                _predict(
                    self._model, self.params, hidden, *(_filled(part[start : start + _MASK_SLOTS]) for part in (rows, columns)), top_k=top_k
                )
                for start in range(0, len(rows), _MASK_SLOTS)
            ]
            return lambda: self._predictions(rows, len(hidden), found)

        return self._answers(texts, None, self._on_hidden(finish), covered=True)

    @overload
    def next_sentence(self, a: str, b: str) -> float: ...
    @overload
    def next_sentence(self, a: Iterable[str], b: Iterable[str]) -> list[float]: ...
    def next_sentence(self, a: str | Iterable[str], b: str | Iterable[str]) -> float | list[float]:
        """The probability that B follows A (for a model of sentence order: that they are not swapped).

        Raises:
            InputError: a classifier, a model that was trained without the task, an empty text, or lists of two lengths.
        """
        self._require("pretraining", "next_sentence")
        if self._description.next_sentence == "none":
            raise InputError(
                "This model was pre-trained without the next-sentence task (pretrain.rows.next_sentence='none'), so it cannot tell "
                "whether a sentence follows. Load a model that was trained with 'nsp' or 'sop'."
            )

        def finish(batch: Batch, hidden: jax.Array) -> Callable[[], list[float]]:
            found = _follows(self._model, self.params, hidden, batch["cls_positions"])
            return lambda: np.asarray(found).tolist()

        return self._answers(a, b, self._on_hidden(finish))

    def embed(self, texts: str | Iterable[str], pooling: Literal["mean", "cls"] = "mean") -> np.ndarray:
        """Vectors of texts from the last layer: the mean over all their tokens, [CLS] and [SEP] included, or that of [CLS].

        Returns:
            float32 [texts, width]; [width] for a single text.

        Raises:
            InputError: an empty text or another pooling.
        """
        if pooling not in ("mean", "cls"):
            raise InputError(f"pooling={pooling!r} is not possible: it is one of mean and cls.")

        def finish(batch: Batch, hidden: jax.Array) -> Callable[[], Iterable[np.ndarray]]:
            found = _pool(hidden, batch["example_ids"], pooling=pooling)
            return lambda: np.asarray(found)

        vectors = self._answers(texts, None, self._on_hidden(finish))
        return np.asarray(vectors, np.float32).reshape((self.config.width,) if isinstance(texts, str) else (-1, self.config.width))

    @overload
    def classify(self, texts: str, pairs: str | None = None) -> Classification: ...
    @overload
    def classify(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[Classification]: ...
    def classify(self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None) -> Classification | list[Classification]:
        """The class of each text, or of each text with its pair.

        Raises:
            InputError: a model that is not a classifier, an empty text, or lists of two lengths.
        """
        self._require("classification", "classify")

        def work(batch: Batch, placed: Any) -> Callable[[], list[Classification]]:
            found = _class_probabilities(self._model, self.params, placed)
            return lambda: [self._classification(row) for row in np.asarray(found)]

        return self._answers(texts, pairs, work)

    def _require(self, kind: str, method: str) -> None:
        if self._description.kind != kind:
            wanted, stage = ("a pre-trained model", "pretrain") if kind == "pretraining" else ("a classifier", "finetune")
            raise InputError(f"{method} takes {wanted}, which this is not: load one, such as runs/demo/{stage}.")

    def _predictions(self, rows: np.ndarray, count: int, found: list[Any]) -> list[list[list[Prediction]]]:
        """The device's answers at all masks of a batch, dealt out to the rows they are in."""
        dealt: list[list[list[Prediction]]] = [[] for _ in range(count)]
        slots = ((p, i) for part in found for p, i in zip(*(np.asarray(array).tolist() for array in part), strict=True))
        for row, (probabilities, ids) in zip(rows.tolist(), slots, strict=False):
            tokens = self.tokenizer.tokens(ids)
            dealt[row].append([Prediction(*fields) for fields in zip(tokens, ids, probabilities, strict=True)])
        return dealt

    def _classification(self, probabilities: np.ndarray) -> Classification:
        by_label = dict(zip(self.labels, probabilities.tolist(), strict=True))
        best = max(by_label, key=by_label.__getitem__)
        return Classification(best, by_label[best], by_label)

    def _on_hidden(self, finish: Callable[[Batch, jax.Array], Callable[[], Iterable[T]]]) -> Work[T]:
        return lambda batch, placed: finish(batch, _encode(self._model, self.params, placed))

    def _answers(self, texts: str | Iterable[str], pairs: str | Iterable[str] | None, work: Work[Any], covered: bool = False) -> Any:
        """What `work` makes of every text, in order; for a single text its answer alone."""
        if isinstance(texts, str) or isinstance(pairs, str):
            if not (isinstance(texts, str) and isinstance(pairs, str | None)):
                raise InputError("One text and many cannot be paired: give two texts, or two lists of the same length.")
            return self._answers([texts], None if pairs is None else [pairs], work, covered)[0]
        answers: list[Any] = []
        truncated = self.truncated
        for first, chunk in _chunks(texts, pairs):
            answers += self._chunk(*chunk, first, work, covered)
        if self.truncated > truncated:
            warnings.warn(
                f"{self.truncated - truncated:,} of {len(answers):,} texts are longer than the model's {self.config.max_positions} "
                "positions and were cut.",
                TruncationWarning,
                stacklevel=3,
            )
        return answers

    def _chunk(self, texts: list[str], pairs: list[str] | None, first: int, work: Work[T], covered: bool) -> list[T]:
        examples, tokens = self._examples(texts, pairs, first, covered)
        # Everything is sent to the devices before the first answer is waited for.
        pending = []
        for indices, length, rows in _shapes(examples.lengths, self.config.max_positions, self._mesh.size, self._rows):
            batch = self._batch(examples, tokens, indices, length, rows)
            placed = jax.device_put(batch, NamedSharding(self._mesh, PartitionSpec("data")))
            pending.append((indices, work(batch, placed)))
        answers = {index: answer for indices, finish in pending for index, answer in zip(indices.tolist(), finish(), strict=False)}
        return [answers[index] for index in range(len(texts))]

    def _examples(self, texts: list[str], pairs: list[str] | None, first: int, covered: bool) -> tuple[Examples, np.ndarray]:
        """The texts as ranges of one array of tokens, cut to the model's positions."""
        _check(texts, first)
        _check(pairs or [], first)
        flat = self.tokenizer.encode_flat([*texts, *(pairs or [])])
        ends = np.cumsum(flat.lengths)
        ranges = np.stack([ends - flat.lengths, ends], 1)
        count = len(texts)
        for index in np.nonzero(flat.lengths == 0)[0]:
            raise TextError(first + int(index) % count, "is empty: it holds nothing that can be read. Leave it out.")
        a, b = ranges[:count], ranges[count:] if pairs else np.zeros_like(ranges)
        capacity = self.config.max_positions - (3 if pairs else 2)
        before = a[:, 1] - a[:, 0] + b[:, 1] - b[:, 0]
        if covered:
            self._cut_around_masks(a, flat.ids, capacity, first)
        else:
            _cut_the_longer(a, b, capacity)
        self.truncated += int((before > capacity).sum())
        return Examples(a, b, np.zeros(count, np.int32), np.ones(count, np.float32)), flat.ids

    def _cut_around_masks(self, a: np.ndarray, tokens: np.ndarray, capacity: int, first: int) -> None:
        masks = np.nonzero(tokens == self.tokenizer.mask_id)[0]
        for index, (begin, end) in enumerate(a.tolist()):
            own = masks[np.searchsorted(masks, begin) : np.searchsorted(masks, end)]
            if not len(own):
                raise TextError(first + index, "has no [MASK]: write [MASK] where a token is to be filled in.")
            if end - begin <= capacity:
                continue
            start = int(np.clip((own[0] + own[-1]) // 2 - capacity // 2, begin, end - capacity))
            if own[0] < start or own[-1] >= start + capacity:
                positions = self.config.max_positions
                raise TextError(first + index, f"has masks too far apart for the model's {positions} positions: shorten it or cover fewer.")
            a[index] = start, start + capacity

    def _batch(self, examples: Examples, tokens: np.ndarray, indices: np.ndarray, length: int, rows: int) -> Batch:
        """One example a row, in the one batch shape."""
        zeros = np.zeros(len(indices), np.int64)
        placement = Placement(np.arange(len(indices)), zeros, zeros, len(indices))
        word_starts = np.ones(len(tokens), np.bool_)  # which only masking reads
        batch = assemble(examples.select(indices), placement, tokens, word_starts, self.tokenizer, length, 1, "labels")
        return pad_rows(batch, rows, self.tokenizer.pad_id)


# Compiled once for each architecture and shape, whatever the parameters: two models of one kind share the programs.


@partial(jax.jit, static_argnames="model")
def _encode(model: Any, params: Any, batch: Any) -> jax.Array:
    """Hidden states [B, L, D]."""
    return model.apply({"params": params}, batch, method="encode")[0]


@partial(jax.jit, static_argnames="pooling")
def _pool(hidden: jax.Array, example_ids: jax.Array, pooling: str) -> jax.Array:
    """[B, L, D] -> float32 [B, D]."""
    return hidden[:, 0].astype(jnp.float32) if pooling == "cls" else example_mean(hidden, example_ids, 1)[:, 0]


@partial(jax.jit, static_argnames=("model", "top_k"))
def _predict(model: Any, params: Any, hidden: jax.Array, rows: jax.Array, columns: jax.Array, top_k: int) -> tuple[jax.Array, jax.Array]:
    """Probabilities float32 [S, top_k] and token ids int32 [S, top_k] at S places of [B, L, D]."""
    scores = model.apply({"params": params}, hidden[rows, columns], method="masked_token_scores")
    return jax.lax.top_k(jax.nn.softmax(scores, axis=-1), top_k)


@partial(jax.jit, static_argnames="model")
def _follows(model: Any, params: Any, hidden: jax.Array, cls_positions: jax.Array) -> jax.Array:
    """The probability float32 [B] that B follows A."""
    scores = model.apply({"params": params}, hidden, cls_positions, method="next_sentence_scores")
    return jax.nn.softmax(scores, axis=-1)[:, 0, 1]


@partial(jax.jit, static_argnames="model")
def _class_probabilities(model: Any, params: Any, batch: Any) -> jax.Array:
    """Float32 [B, C]."""
    return jax.nn.softmax(model.apply({"params": params}, batch)[:, 0], axis=-1)


def _filled(places: np.ndarray) -> np.ndarray:
    return np.pad(places, (0, _MASK_SLOTS - len(places))).astype(np.int32)


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


def _check(texts: list[Any], first: int) -> None:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextError(first + index, f"is not a text but {type(text).__name__}: give strings.")


def _cut_the_longer(a: np.ndarray, b: np.ndarray, capacity: int) -> None:
    """Shortens pairs [n, 2] of ranges at their ends, the longer of the two first, to `capacity` tokens together."""
    a_length, b_length = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    kept = np.minimum(a_length, np.maximum(capacity - b_length, capacity // 2))
    a[:, 1] = a[:, 0] + kept
    b[:, 1] = b[:, 0] + np.minimum(b_length, capacity - kept)


def _shapes(lengths: np.ndarray, longest: int, least: int, most: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Cuts examples into batches: the indices of each batch, its row length, and its rows, which are `least` or `most`.

    Row lengths are powers of two up to `longest`.
    """
    rows = least if len(lengths) <= least else most
    buckets = np.minimum(np.maximum(_SHORTEST_ROW, 1 << np.ceil(np.log2(lengths)).astype(np.int64)), longest)
    for length in np.unique(buckets).tolist():
        members = np.flatnonzero(buckets == length)
        for start in range(0, len(members), rows):
            yield members[start : start + rows], length, rows
