"""The stream of batches: all text once an epoch, the same on any number of processes, continued exactly from anywhere."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from bert_jax.config import RowsConfig
from bert_jax.data.packing import Batch
from bert_jax.data.pipeline import Batches, _shuffled, evaluation_batches, merge_states, pretraining_batches
from bert_jax.data.records.record import Document
from bert_jax.errors import InputError

ROWS = RowsConfig(length=32, examples_per_row=6)
FIRST_TOKEN = 10


class Special(NamedTuple):
    pad_id: int = 7
    cls_id: int = 1
    sep_id: int = 2


class MemorySource:
    """Documents in which every token of the corpus has an id of its own."""

    def __init__(self, sentence_lengths: Sequence[Sequence[int]]):
        self.documents: list[Document] = []
        self.tokens = 0
        for lengths in sentence_lengths:
            size = sum(lengths)
            ids = np.arange(self.tokens, self.tokens + size, dtype=np.uint32) + FIRST_TOKEN
            starts = np.cumsum([0, *lengths[:-1]]).astype(np.int32)
            self.documents.append(Document(ids, starts, (ids % 3 == 0) | np.isin(np.arange(size), starts)))
            self.tokens += size
        self.ends = np.cumsum([len(document.tokens) for document in self.documents])

    def __len__(self) -> int:
        return len(self.documents)

    def fetch(self, indices: Sequence[int]) -> list[Document]:
        return [self.documents[i] for i in indices]

    @property
    def single_sentence_documents(self) -> int:
        return sum(len(document.sentence_starts) < 2 for document in self.documents)

    def counts(self, batches: Sequence[Batch]) -> np.ndarray:
        """How often each token of the corpus stands in the batches."""
        found = np.concatenate([batch["tokens"][batch["tokens"] >= FIRST_TOKEN] for batch in batches]) - FIRST_TOKEN
        return np.bincount(found, minlength=self.tokens)


def corpus(documents: int = 300, sentences: int = 6, tokens: int = 9, seed: int = 0) -> MemorySource:
    rng = np.random.default_rng(seed)
    return MemorySource([(1 + rng.poisson(tokens - 1, rng.geometric(1 / sentences))).tolist() for _ in range(documents)])


SOURCE = corpus()


def stream(
    batch_size: int = 16, seed: int = 3, index: int = 0, count: int = 1, rows: RowsConfig = ROWS, source: MemorySource = SOURCE
) -> Batches:
    return pretraining_batches(source, Special(), rows, batch_size, seed, index, count)


def take(batches: Batches, count: int) -> list[Batch]:
    return [next(batches) for _ in range(count)]


def assert_same(left: Sequence[Batch], right: Sequence[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], name)


def joined(parts: Sequence[Sequence[Batch]]) -> list[Batch]:
    """Global batches out of those of all processes."""
    return [{name: np.concatenate([batch[name] for batch in step]) for name in step[0]} for step in zip(*parts, strict=True)]


def test_the_batch_shape() -> None:
    batch = next(stream(16))
    shapes = {name: (field.shape, field.dtype) for name, field in batch.items()}
    token_fields = dict.fromkeys(("tokens", "example_ids", "positions", "segments"), ((16, 32), np.int32))
    slot_fields = dict.fromkeys(("cls_positions", "is_next"), ((16, 6), np.int32))
    assert shapes == token_fields | slot_fields | {"word_starts": ((16, 32), np.bool_), "example_weights": ((16, 6), np.float32)}


@pytest.mark.parametrize("task", ["nsp", "sop", "none"])
def test_rows_read_back(task: str) -> None:
    """Each example is [CLS] A [SEP] B [SEP], with A and B consecutive text of one document each and the label that fits."""
    for batch in take(stream(rows=RowsConfig(length=32, examples_per_row=6, next_sentence=task)), 20):
        for row in range(16):
            ids = batch["example_ids"][row]
            assert (batch["tokens"][row][ids == 0] == 7).all()
            for slot in range(6):
                at = np.flatnonzero(ids == slot + 1)
                if not len(at):
                    assert batch["example_weights"][row, slot] == 0
                    continue
                assert batch["cls_positions"][row, slot] == at[0]
                np.testing.assert_array_equal(batch["positions"][row][at], np.arange(len(at)))
                tokens, segments, starts = (batch[name][row][at] for name in ("tokens", "segments", "word_starts"))
                separators = np.flatnonzero(tokens == 2)
                assert tokens[0] == 1 and separators[-1] == len(at) - 1 and len(separators) in (1, 2)
                np.testing.assert_array_equal(segments, np.arange(len(at)) > separators[0])
                assert not starts[tokens < FIRST_TOKEN].any()
                a, b = tokens[1 : separators[0]], tokens[separators[0] + 1 : -1]
                places = [np.searchsorted(SOURCE.ends, segment - FIRST_TOKEN, side="right") for segment in (a, b)]
                for segment, place, first in ((a, places[0], 1), (b, places[1], separators[0] + 1)):
                    assert (np.diff(segment) == 1).all() and len(set(place)) <= 1
                    assert not len(segment) or starts[first]
                weight, label = batch["example_weights"][row, slot], batch["is_next"][row, slot]
                assert weight == (len(b) > 0) and (task != "none" or not weight)
                if weight and label:
                    assert a[-1] + 1 == b[0]
                elif weight and task == "nsp":
                    assert places[0][0] != places[1][0]
                elif weight:
                    assert b[-1] + 1 == a[0]


def test_half_of_the_pairs_are_true_and_rows_are_full() -> None:
    source = corpus(2000, sentences=10, tokens=20)
    batches = take(stream(64, rows=RowsConfig(length=128), source=source), 20)
    pairs = sum(batch["example_weights"].sum() for batch in batches)
    assert abs(sum(batch["is_next"].sum() for batch in batches) / pairs - 0.5) < 0.01
    assert np.mean([batch["example_ids"] > 0 for batch in batches]) > 0.94


@pytest.mark.parametrize(("task", "packing", "once"), [("nsp", True, 0.97), ("sop", True, 1.0), ("none", False, 1.0)])
def test_an_epoch_holds_all_text_once(task: str, packing: bool, once: float) -> None:
    """A batch of one row has one lane, which walks the blocks in order, so that an epoch's end can be seen."""
    batches = stream(1, rows=RowsConfig(length=32, examples_per_row=6, next_sentence=task, packing=packing))
    epochs = [[], []]
    per_epoch = batches._iterator._maybe_nonnative_parent._blocks.per_epoch
    assert per_epoch > 3
    while (block := batches.get_state()["blocks"][0]) < 2 * per_epoch:
        epochs[block // per_epoch].append(next(batches))
    for epoch in epochs:
        assert (SOURCE.counts(epoch) == 1).mean() >= once
    if not packing:
        assert all(batch["example_ids"].max() == 1 for batch in epochs[0])
    order = [np.concatenate([batch["tokens"][0] for batch in epoch])[:2000] for epoch in epochs]
    assert (order[0] != order[1]).mean() > 0.5


@pytest.mark.parametrize(("batch_size", "count"), [(16, 2), (16, 4), (12, 4)])
def test_the_processes_share_one_order(batch_size: int, count: int) -> None:
    whole = take(stream(batch_size), 40)
    assert_same(joined([take(stream(batch_size, index=index, count=count), 40) for index in range(count)]), whole)


def test_no_block_is_walked_twice() -> None:
    """Lane l walks the blocks l, l + 16, ...: none is left out and none is shared."""
    batches = stream()
    take(batches, 200)
    state = batches.get_state()
    assert state["lanes"] == list(range(16)) == [block % 16 for block in state["blocks"]]
    assert min(state["blocks"]) >= 16 and max(state["blocks"]) < 16 * 8


def test_the_seed_decides() -> None:
    assert_same(take(stream(seed=5), 5), take(stream(seed=5), 5))
    assert (next(stream(seed=5))["tokens"] != next(stream(seed=6))["tokens"]).any()


@pytest.mark.parametrize("count", [3, 1000, (1 << 20) + 3])
def test_documents_are_shuffled_globally(count: int) -> None:
    """Whatever the size: documents once each, from all over the corpus, in an order that the seed decides."""
    whole = range(min(count, 3000))
    places = _shuffled(whole, count, 1)
    assert len(set(places)) == len(whole) and min(places) >= 0 and max(places) < count
    assert _shuffled(whole[1:], count, 1) == places[1:]
    if count > 3:
        assert abs(np.mean(places) / count - 0.5) < 0.03
        assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.15
        assert places != _shuffled(whole, count, 2)


@pytest.mark.parametrize("stop", [0, 1, 7, 33, 100])
def test_it_continues_where_it_stopped(stop: int) -> None:
    batches = stream()
    take(batches, stop)
    state = json.loads(json.dumps(merge_states([batches.get_state()])))
    following = take(batches, 30)
    restored = stream()
    next(restored)
    restored.set_state(state)
    assert restored.get_state() == state
    assert_same(take(restored, 30), following)


def test_the_state_is_that_of_the_batch_handed_out() -> None:
    batches = stream()
    take(batches, 3)
    before = batches.get_state()
    deadline = time.monotonic() + 10
    while batches._iterator._buffer.qsize() < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert batches._iterator._buffer.qsize() >= 2, "nothing was made ahead"
    assert batches.get_state() == before
    following = take(batches, 3)
    batches.set_state(before)
    assert_same(take(batches, 3), following)


@pytest.mark.parametrize(("saved", "restored"), [(2, 1), (1, 2), (4, 2)])
def test_another_number_of_processes_continues(saved: int, restored: int) -> None:
    whole = stream()
    take(whole, 21)
    first = [stream(index=index, count=saved) for index in range(saved)]
    for batches in first:
        take(batches, 21)
    state = json.loads(json.dumps(merge_states([batches.get_state() for batches in first])))
    second = [stream(index=index, count=restored) for index in range(restored)]
    for batches in second:
        batches.set_state(state)
    assert_same(joined([take(batches, 25) for batches in second]), take(whole, 25))


def test_a_position_of_another_stream_is_refused() -> None:
    state = stream().get_state()
    for other in (stream(seed=4), stream(32), stream(source=corpus(seed=1)), stream(rows=RowsConfig(length=40))):
        with pytest.raises(InputError, match="a different corpus, seed, batch size or rows"):
            other.set_state(state)
    with pytest.raises(ValueError, match="merge_states"):
        stream().set_state(stream(index=1, count=2).get_state())


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    batches = stream()
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    batches.close()
    dropped = stream()
    next(dropped)
    del dropped
    assert threading.active_count() == before


def test_evaluation_goes_round_once() -> None:
    source = corpus(20)
    rows = RowsConfig(length=32, examples_per_row=6, next_sentence="sop")
    batches = evaluation_batches(source, Special(), rows, 16, 0, count=50)
    assert 1 < len(batches) < 50
    assert all(batch["tokens"].shape == (16, 32) for batch in batches)
    np.testing.assert_array_equal(source.counts(batches), 1)
    empty = ~(batches[-1]["example_ids"] > 0).any(1)
    assert empty.any() and (np.diff(empty.astype(int)) >= 0).all(), "the empty rows come last"
    assert (batches[-1]["tokens"][empty] == 7).all() and not batches[-1]["example_weights"][empty].any()


def test_evaluation_of_too_little_for_next_sentences() -> None:
    """A held-out document without others has true pairs only, and single sentences have none; neither stops a run."""
    (one,) = evaluation_batches(MemorySource([[5, 6, 7]]), Special(), ROWS, 4, 0, count=1)
    assert one["is_next"].sum() == one["example_weights"].sum() == 1
    (singles,) = evaluation_batches(MemorySource([[5], [6]]), Special(), ROWS, 4, 0, count=1)
    assert not singles["example_weights"].any() and singles["example_ids"].any()


def test_evaluation_is_fixed_and_shared() -> None:
    whole = evaluation_batches(SOURCE, Special(), ROWS, 16, 0, count=3)
    assert len(whole) == 3
    assert_same(evaluation_batches(SOURCE, Special(), ROWS, 16, 0, count=3), whole)
    assert_same(joined([evaluation_batches(SOURCE, Special(), ROWS, 16, 0, index, 4, count=3) for index in range(4)]), whole)
    assert (whole[0]["tokens"] != next(stream(16, seed=0))["tokens"]).any()
    pairs = sum(batch["example_weights"].sum() for batch in whole)
    assert 0.3 < sum(batch["is_next"].sum() for batch in whole) / pairs < 0.7


def test_faults() -> None:
    lone_sentences = MemorySource([[5], [6], [7]])
    for task in ("nsp", "sop"):
        with pytest.raises(InputError, match=r"None of the 3 training documents has two sentences.*next_sentence='none'"):
            stream(source=lone_sentences, rows=RowsConfig(next_sentence=task))
    assert next(stream(2, source=lone_sentences, rows=RowsConfig(next_sentence="none")))["example_ids"].any()
    with pytest.raises(InputError, match="is a single document"):
        stream(source=MemorySource([[5, 6, 7]]))
    with pytest.raises(InputError, match="is empty"):
        evaluation_batches(MemorySource([]), Special(), ROWS, 4, 0, count=1)
    with pytest.raises(InputError, match="batch_size=16 is not divisible by 3 processes"):
        evaluation_batches(SOURCE, Special(), ROWS, 16, 0, 0, 3, count=1)
    with pytest.raises(InputError, match="3 processes cannot share batch_size=16"):
        stream(16, count=3)


def test_a_corpus_smaller_than_a_block_is_endless() -> None:
    source = MemorySource([[5, 4, 6], [7, 3], [9], [3, 3, 3]])
    batches = take(stream(4, source=source), 40)
    assert (source.counts(batches) > 10).all()


def test_the_import_starts_no_device() -> None:
    code = (
        "import bert_jax.data.labelled, bert_jax.data.pipeline\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
