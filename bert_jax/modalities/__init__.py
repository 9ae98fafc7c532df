"""Input modalities, one folder each; `bert_jax.modalities.base` defines their common interface."""

from collections.abc import Iterable
from typing import Any

from bert_jax.config import CorpusConfig, VocabularyConfig
from bert_jax.errors import InputError
from bert_jax.modalities.audio.modality import Audio
from bert_jax.modalities.base import Modality
from bert_jax.modalities.image.modality import Image
from bert_jax.modalities.media.options import CodebookConfig
from bert_jax.modalities.text.modality import Text

MODALITIES: tuple[Modality[Any, Any], ...] = (Text(), Image(), Audio())


def find(name: str, others: Iterable[Modality[Any, Any]] = ()) -> Modality[Any, Any]:
    """Return the modality called `name`, from this package or from `others`.

    Raises:
        InputError: there is no such modality.
    """
    known = {modality.name: modality for modality in (*MODALITIES, *others)}
    if name not in known:
        raise InputError(
            f"There is no modality {name!r}; the known ones are {', '.join(known)}. A program can pass in its own, as in "
            "bert_jax.load(path, modalities=[...])."
        )
    return known[name]


def recognize(source: str) -> Modality[Any, Any]:
    """Return the modality of the files of a source: text, unless it has no text but files of another modality.

    Raises:
        InputError: it has files of several other modalities.
    """
    text, *others = MODALITIES
    found = [modality for modality in others if modality.recognizes(source)]
    if not found or text.recognizes(source):
        return text
    if len(found) > 1:
        names = [modality.name for modality in found]
        raise InputError(f"{source} has files of the modalities {' and '.join(names)}: choose one with --modality={names[0]}.")
    return found[0]


def choices(others: Iterable[Modality[Any, Any]] = ()) -> dict[type, dict[str, type]]:
    """Return the possible classes of a configuration's `corpus`, by the name of the modality, and of its `vocabulary`, by its kind."""
    of_text = dict.fromkeys(("wordpiece", "characters", "words", "bytes"), VocabularyConfig)
    kinds = {**of_text, "codebook": CodebookConfig}
    return {CorpusConfig: {modality.name: modality.options for modality in (*MODALITIES, *others)}, VocabularyConfig: kinds}
