"""Out-of-memory errors of XLA, which name an allocation and not what to do about it."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from bert_jax.errors import InputError


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether XLA raised this error because a device's memory does not suffice, in compilation or when it ran a program."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory(doing: str, advice: str, error: BaseException) -> InputError:
    """Return the error to raise in place of XLA's.

    Args:
        doing: what was being done, such as `pre-training`.
        advice: what to do about it, in sentences.
        error: the error of XLA, whose first line is quoted.
    """
    first = str(error).partition("RESOURCE_EXHAUSTED:")[2].strip().partition("\n")[0]
    device = jax.local_devices()[0].device_kind
    name = "CPU" if device == "cpu" else device
    return InputError(f"The {name} ran out of memory in {doing} (XLA: {textwrap.shorten(first, 200)}). {advice}")


@contextmanager
def memory_advice(doing: str, advice: str) -> Iterator[None]:
    """Turn an out-of-memory error of XLA into an InputError with advice; arguments as in `out_of_memory`.

    Raises:
        InputError: a device ran out of memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        raise out_of_memory(doing, advice, error) from error
