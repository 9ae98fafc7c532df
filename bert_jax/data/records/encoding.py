"""Tokenize raw documents on all cores."""

import itertools
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from bert_jax.data.reader import Reader
from bert_jax.data.records.record import Counts, EncodedDocument
from bert_jax.errors import InputError

Key = TypeVar("Key")
D = TypeVar("D")
Batch = list[tuple[Key, D]]

_BATCH_SIZE = 1 << 17
_BATCHES_BEFORE_PROCESSES = 16
"""A corpus of fewer batches is encoded faster than worker processes can start."""


class Encoder(ABC, Generic[D]):
    """Tokenizes raw documents; it is pickled and sent to worker processes.

    Attributes:
        reader: the vocabulary.
        counts: the class of the statistics that are collected about documents.
    """

    reader: Reader
    counts: type[Counts] = Counts

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return JSON values that determine the records of given raw data: the vocabulary's fingerprint and the relevant options."""

    @abstractmethod
    def __call__(self, documents: list[D]) -> Sequence[EncodedDocument]:
        """Tokenize the documents, and find the positions where each may be split."""

    @abstractmethod
    def count(self, raw: D, document: EncodedDocument) -> Counts:
        """Return the counts of one document."""

    @abstractmethod
    def size(self, raw: D) -> int:
        """Return the approximate cost of a document, scaled so that about 100,000 are worth sending to another process."""

    def warnings(self, info: Mapping[str, Any], first: Iterable[D]) -> list[str]:
        """Return warnings for the user about the finished records.

        Args:
            info: the counts of both splits.
            first: the raw training documents, in order.
        """
        del info, first
        return []


def encode(documents: Iterable[tuple[Key, D]], encoder: Encoder[D]) -> Iterator[tuple[Key, D, EncodedDocument]]:
    """Yield (key, raw document, tokenized document) in the order of `documents`, using one process per core.

    As always with Python's `multiprocessing`, a program that calls this on a large corpus must be importable without side
    effects (`if __name__ == "__main__":`).

    Raises:
        InputError: a worker process was killed.
    """
    remaining = batches(documents, encoder)
    first = list(itertools.islice(remaining, _BATCHES_BEFORE_PROCESSES))
    workers = cores()
    if len(first) < _BATCHES_BEFORE_PROCESSES or workers == 1:
        for batch in itertools.chain(first, remaining):
            yield from _joined(batch, encoder([raw for _, raw in batch]))
        return
    # Not fork: the tokenizer, JAX and TFDS run threads, with which forking is unsafe.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (encoder,)) as pool:
        pending: deque[tuple[Batch[Key, D], Future[Sequence[EncodedDocument]]]] = deque()
        try:
            for batch in itertools.chain(first, remaining):
                pending.append((batch, pool.submit(_encode_batch, [raw for _, raw in batch])))
                while len(pending) > 2 * workers:
                    yield from _joined(*_result(pending))
            while pending:
                yield from _joined(*_result(pending))
        except BrokenProcessPool as error:
            raise InputError(
                "A worker process that tokenizes the corpus was killed. Either memory ran out, or this was called from a script "
                'that every worker process runs again: put its main code under `if __name__ == "__main__":`.'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def batches(documents: Iterable[tuple[Key, D]], encoder: Encoder[D]) -> Iterator[Batch[Key, D]]:
    """Group the documents into lists large enough to be worth sending to another process."""
    batch: Batch[Key, D] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += encoder.size(document[1])
        if size >= _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _joined(batch: Batch[Key, D], encoded: Sequence[EncodedDocument]) -> Iterator[tuple[Key, D, EncodedDocument]]:
    for (key, raw), document in zip(batch, encoded, strict=True):
        yield key, raw, document


def _result(pending: deque[tuple[Batch[Key, D], Future[Sequence[EncodedDocument]]]]) -> tuple[Batch[Key, D], Sequence[EncodedDocument]]:
    batch, future = pending.popleft()
    return batch, future.result()


_worker_encoder: Encoder[Any]


def _start_worker(encoder: Encoder[Any]) -> None:
    global _worker_encoder
    _worker_encoder = encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is already one process per core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Exit when the parent dies: after `kill -9` it cannot stop its workers, which would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode_batch(documents: list[Any]) -> Sequence[EncodedDocument]:
    return _worker_encoder(documents)
