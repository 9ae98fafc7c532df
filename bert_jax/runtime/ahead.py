"""Asynchronous device work: dispatch now, wait later."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Finish = Callable[[], T]
"""Waits for work dispatched to the devices and returns its result."""


def one_ahead(started: Iterable[Finish[T]]) -> Iterator[T]:
    """Yield each result in order, starting the next piece of work before waiting for the current one."""
    waiting: list[Finish[T]] = []
    for finish in started:
        yield from (before() for before in waiting)
        waiting = [finish]
    yield from (last() for last in waiting)
