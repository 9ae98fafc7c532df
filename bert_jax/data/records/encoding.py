"""Raw documents -> documents of ids, on all cores."""

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
"""A corpus of fewer batches is done before other processes have started."""


class Encoder(ABC, Generic[D]):
    """Makes documents of ids of raw ones, in this process and in others, to which it is sent.

    Attributes:
        reader: the vocabulary that the ids are of.
        counts: what is counted of documents.
    """

    reader: Reader
    counts: type[Counts] = Counts

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON values that decide the records of given raw data: the vocabulary's fingerprint and the options that matter."""

    @abstractmethod
    def __call__(self, documents: list[D]) -> Sequence[EncodedDocument]:
        """The documents as ids, each with the places where it may be cut."""

    @abstractmethod
    def count(self, raw: D, document: EncodedDocument) -> Counts:
        """The counts of one document."""

    @abstractmethod
    def size(self, raw: D) -> int:
        """About how much there is to read in a document; 100,000 are worth handing to another process."""

    def warnings(self, info: Mapping[str, Any], first: Iterable[D]) -> list[str]:
        """What a user should know of finished records.

        Args:
            info: the counts of both splits.
            first: the raw training documents.
        """
        del info, first
        return []


def encode(documents: Iterable[tuple[Key, D]], encoder: Encoder[D]) -> Iterator[tuple[Key, D, EncodedDocument]]:
    """Raw documents, each with a key, and the same as ids, in their order, made by as many processes as there are cores.

    A program that calls this on much text must be importable (`if __name__ == "__main__":`), as for every use of
    Python's `multiprocessing`.
    """
    rest = batches(documents, encoder)
    first = list(itertools.islice(rest, _BATCHES_BEFORE_PROCESSES))
    workers = cores()
    if len(first) < _BATCHES_BEFORE_PROCESSES or workers == 1:
        for batch in itertools.chain(first, rest):
            yield from _joined(batch, encoder([raw for _, raw in batch]))
        return
    # Not fork: the tokenizer, JAX and TFDS have threads, which a forked process does not survive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (encoder,)) as pool:
        pending: deque[tuple[Batch[Key, D], Future[Sequence[EncodedDocument]]]] = deque()
        try:
            for batch in itertools.chain(first, rest):
                pending.append((batch, pool.submit(_encode_batch, [raw for _, raw in batch])))
                while len(pending) > 2 * workers:
                    yield from _joined(*_result(pending))
            while pending:
                yield from _joined(*_result(pending))
        except BrokenProcessPool as error:
            raise InputError(
                "A process that tokenizes the corpus was ended from outside. Either the memory ran out, or this was called from a script "
                'that runs again in every new process: put its main part under `if __name__ == "__main__":`.'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def batches(documents: Iterable[tuple[Key, D]], encoder: Encoder[D]) -> Iterator[Batch[Key, D]]:
    """The documents in lists of about as much as is worth handing to another process."""
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
    """The cores that this process may use."""
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
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process a core is enough
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent that is killed (kill -9) cannot stop its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode_batch(documents: list[Any]) -> Sequence[EncodedDocument]:
    return _worker_encoder(documents)
