"""What the commands share: how they are added, paths as types for argparse (which shows the words of no other exception than its own)."""

import argparse
from collections.abc import Callable
from pathlib import Path

from bert_jax.errors import InputError, as_typed
from bert_jax.storage.files import on_disk, resolve_path

Add = Callable[..., argparse.ArgumentParser]
"""Adds a command: its name, what runs it, its description, examples."""


def say(text: str) -> None:
    """Prints with paths as they were typed."""
    print(as_typed(text))


def anywhere(text: str) -> Path:
    """A directory on a disk or in a bucket; errors as in `resolve_path`."""
    try:
        return resolve_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def disk(text: str) -> Path:
    """A file or directory on a disk; errors as in `on_disk`."""
    try:
        return on_disk(text, "the place")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
