"""Downloads models from the Hugging Face Hub."""

import re
from pathlib import Path

from bert_jax.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Only files that are read; pickles are not even downloaded.
_FILES = ["*.json", "*.txt", "*.safetensors", "1_Pooling/*"]


def is_name(source: str) -> bool:
    """Return whether a string has the form of a model name on the Hub, `organization/model`."""
    return _NAME.fullmatch(source) is not None


def fetch(name: str) -> Path:
    """Download a model and return its directory in the Hub's local cache.

    Raises:
        InputError: there is no such model, or the Hub cannot be reached; the message says what to do instead.
    """
    if not is_name(name):
        raise InputError(f"There is no directory {name}, and this is not the name of a model on the Hugging Face Hub (organization/model).")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise InputError(f"Cannot get {name} from the Hugging Face Hub: {str(error).splitlines()[0]} Check the name, or log in.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"There is no directory {name}, and the model cannot be downloaded from the Hugging Face Hub: there is no network, or the Hub "
            "is not responding. Download config.json, model.safetensors and the tokenizer files on a machine with network access, for "
            f"example with `hf download {name}`, and pass their directory."
        ) from error
