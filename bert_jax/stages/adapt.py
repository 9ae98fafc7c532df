"""Task-adaptive pre-training (Gururangan et al. 2020, section 4): pre-training goes on with the texts of the training examples."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bert_jax.config import CorpusOptions, RunConfig
from bert_jax.data.labelled import LabelledExamples
from bert_jax.modalities.base import Modality


class TrainingTexts:
    """The texts of training examples as raw documents, and their source: each different text once, of pairs both texts.

    Examples that were left out of training, such as leaks and those held out as dev, are not in it.
    """

    stored_bytes = None

    def __init__(self, train: LabelledExamples, modality: Modality[Any, Any]) -> None:
        """Make a document of every text.

        Raises:
            InputError: the modality has no such documents.
        """
        self._modality = modality
        documents = map(modality.as_document, [*train.texts, *(train.pairs or ())])
        self._documents = {modality.content(document): document for document in documents}

    def open_source(self, name: str, config: CorpusOptions) -> "TrainingTexts":
        """Return the texts, which are the only source."""
        del name, config
        return self

    def content(self, document: Any) -> bytes:
        """Return the complete content of a document."""
        return self._modality.content(document)

    def key(self, document: Any) -> bytes:
        """Return a key that is equal for documents considered identical."""
        return self._modality.key(document)

    def identity(self) -> dict[str, Any]:
        """Return a hash of the texts, in order."""
        digest = hashlib.sha256()
        for content in self._documents:
            digest.update(hashlib.sha256(content).digest())
        return {"training texts": digest.hexdigest()}

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[Any]:
        """Yield each document; `on_read` is called with the size of each."""
        for content, document in self._documents.items():
            if on_read:
                on_read(len(content))
            yield document

    def parts(self) -> "list[TrainingTexts]":
        """Return the texts undivided."""
        return [self]


def adaptation(config: RunConfig, pretrained: Path) -> RunConfig:
    """Return the adapt stage of a configuration as a run of its own, which pre-trains further the model in `pretrained`.

    `corpus.valid_fraction` of the texts is held out, as of any corpus.
    """
    assert config.adapt is not None and config.finetune is not None
    corpus = dataclasses.replace(config.corpus, source=config.finetune.data.train, valid_source="")
    stage = dataclasses.replace(config.adapt, checkpoint=str(pretrained))
    return dataclasses.replace(config, corpus=corpus, pretrain=stage, adapt=None, finetune=None)
