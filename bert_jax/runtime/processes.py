"""Coordination between the processes of a run: barriers, and work done on process 0 whose outcome is shared with all."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.errors import InputError

_MAX_BYTES = 4096
"""Size limit of a broadcast message; longer ones are truncated."""


def on_first_process(work: Callable[[], object]) -> None:
    """Run `work` on the first process while the others wait. If it fails, every process raises.

    Raises:
        Exception: whatever `work` raised; on the other processes, an InputError with the same message.
    """
    failure: Exception | None = None
    if jax.process_index() == 0:
        try:
            work()
        except Exception as error:
            failure = error
    if jax.process_count() > 1:
        reported = _from_first_process(str(failure) or type(failure).__name__ if failure else "")
        if reported and not failure:
            raise InputError(reported)
    if failure:
        raise failure


def wait_for_all(name: str) -> None:
    """Block until all processes have reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _from_first_process(message: str) -> str:
    sent = np.zeros(_MAX_BYTES, np.uint8)
    text = np.frombuffer(message.encode()[:_MAX_BYTES], np.uint8)
    sent[: len(text)] = text
    return bytes(multihost_utils.broadcast_one_to_all(sent)).rstrip(b"\0").decode(errors="ignore")
