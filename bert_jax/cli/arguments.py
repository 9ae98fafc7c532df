"""Helpers shared by the commands: the signature that adds a command, and path types for argparse.

Argparse shows the message of an `ArgumentTypeError` only, so the path types convert `InputError` to it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from bert_jax.errors import InputError, as_typed
from bert_jax.storage.files import on_disk, resolve_path

Add = Callable[..., argparse.ArgumentParser]
"""Adds a command, given its name, the function that runs it, its description and its examples."""


def say(text: str) -> None:
    """Print a message, with paths as the user typed them."""
    print(as_typed(text))


def anywhere(text: str) -> Path:
    """Parse the path of a directory on a disk or in a bucket; fails as `resolve_path` does."""
    try:
        return resolve_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def disk(text: str) -> Path:
    """Parse the path of a file or directory on a disk; fails as `on_disk` does."""
    try:
        return on_disk(text, "The path")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_engine(command: argparse.ArgumentParser) -> None:
    """Add --engine and --dtype to a command that loads a model."""
    command.add_argument(
        "--engine",
        default="jax",
        metavar="NAME",
        help="what computes the encoder: jax, or onnxruntime, which is faster on CPUs (default: %(default)s)",
    )
    command.add_argument(
        "--dtype",
        metavar="TYPE",
        help="the type of matrix products: float32 or bfloat16 with jax, float32 or int8 with onnxruntime (default: float32)",
    )
