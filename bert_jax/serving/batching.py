"""Requests of many clients, answered together by a model's thread.

A model answers one batch at a time. Requests that arrive in the meantime wait in a queue; those that ask the same question with the same
options are then answered in one batch, whose rows they share. Rows are packed, and examples never attend to each other, so an answer does
not depend on who shared the row.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from bert_jax.errors import InputError
from bert_jax.tasks.question import Answers


class Asked(Protocol):
    """A model that answers questions; implemented by `bert_jax.inference.model.Model`."""

    def ask(self, name: str, texts: Sequence[Any], pairs: Sequence[Any] | None = None, **options: Any) -> Answers: ...


class QueueFull(Exception):
    """Too many texts are waiting for the model."""


@dataclass(frozen=True)
class Limits:
    """How requests are collected.

    Attributes:
        wait: seconds to wait for more requests when one arrives.
        texts: the number of texts from which a batch does not wait, and which it does not exceed unless a single request does.
        waiting: the number of texts that may wait; further requests are refused.
    """

    wait: float = 0.002
    texts: int = 256
    waiting: int = 4096


@dataclass(frozen=True, eq=False)
class _Work:
    """A request in the queue; works with equal keys may share a batch."""

    key: Hashable
    name: str
    texts: Sequence[Any]
    pairs: Sequence[Any] | None
    options: Mapping[str, Any]
    answers: "Future[Answers]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Collects requests for a model in a bounded queue, and answers them in a thread of its own.

    Args:
        model: the model; only the thread uses it.
        limits: how requests are collected.
        observe: called with the number of texts in each batch.
    """

    def __init__(self, model: Asked, limits: Limits, observe: Callable[[int], None] = lambda texts: None) -> None:
        self._model, self._limits, self._observe = model, limits, observe
        self._queue: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._waiting, self._closed = 0, False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of texts in the queue."""
        return self._waiting

    @property
    def alive(self) -> bool:
        """Whether requests are being answered."""
        return self._thread.is_alive() and not self._closed

    def submit(
        self, name: str, texts: Sequence[Any], pairs: Sequence[Any] | None = None, **options: Any
    ) -> "Future[Answers]":
        """Ask a question about each text; see `bert_jax.inference.model.Model.ask`. Cancelling the result takes it out of the queue.

        Raises:
            QueueFull: too many texts are waiting, or the server is stopping.
        """
        work = _Work(_key(name, pairs, options), name, texts, pairs, options)
        with self._changed:
            if self._closed or (self._queue and self._waiting + len(texts) > self._limits.waiting):
                raise QueueFull
            self._queue.append(work)
            self._waiting += len(texts)
            self._changed.notify()
        return work.answers

    def close(self) -> None:
        """Answer what is in the queue, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while works := self._next():
            running = [work for work in works if work.answers.set_running_or_notify_cancel()]
            if running:
                self._observe(sum(len(work.texts) for work in running))
                self._answer(running)

    def _next(self) -> list[_Work]:
        """Wait for a request, and return it with those that can be answered together with it; nothing at the end."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    return []
                self._changed.wait()
            until = self._queue[0].arrived + self._limits.wait
            while not self._closed and self._waiting < self._limits.texts and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            chosen, rest = [self._queue.popleft()], deque[_Work]()
            count = len(chosen[0].texts)
            for work in self._queue:
                if work.key == chosen[0].key and count + len(work.texts) <= self._limits.texts:
                    chosen.append(work)
                    count += len(work.texts)
                else:
                    rest.append(work)
            self._queue = rest
            self._waiting -= count
            return chosen

    def _answer(self, works: Sequence[_Work]) -> None:
        first = works[0]
        texts = [text for work in works for text in work.texts]
        pairs = None if first.pairs is None else [pair for work in works for pair in work.pairs or ()]
        try:
            answers = self._model.ask(first.name, texts, pairs, **first.options)
        except Exception as error:
            if len(works) > 1 and isinstance(error, InputError):
                # The error is for those who sent an invalid text alone.
                for work in works:
                    self._answer([work])
                return
            for work in works:
                work.answers.set_exception(error)
            return
        begin = 0
        for work in works:
            work.answers.set_result(answers[begin : begin + len(work.texts)])
            begin += len(work.texts)


def _key(name: str, pairs: Sequence[Any] | None, options: Mapping[str, Any]) -> Hashable:
    key = (name, pairs is None, *((option, _hashable(value)) for option, value in sorted(options.items())))
    try:
        hash(key)
    except TypeError:
        return object()  # shares a batch with no other
    return key


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
