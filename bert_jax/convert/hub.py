"""Models by their name on the Hugging Face hub."""

import re
from pathlib import Path

from bert_jax.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What is read; a pickle is not even fetched.
_FILES = ["*.json", "*.txt", "*.safetensors", "1_Pooling/*"]


def is_name(source: str) -> bool:
    """Whether a text has the form of a name on the hub, `organisation/model`."""
    return _NAME.fullmatch(source) is not None


def fetch(name: str) -> Path:
    """The directory, in the hub's own cache, with the files of a model.

    Raises:
        InputError: no such model, or the hub cannot be reached, with what to do instead.
    """
    if not is_name(name):
        raise InputError(f"There is no directory {name}, and it is no name of a model on the Hugging Face hub (organisation/model).")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise InputError(f"The Hugging Face hub gives no model {name}: {str(error).splitlines()[0]} Check the name, or log in.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"There is no directory {name}, and the model of that name cannot be fetched from the Hugging Face hub: no network, or the hub "
            "does not answer. Fetch config.json, model.safetensors and the tokenizer's files on a machine with a network, for example "
            f"with `hf download {name}`, and name their directory."
        ) from error
