"""The small files of a model (JSON, vocabularies), which anybody may have written: looked at before they are read."""

import json
from pathlib import Path
from typing import Any

from bert_jax.errors import InputError
from bert_jax.storage.files import special_files

LARGEST = 64 << 20
"""Bytes; the tokenizer.json of a vocabulary of a million tokens has less."""


def read_text(path: Path, remedy: str) -> str:
    """The text of a small file.

    Args:
        remedy: the end of an error's message.

    Raises:
        InputError: it is not there, is a folder, pipe or device, is too large, cannot be read, or is not UTF-8.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is {'no regular file' if path.exists() else 'missing'}. {remedy}")
        if (size := path.stat().st_size) > LARGEST:
            raise InputError(f"{path} has {size:,} bytes, and no such file has more than {LARGEST:,}. {remedy}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start:,}). {remedy}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). {remedy}") from error


def read_json(path: Path, remedy: str) -> Any:
    """The value in a small JSON file; errors as in `read_text`, and where it is not JSON or nested too deep."""
    try:
        return json.loads(read_text(path, remedy))
    except RecursionError:
        raise InputError(f"{path} is not JSON of any use (it is nested too deep). {remedy}") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). {remedy}") from error


def refuse_special_files(directory: Path) -> None:
    """Raises InputError where anything below the directory is no plain file or folder: a link leads elsewhere, a pipe never answers."""
    for path in special_files(directory):
        raise InputError(f"{path} is a link, a pipe or a device, which no checkpoint holds, so it is refused. Copy the files themselves.")
