"""Batches of tokenized labelled text, for fine-tuning and evaluation."""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grain
import numpy as np

from bert_jax.data.grouped import fewest_batches, place
from bert_jax.data.labelled import LabelledExamples
from bert_jax.data.packing import Batch, Placement, assemble, pack
from bert_jax.data.pairs import Examples
from bert_jax.data.pipeline import Batches, State, check_stream, fingerprint_stream, own_rows
from bert_jax.data.reader import EncodedQuery, SpecialTokens
from bert_jax.errors import InputError, TextError

_TEXTS_PER_CALL = 1024
_PREFETCHED_BATCHES = 8


class Encoder(SpecialTokens, Protocol):
    """The part of the interface of `bert_jax.data.reader.Reader` that this module uses."""

    def encode_batch(self, queries: Sequence[Any], /) -> Sequence[EncodedQuery]: ...


@dataclass(frozen=True)
class EncodedExamples:
    """Labelled examples as ranges of tokens, each short enough to fit in a row."""

    examples: Examples
    tokens: np.ndarray
    word_starts: np.ndarray
    truncated: int
    """Number of examples that were longer than a row and were truncated at the end."""
    units: np.ndarray | None = None
    """[t, U]: the unit of each token, if the modality has units."""
    token_labels: np.ndarray | None = None
    """int32 [t]: the label of each token, -1 for none; for tasks that label tokens, not examples."""
    items: np.ndarray | None = None
    """int64 [t]: for such tasks, what each token's label belongs to, such as the index of its word in the data; -1 for nothing."""

    def rows(self, placement: Placement, own: range, special: SpecialTokens, length: int, per_row: int) -> tuple[Batch, np.ndarray]:
        """Return the batch of the rows in `own`, and what each of the model's outputs is about.

        Rows past the last one of the placement are empty.

        Returns:
            The batch, and the example in each slot, int64 [rows, per_row], or the item of each token, int64 [rows, L]; -1 for none.
        """
        inside = np.flatnonzero((placement.rows >= own.start) & (placement.rows < own.stop))
        here = Placement(placement.rows[inside] - own.start, placement.slots[inside], placement.offsets[inside], len(own))
        chosen = self.examples.select(inside)

        def assembled(token_labels: np.ndarray | None) -> Batch:
            return assemble(chosen, here, self.tokens, self.word_starts, special, length, per_row, "labels", self.units, token_labels)

        batch = assembled(self.token_labels)
        if self.items is not None:
            return batch, assembled(self.items)["labels"]
        indices = np.full((len(own), per_row), -1, np.int64)
        indices[here.rows, here.slots] = inside
        return batch, indices


EncodeExamples: TypeAlias = Callable[[LabelledExamples, Any, int], EncodedExamples]
"""Tokenizes labelled examples for rows of so many tokens; the second argument is the `bert_jax.data.reader.Reader`."""


def encode_examples(examples: LabelledExamples, tokenizer: Encoder, length: int) -> EncodedExamples:
    """Tokenize labelled examples and truncate them to `length` tokens; the longer text of a pair is truncated first, at its end.

    Raises:
        InputError: an input of a modality other than text cannot be read.
    """
    tokens: list[np.ndarray] = [np.zeros(0, np.int32)]
    word_starts: list[np.ndarray] = [np.zeros(0, np.bool_)]
    units: list[np.ndarray] = []
    sizes: list[int] = []
    truncated = 0
    for start in range(0, len(examples), _TEXTS_PER_CALL):
        stop = start + _TEXTS_PER_CALL
        firsts = _encoded(examples.texts[start:stop], tokenizer)
        pairs = examples.pairs
        seconds: Sequence[EncodedQuery | None] = [None] * len(firsts) if pairs is None else _encoded(pairs[start:stop], tokenizer)
        for first, second in zip(firsts, seconds, strict=True):
            a, b = len(first.ids), 0 if second is None else len(second.ids)
            capacity = length - 2 - (b > 0)
            kept = min(a, max(capacity - b, capacity // 2))
            for text, size in ((first, kept), (second, min(b, capacity - kept))):
                sizes.append(size)
                if text is not None:
                    tokens.append(text.ids[:size])
                    word_starts.append(text.word_starts[:size])
                    units += [] if text.units is None else [text.units[:size]]
            truncated += a + b > capacity
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    a_ranges, b_ranges = np.stack([edges[:-1], edges[1:]], 1).reshape(-1, 2, 2).transpose(1, 0, 2)
    ranges = Examples(a_ranges, b_ranges, examples.targets, np.ones(len(examples), np.float32))
    joined = np.concatenate(units) if units else None
    return EncodedExamples(ranges, np.concatenate(tokens), np.concatenate(word_starts), truncated, joined)


def _encoded(inputs: Sequence[Any], tokenizer: Encoder) -> Sequence[EncodedQuery]:
    try:
        return tokenizer.encode_batch(inputs)
    except TextError as error:
        raise InputError(f"The {error.noun} {inputs[error.index]} {error.problem} Repair it, or remove it from the labeled data.") from None


class LabelledBatches(Batches):
    """The training batches of one process, for `epochs` passes over the examples.

    Attributes:
        steps: total number of batches.
        steps_per_epoch: number of batches in one epoch; the last is padded with empty rows.
        truncated: number of examples that were truncated because they are longer than a row.
        filling_examples: number of examples per row that would fill rows, if the maximum leaves them less than 85% full, else 0.
    """

    def __init__(self, iterator: "_Epochs", epochs: int):
        super().__init__(iterator, _PREFETCHED_BATCHES)
        self.steps_per_epoch = iterator.steps_per_epoch
        self.steps = epochs * iterator.steps_per_epoch
        self.truncated = iterator.encoded.truncated
        self.filling_examples = iterator.filling_examples


class _Epochs(grain.DatasetIterator[Batch]):
    """Repacks the examples in a new order and shuffles the rows in every epoch, as a function of (seed, epoch)."""

    def __init__(
        self, encoded: EncodedExamples, special: SpecialTokens, length: int, per_row: int, packing: bool, batch_size: int,
        seed: int, epochs: int, own: slice, stream: str, together: int,
    ):  # fmt: skip
        super().__init__()
        self.encoded, self._special, self._length, self._per_row = encoded, special, length, per_row
        self._max_examples, self._together = per_row if packing else 1, together
        self._batch_size, self._seed, self._epochs, self._own = batch_size, seed, epochs, own
        lengths = encoded.examples.lengths
        if together > 1:
            seeds = [(seed, epoch) for epoch in range(epochs)]
            self.steps_per_epoch = fewest_batches(lengths, together, length, self._max_examples, batch_size, seeds)
        else:
            # The number of rows from best-fit decreasing depends on the lengths but not on their order.
            self.steps_per_epoch = -(-pack(lengths, length, self._max_examples).count // batch_size)
        filling = math.ceil(length / max(lengths.mean(), 1))
        self.filling_examples = filling if packing and together == 1 and per_row < 0.85 * filling else 0
        self._fingerprint = fingerprint_stream(
            stream, zlib.crc32(encoded.tokens.tobytes()), zlib.crc32(encoded.examples.labels.tobytes()),
            len(encoded.examples), length, per_row, packing, batch_size, seed,
        )  # fmt: skip
        self._epoch = self._batch = 0
        self._placed: tuple[int, Placement] | None = None

    def __next__(self) -> Batch:
        if self._epoch >= self._epochs:
            raise StopIteration
        if self._placed is None or self._placed[0] != self._epoch:
            self._placed = self._epoch, self._place(self._epoch)
        own = range(self._batch * self._batch_size, (self._batch + 1) * self._batch_size)[self._own]
        batch, _ = self.encoded.rows(self._placed[1], own, self._special, self._length, self._per_row)
        epochs, self._batch = divmod(self._batch + 1, self.steps_per_epoch)
        self._epoch += epochs
        return batch

    def _place(self, epoch: int) -> Placement:
        lengths, seed = self.encoded.examples.lengths, (self._seed, epoch)
        if self._together > 1:
            placed = place(lengths, self._together, self._length, self._max_examples, self._batch_size, self.steps_per_epoch, seed)
            assert placed
            return placed
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(lengths))
        packed = pack(lengths[order], self._length, self._max_examples)
        rows, slots, offsets = (np.empty_like(order) for _ in range(3))
        rows[order], slots[order], offsets[order] = rng.permutation(packed.count)[packed.rows], packed.slots, packed.offsets
        return Placement(rows, slots, offsets, packed.count)

    def get_state(self) -> State:
        return {"stream": self._fingerprint, "epoch": self._epoch, "batch": self._batch}

    def set_state(self, state: dict[str, Any]) -> None:
        check_stream(state, self._fingerprint)
        self._epoch, self._batch = state["epoch"], state["batch"]


def labelled_batches(
    examples: LabelledExamples,
    tokenizer: Encoder,
    length: int,
    examples_per_row: int,
    packing: bool,
    batch_size: int,
    seed: int,
    epochs: int,
    stream: str,
    process_index: int = 0,
    process_count: int = 1,
    encode: EncodeExamples = encode_examples,
    together: int = 1,
) -> LabelledBatches:
    """Return the training batches of one process: every example once per epoch, in packed rows, with `labels` [B, E, ...].

    Args:
        examples: the training examples.
        tokenizer: encodes the texts, once.
        length: tokens per row; longer texts are truncated and counted.
        examples_per_row: E, the number of slots per row; only the first is used without `packing`.
        packing: whether a row may hold several examples.
        batch_size: rows in the global batch; this process gets `batch_size / process_count` of them.
        seed: determines the order of the examples.
        epochs: number of passes over the examples.
        stream: the kind of task; part of the fingerprint that a saved position is checked against.
        process_index: index of this process.
        process_count: number of processes.
        encode: tokenizes the examples.
        together: so many consecutive examples belong together and are in the same batch.

    Raises:
        InputError: `batch_size` is not divisible by the number of processes, or is too small for examples that belong together.
    """
    own = own_rows(batch_size, process_index, process_count)
    encoded = encode(examples, tokenizer, length)
    iterator = _Epochs(encoded, tokenizer, length, examples_per_row, packing, batch_size, seed, epochs, own, stream, together)
    return LabelledBatches(iterator, epochs)


def labelled_evaluation(
    examples: LabelledExamples, tokenizer: Encoder, length: int, examples_per_row: int, packing: bool, batch_size: int,
    encode: EncodeExamples = encode_examples, together: int = 1,
) -> list[tuple[Batch, np.ndarray]]:
    """Return every example once, in global batches of `batch_size` rows; the last batch is padded with empty rows.

    Arguments as in `labelled_batches`.

    Returns:
        Pairs of a batch and what its outputs are about; see `EncodedExamples.rows`.
    """  # fmt: skip
    encoded = encode(examples, tokenizer, length)
    lengths, per_row = encoded.examples.lengths, examples_per_row if packing else 1
    if together > 1:
        batches = fewest_batches(lengths, together, length, per_row, batch_size, [(0,)])
        placed = place(lengths, together, length, per_row, batch_size, batches, (0,))
        assert placed
        placement = placed
    else:
        placement = pack(lengths, length, per_row)
    starts = range(0, placement.count, batch_size)
    return [encoded.rows(placement, range(start, start + batch_size), tokenizer, length, examples_per_row) for start in starts]
