"""Work that is sent to the devices and waited for later."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Finish = Callable[[], T]
"""Waits for what was sent to the devices."""


def one_ahead(started: Iterable[Finish[T]]) -> Iterator[T]:
    """What each gives, the next being started before it is waited for."""
    waiting: list[Finish[T]] = []
    for finish in started:
        yield from (before() for before in waiting)
        waiting = [finish]
    yield from (last() for last in waiting)
