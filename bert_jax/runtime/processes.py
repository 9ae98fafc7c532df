"""What the processes of a run do together: wait for each other, or let the first one work and hear how it went."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.errors import InputError

_LONGEST = 4096
"""Bytes of a message to all; the end of a longer one is left out."""


def on_first_process(work: Callable[[], object]) -> None:
    """Does it on the first process while the others wait; where it fails, all end with what it says.

    Raises:
        Exception: what the work raised; on the other processes an InputError with its message.
    """
    failure: Exception | None = None
    if jax.process_index() == 0:
        try:
            work()
        except Exception as error:
            failure = error
    if jax.process_count() > 1:
        told = _from_first_process(str(failure) or type(failure).__name__ if failure else "")
        if told and not failure:
            raise InputError(told)
    if failure:
        raise failure


def wait_for_all(name: str) -> None:
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _from_first_process(message: str) -> str:
    sent = np.zeros(_LONGEST, np.uint8)
    text = np.frombuffer(message.encode()[:_LONGEST], np.uint8)
    sent[: len(text)] = text
    return bytes(multihost_utils.broadcast_one_to_all(sent)).rstrip(b"\0").decode(errors="ignore")
