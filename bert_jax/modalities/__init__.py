"""What a corpus may consist of, a folder for each; `bert_jax.modalities.base` is what they have in common."""

from collections.abc import Iterable
from typing import Any

from bert_jax.config import CorpusConfig
from bert_jax.errors import InputError
from bert_jax.modalities.base import Modality
from bert_jax.modalities.text.modality import Text

MODALITIES: tuple[Modality[Any, Any], ...] = (Text(),)


def find(name: str, others: Iterable[Modality[Any, Any]] = ()) -> Modality[Any, Any]:
    """The modality of a name, among those of this package and others.

    Raises:
        InputError: there is none.
    """
    known = {modality.name: modality for modality in (*MODALITIES, *others)}
    if name not in known:
        raise InputError(
            f"There is no modality {name!r} here, but {', '.join(known)}. A program hands in one of its own, as in "
            "bert_jax.load(path, modalities=[...])."
        )
    return known[name]


def choices(others: Iterable[Modality[Any, Any]] = ()) -> dict[type, dict[str, type]]:
    """The classes that a configuration's `corpus` may be of, by the name that chooses them."""
    return {CorpusConfig: {modality.name: modality.options for modality in (*MODALITIES, *others)}}
