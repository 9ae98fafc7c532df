"""Paths on the command line, as types for argparse, which shows the words of no other exception than its own."""

import argparse
from pathlib import Path

from bert_jax.errors import InputError
from bert_jax.files import on_disk, place


def anywhere(text: str) -> Path:
    """A directory on a disk or in a bucket; errors as in `place`."""
    try:
        return place(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def disk(text: str) -> Path:
    """A file or directory on a disk; errors as in `on_disk`."""
    try:
        return on_disk(text, "the place")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
