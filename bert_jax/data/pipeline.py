"""Turn documents into an endless stream of batches that can be stopped and resumed at any step, on any number of processes.

The unit is the *block*: consecutive documents of an epoch's global shuffle, which are converted to about 64 rows
independently of other blocks, as a pure function of (seed, block). Block b belongs to epoch b // blocks_per_epoch. A
global batch of B rows is produced by G = gcd(B, 64) *lanes*: lane l visits blocks l, l + G, l + 2G, ... and contributes
B / G rows to every batch. Each process owns a contiguous range of lanes and therefore a contiguous slice of every global
batch, so neither the text nor its order depends on the number of processes. The position in the stream is the (block,
row) of every lane.
"""

import functools
import hashlib
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import grain
import numpy as np
from grain.experimental import ThreadPrefetchDatasetIterator, index_shuffle

from bert_jax.config import RowsConfig
from bert_jax.data.packing import Batch, Placement, assemble, pack, pad_rows
from bert_jax.data.pairs import make_examples
from bert_jax.data.reader import SpecialTokens
from bert_jax.data.records.record import EncodedDocument
from bert_jax.errors import InputError

_LANES = 64
_ROWS_PER_BLOCK = 64
_MIN_DOCUMENTS_PER_BLOCK = 8  # so that negative next-sentence pairs can be drawn from other documents
_MAX_PERMUTED_IN_MEMORY = 1 << 20  # documents; Grain's index_shuffle needs no memory but is 10x slower, and far slower for few documents
_TRAINING, _EVALUATION = 0, 1  # random streams

State = dict[str, Any]


class Source(Protocol):
    """Tokenized documents by index; implemented by `bert_jax.data.records.corpora.DocumentSource`."""

    def __len__(self) -> int: ...
    def fetch(self, indices: Sequence[int]) -> Sequence[EncodedDocument]: ...
    @property
    def tokens(self) -> int: ...
    @property
    def single_sentence_documents(self) -> int: ...


def make_rows(documents: Sequence[EncodedDocument], special: SpecialTokens, rows: RowsConfig, rng: np.random.Generator) -> Batch:
    """Convert all text of the documents to rows of the batch layout, in random order, with `is_next` as the label."""
    documents = [document for document in documents if len(document.tokens)]
    ends = np.cumsum([len(document.tokens) for document in documents], dtype=np.int64)
    tokens, word_starts, sentence_starts = (
        np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
        for arrays in (
            [document.tokens for document in documents],
            [document.word_starts for document in documents],
            [document.sentence_starts + end - len(document.tokens) for document, end in zip(documents, ends.tolist(), strict=True)],
        )
    )
    examples = make_examples(sentence_starts, ends, rows.length, rows.next_sentence, rows.short_probability, rng)
    per_row = rows.examples_per_row
    placement = pack(examples.lengths, rows.length, per_row if rows.packing else 1)
    shuffled = Placement(rng.permutation(placement.count)[placement.rows], placement.slots, placement.offsets, placement.count)
    parts = [document.units for document in documents if document.units is not None]
    units = np.concatenate(parts) if parts else None
    return assemble(examples, shuffled, tokens, word_starts, special, rows.length, per_row, "is_next", units)


class _Blocks:
    """The endless sequence of blocks of a source; `blocks.rows(b)` is deterministic, on any process and in any order."""

    def __init__(self, source: Source, special: SpecialTokens, rows: RowsConfig, seed: int, stream: int):
        if not len(source) or not source.tokens:
            raise InputError("The prepared corpus is empty. Check corpus.source and, for held-out data, corpus.valid_fraction.")
        self._source, self._special, self._rows, self._seed, self._stream = source, special, rows, seed, stream
        document_length = source.tokens / len(source) + 3
        share = document_length / rows.length  # average number of rows per document
        share = max(share, 1 / rows.examples_per_row) if rows.packing else max(share, 1)
        size = max(_MIN_DOCUMENTS_PER_BLOCK, round(_ROWS_PER_BLOCK / share))
        self.per_epoch = max(1, len(source) // size)

    def rows(self, block: int) -> Batch:
        epoch, index = divmod(block, self.per_epoch)
        count = len(self._source)
        seed = int(np.random.SeedSequence((self._seed, self._stream, epoch)).generate_state(1)[0])
        first, last = (count * edge // self.per_epoch for edge in (index, index + 1))
        documents = _shuffled(range(first, last), count, seed)
        rng = np.random.default_rng((self._seed, self._stream, epoch, index))
        return make_rows(self._source.fetch(documents), self._special, self._rows, rng)


def _shuffled(indices: range, count: int, seed: int) -> list[int]:
    """Return the elements at `indices` of a random permutation of `count` elements, in bounded memory."""
    if count > _MAX_PERMUTED_IN_MEMORY:
        return [index_shuffle(i, max_index=count - 1, seed=seed, rounds=4) for i in indices]
    return list(map(int, _permutation(count, seed)[indices.start : indices.stop]))


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)


def _check_next_sentence(source: Source, rows: RowsConfig) -> None:
    if rows.next_sentence != "none" and source.single_sentence_documents >= len(source):
        raise InputError(
            f"None of the {len(source)} training documents has two sentences (or two parts, if they are images or recordings), so "
            f"rows.next_sentence={rows.next_sentence!r} has nothing to learn from. In text, put blank lines between documents rather than "
            "between sentences; split more finely with corpus.sentence_ends='clauses' or, for the full stops of Hindi, Urdu, Burmese and "
            "other scripts, 'all_scripts'; or set rows.next_sentence='none'."
        )
    if rows.next_sentence == "nsp" and len(source) < 2:
        raise InputError(
            "The training data is a single document, but rows.next_sentence='nsp' draws its negative pairs from other documents. Add "
            "documents (in text, a blank line separates them), or set rows.next_sentence to 'sop' or 'none'."
        )


class _Lane:
    """Iterates over every `stride`-th block; `block` and `row` are the position of the next row."""

    def __init__(self, blocks: _Blocks, block: int, row: int, stride: int):
        self._blocks, self.block, self.row, self._stride = blocks, block, row, stride
        self._rows: Batch | None = None

    def take(self, count: int) -> Iterator[Batch]:
        """Yield the next `count` rows, in one or more parts."""
        while count:
            if self._rows is None:
                self._rows = self._blocks.rows(self.block)
            size = len(self._rows["tokens"])
            end = min(self.row + count, size)
            yield {name: field[self.row : end] for name, field in self._rows.items()}
            count -= end - self.row
            self.row = end
            if end == size:
                self.block, self.row, self._rows = self.block + self._stride, 0, None


class _LanesIterator(grain.DatasetIterator[Batch]):
    """The batches of one process."""

    def __init__(self, blocks: _Blocks, lanes: range, stride: int, rows_per_lane: int, fingerprint: str):
        super().__init__()
        self._blocks, self._numbers, self._stride = blocks, lanes, stride
        self._rows_per_lane, self._fingerprint = rows_per_lane, fingerprint
        self._lanes = [_Lane(blocks, lane, 0, stride) for lane in lanes]

    def __next__(self) -> Batch:
        parts = [part for lane in self._lanes for part in lane.take(self._rows_per_lane)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def get_state(self) -> State:
        return {
            "stream": self._fingerprint,
            "lanes": list(self._numbers),
            "blocks": [lane.block for lane in self._lanes],
            "rows": [lane.row for lane in self._lanes],
        }

    def set_state(self, state: State) -> None:
        check_stream(state, self._fingerprint)
        saved = {lane: (block, row) for lane, block, row in zip(state["lanes"], state["blocks"], state["rows"], strict=True)}
        missing = [lane for lane in self._numbers if lane not in saved]
        if missing:
            raise ValueError(f"The saved position is missing the lanes {missing}: join the states of all processes with merge_states.")
        self._lanes = [_Lane(self._blocks, *saved[lane], self._stride) for lane in self._numbers]


class _Prefetcher(ThreadPrefetchDatasetIterator[Batch]):
    """Grain's prefetching thread with an idempotent `close`: Grain calls it again during interpreter shutdown."""

    def close(self) -> None:
        if not self._closed:
            super().close()


class Batches:
    """Batches of this process's rows, prefetched by a Grain thread.

    `get_state` describes the batch that was returned last, regardless of how many have been prefetched since.
    """

    def __init__(self, iterator: grain.DatasetIterator[Batch], prefetch: int):
        self._iterator = _Prefetcher(iterator, prefetch)
        weakref.finalize(self, self._iterator.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> State:
        """Return the position of this process in the stream as JSON values; `merge_states` joins those of all processes."""
        return dict(self._iterator.get_state())

    def set_state(self, state: State) -> None:
        """Continue after the batch at which `state` was taken; the number of processes may differ.

        Raises:
            InputError: the state belongs to different data or a different configuration.
        """
        self._iterator.set_state(state)

    def close(self) -> None:
        """Stop the prefetching thread."""
        self._iterator.close()


def merge_states(states: Sequence[State]) -> State:
    """Join the states of all processes, taken at the same step, into one that any number of processes can resume from."""
    merged = dict(states[0])
    for state in states[1:]:
        check_stream(state, merged["stream"])
        merged = {name: value + state[name] if isinstance(value, list) else value for name, value in merged.items()}
    return merged


def check_stream(state: State, fingerprint: str) -> None:
    """Check that a saved position belongs to this stream.

    Raises:
        InputError: it belongs to a different stream.
    """
    if state.get("stream") != fingerprint:
        raise InputError(
            "The saved position in the data belongs to a different corpus, seed, batch size or rows configuration. "
            "Resume with the configuration and prepared data it was saved with, or start in a new workdir."
        )


def fingerprint_stream(*facts: Any) -> str:
    """Return a short hash of the values that determine the order of a stream."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def own_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Return the rows of a global batch that belong to one process.

    Raises:
        InputError: `batch_size` is not divisible by the number of processes.
    """
    if batch_size % process_count:
        raise InputError(f"batch_size={batch_size} is not divisible by {process_count} processes: choose a multiple of {process_count}.")
    rows = batch_size // process_count
    return slice(process_index * rows, (process_index + 1) * rows)


def pretraining_batches(
    source: Source,
    special: SpecialTokens,
    rows: RowsConfig,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Return the endless training batches of one process.

    Args:
        source: the tokenized documents.
        special: the tokenizer, or any object with the ids of [PAD], [CLS] and [SEP].
        rows: how documents are converted to rows.
        batch_size: rows in the global batch; this process gets `batch_size / process_count` of them.
        seed: determines the order, the chunks and the pairs.
        process_index: index of this process.
        process_count: number of processes.

    Raises:
        InputError: there is no text, no document has two sentences although a sentence task is enabled, or the processes cannot
            share the batch equally.
    """
    lanes = math.gcd(batch_size, _LANES)
    if lanes % process_count:
        raise InputError(
            f"{process_count} processes cannot share batch_size={batch_size} equally: their number must divide {lanes}, the greatest "
            f"common divisor of the batch size and {_LANES}. Choose a batch size that is a multiple of {process_count}"
            + (", and at most 64 processes." if process_count > _LANES else ".")
        )
    blocks = _Blocks(source, special, rows, seed, _TRAINING)
    _check_next_sentence(source, rows)
    own = range(lanes)[own_rows(lanes, process_index, process_count)]
    fingerprint = fingerprint_stream("pretraining", len(source), source.tokens, rows, batch_size, seed)
    rows_per_lane = batch_size // lanes
    # The lanes reach the ends of their blocks at about the same step; prefetching one block per lane evens out that work.
    prefetch = max(2, _ROWS_PER_BLOCK // rows_per_lane)
    return Batches(_LanesIterator(blocks, own, lanes, rows_per_lane, fingerprint), prefetch)


def evaluation_batches(
    source: Source,
    special: SpecialTokens,
    rows: RowsConfig,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    count: int,
) -> list[Batch]:
    """Return the same `count` batches on every call, or fewer if the text ends; the last is padded with empty rows.

    The other arguments are those of `pretraining_batches`. All processes get the same number of batches. Held-out text that is
    a single document yields no negative next-sentence pairs, and one-sentence documents yield no pairs at all; both can
    still be used for masked-token prediction.

    Raises:
        InputError: there is no text, or `batch_size` is not divisible by the number of processes.
    """
    own = own_rows(batch_size, process_index, process_count)
    blocks = _Blocks(source, special, rows, seed, _EVALUATION)
    parts: list[Batch] = []
    missing = count * batch_size
    for block in range(blocks.per_epoch):
        part = blocks.rows(block)
        parts.append({name: field[:missing] for name, field in part.items()})
        missing -= len(parts[-1]["tokens"])
        if not missing:
            break
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    total = -(-len(joined["tokens"]) // batch_size) * batch_size
    joined = pad_rows(joined, total, special.pad_id)
    return [{name: field[start : start + batch_size][own] for name, field in joined.items()} for start in range(0, total, batch_size)]
