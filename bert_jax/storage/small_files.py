"""The small files of a model (JSON, vocabularies), which may be untrusted and are checked before they are read."""

import json
from pathlib import Path
from typing import Any

from bert_jax.errors import InputError
from bert_jax.storage.files import special_files

LARGEST = 64 << 20
"""Size limit in bytes; even the tokenizer.json of a million-token vocabulary is smaller."""


def read_text(path: Path, remedy: str) -> str:
    """Read a small text file.

    Args:
        path: the file.
        remedy: last sentence of the error message.

    Raises:
        InputError: the file is missing, is a folder, pipe or device, is too large, cannot be read, or is not UTF-8.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path} is {'not a regular file' if path.exists() else 'missing'}. {remedy}")
        if (size := path.stat().st_size) > LARGEST:
            raise InputError(f"{path} has {size:,} bytes, more than the limit of {LARGEST:,} for such a file. {remedy}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start:,}). {remedy}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). {remedy}") from error


def read_json(path: Path, remedy: str) -> Any:
    """Read a small JSON file. Errors as in `read_text`, and an InputError if it is not JSON or nested too deeply."""
    try:
        return json.loads(read_text(path, remedy))
    except RecursionError:
        raise InputError(f"{path} is not usable JSON (it is nested too deeply). {remedy}") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). {remedy}") from error


def refuse_special_files(directory: Path) -> None:
    """Raise InputError if anything below the directory is not a regular file or folder: a link leads elsewhere, a pipe may block."""
    for path in special_files(directory):
        raise InputError(f"{path} is a link, a pipe or a device, which is not allowed in a checkpoint. Copy the files themselves.")
