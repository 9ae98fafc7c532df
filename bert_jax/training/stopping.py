"""Requests to stop by a signal, coordinated across processes."""

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

# Processes agree to stop at a numbered call of `requested`, so numbers are never reused, not even in a later stage.
_CALLS = itertools.count(1)


class Stop:
    """State of the requests to stop a run."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def requested(self) -> bool:
        """Return whether to stop now.

        All processes must call this equally often; it returns True on all of them at the same call, and only once.
        """
        if jax.process_count() == 1:
            return bool(self.received)
        try:
            return bool(multihost_utils.reached_preemption_sync_point(next(_CALLS)))
        except RuntimeError:  # The coordination service was shut down.
            return False

    @property
    def number(self) -> int:
        """Number of the signal; SIGTERM if another process received it."""
        return self.received[0] if self.received else signal.SIGTERM


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM so that the current step (or batch) finishes and a checkpoint is saved; a second Ctrl-C exits immediately.

    With several processes, `jax.distributed` handles SIGTERM and coordinates when all of them stop.
    """
    stop = Stop()
    several = jax.process_count() > 1

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.received.append(number)
        if several:
            signal.raise_signal(signal.SIGTERM)

    numbers = (signal.SIGINT,) if several else (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # Not the main thread: the host program keeps its own handlers.
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
