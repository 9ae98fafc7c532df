"""Being asked to stop: by a signal, and with several processes by an agreement on when."""

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils

# Several processes agree on the number of a call of `requested`, so it may never come again, in a later stage either.
_CALLS = itertools.count(1)


class Stop:
    """Whether a run is to stop."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def requested(self) -> bool:
        """Whether to stop now. Several processes call this equally often, and all hear of it, once, at the same call."""
        if jax.process_count() == 1:
            return bool(self.received)
        try:
            return bool(multihost_utils.reached_preemption_sync_point(next(_CALLS)))
        except RuntimeError:  # The service that the processes agree by was turned off.
            return False

    @property
    def number(self) -> int:
        """The signal; SIGTERM where another process got it."""
        return self.received[0] if self.received else signal.SIGTERM


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Hears SIGINT and SIGTERM, so that a step (or a batch) ends and a checkpoint is saved; a second Ctrl-C ends at once.

    With several processes SIGTERM belongs to `jax.distributed`, which agrees with all of them on when to stop.
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
    except ValueError:  # Not the main thread: the program around us keeps its own handlers.
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
