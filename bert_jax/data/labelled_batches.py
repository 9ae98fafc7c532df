"""Labelled text as batches of rows."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grain
import numpy as np

from bert_jax.data.labelled import LabelledExamples
from bert_jax.data.packing import Batch, Placement, assemble, pack
from bert_jax.data.pairs import Examples
from bert_jax.data.pipeline import Batches, State, check_stream, fingerprint_stream, own_rows
from bert_jax.data.reader import SpecialTokens

_TEXTS_AT_ONCE = 1024
_PREFETCHED_BATCHES = 8


class TextEncoding(Protocol):
    """The tokens of one text."""

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def word_starts(self) -> np.ndarray: ...


class Encoder(SpecialTokens, Protocol):
    """What is needed of a `bert_jax.modalities.text.tokenizer.Tokenizer`."""

    def encode_batch(self, texts: list[str]) -> Sequence[TextEncoding]: ...


@dataclass(frozen=True)
class EncodedExamples:
    """Labelled examples as ranges of tokens, each short enough for a row."""

    examples: Examples
    tokens: np.ndarray
    word_starts: np.ndarray
    truncated: int
    """Examples that were longer than a row and lost their end."""

    def rows(self, placement: Placement, own: range, special: SpecialTokens, length: int, per_row: int) -> tuple[Batch, np.ndarray]:
        """The batch of the rows `own`, empty beyond the last one, and the example in each slot, int64 [rows, per_row], -1 for none."""
        inside = np.flatnonzero((placement.rows >= own.start) & (placement.rows < own.stop))
        here = Placement(placement.rows[inside] - own.start, placement.slots[inside], placement.offsets[inside], len(own))
        batch = assemble(self.examples.select(inside), here, self.tokens, self.word_starts, special, length, per_row, "labels")
        indices = np.full((len(own), per_row), -1, np.int64)
        indices[here.rows, here.slots] = inside
        return batch, indices


def encode_examples(examples: LabelledExamples, tokenizer: Encoder, length: int) -> EncodedExamples:
    """Tokenizes labelled examples and cuts them to rows of `length` tokens: of a pair the longer text first, from its end."""
    tokens: list[np.ndarray] = [np.zeros(0, np.int32)]
    word_starts: list[np.ndarray] = [np.zeros(0, np.bool_)]
    sizes: list[int] = []
    truncated = 0
    for start in range(0, len(examples), _TEXTS_AT_ONCE):
        stop = start + _TEXTS_AT_ONCE
        firsts = tokenizer.encode_batch(examples.texts[start:stop])
        seconds = [None] * len(firsts) if examples.pairs is None else tokenizer.encode_batch(examples.pairs[start:stop])
        for first, second in zip(firsts, seconds, strict=True):
            a, b = len(first.ids), 0 if second is None else len(second.ids)
            room = length - 2 - (b > 0)
            kept = min(a, max(room - b, room // 2))
            for text, size in ((first, kept), (second, min(b, room - kept))):
                sizes.append(size)
                if text is not None:
                    tokens.append(text.ids[:size])
                    word_starts.append(text.word_starts[:size])
            truncated += a + b > room
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    a_ranges, b_ranges = np.stack([edges[:-1], edges[1:]], 1).reshape(-1, 2, 2).transpose(1, 0, 2)
    ranges = Examples(a_ranges, b_ranges, examples.targets, np.ones(len(examples), np.float32))
    return EncodedExamples(ranges, np.concatenate(tokens), np.concatenate(word_starts), truncated)


class LabelledBatches(Batches):
    """The training batches of one process, `epochs` times over the examples.

    Attributes:
        steps: batches in all.
        steps_per_epoch: batches in one epoch, the last filled up with empty rows.
        truncated: examples that were cut because they are longer than a row.
    """

    def __init__(self, iterator: "_Epochs", epochs: int):
        super().__init__(iterator, _PREFETCHED_BATCHES)
        self.steps_per_epoch = iterator.steps_per_epoch
        self.steps = epochs * iterator.steps_per_epoch
        self.truncated = iterator.encoded.truncated


class _Epochs(grain.DatasetIterator[Batch]):
    """In every epoch the examples are packed in another order and the rows are shuffled, by (seed, epoch)."""

    def __init__(
        self, encoded: EncodedExamples, special: SpecialTokens, length: int, per_row: int, packing: bool, batch_size: int,
        seed: int, epochs: int, own: slice, stream: str,
    ):  # fmt: skip
        super().__init__()
        self.encoded, self._special, self._length, self._per_row = encoded, special, length, per_row
        self._most = per_row if packing else 1
        self._batch_size, self._seed, self._epochs, self._own = batch_size, seed, epochs, own
        # Best fit decreasing makes as many rows of the same lengths in any order.
        self.steps_per_epoch = -(-pack(encoded.examples.lengths, length, self._most).count // batch_size)
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
        rng = np.random.default_rng((self._seed, epoch))
        order = rng.permutation(len(self.encoded.examples))
        packed = pack(self.encoded.examples.lengths[order], self._length, self._most)
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
) -> LabelledBatches:
    """The training batches of one process: every example once an epoch, in packed rows, with `labels` [B, E, ...].

    Args:
        examples: the training examples.
        tokenizer: encodes their texts, once.
        length: tokens of a row; longer texts are cut and counted.
        examples_per_row: E, the slots of a row; without `packing` only the first is used.
        packing: whether a row holds several examples.
        batch_size: rows of the global batch; this process gets `batch_size / process_count` of them.
        seed: decides the order.
        epochs: how often every example is seen.
        stream: the kind of the task, by which a saved position is known.
        process_index: which process this is, of `process_count`.

    Raises:
        InputError: the processes do not divide the batch.
    """
    own = own_rows(batch_size, process_index, process_count)
    encoded = encode_examples(examples, tokenizer, length)
    return LabelledBatches(_Epochs(encoded, tokenizer, length, examples_per_row, packing, batch_size, seed, epochs, own, stream), epochs)


def labelled_evaluation(
    examples: LabelledExamples, tokenizer: Encoder, length: int, examples_per_row: int, packing: bool, batch_size: int
) -> list[tuple[Batch, np.ndarray]]:
    """All examples once, as global batches of `batch_size` rows, the last filled up with empty rows.

    Returns:
        Pairs of a batch and the index of the example in each slot, int64 [batch_size, examples_per_row], -1 where it is empty.
    """
    encoded = encode_examples(examples, tokenizer, length)
    placement = pack(encoded.examples.lengths, length, examples_per_row if packing else 1)
    starts = range(0, placement.count, batch_size)
    return [encoded.rows(placement, range(start, start + batch_size), tokenizer, length, examples_per_row) for start in starts]
