"""Simple baselines for the fine-tuning benchmark, which know the training texts and nothing else."""

import re
from collections.abc import Mapping

import numpy as np

from bert_jax.config import RunConfig
from bert_jax.data.labelled import Labelled
from bert_jax.modalities import find
from bert_jax.stages.run import plain_features
from bert_jax.tasks import finetuning
from bert_jax.tasks.answering.metrics import match_all, scoring_of
from bert_jax.tasks.regression import correlations

CLAUSE_ENDS = re.compile(r"(?<=[,;:.!?，；：。！？、])")


def linear(config: RunConfig, labelled: Labelled) -> Mapping[str, float]:
    """The scores of the task's linear model, on n-grams of characters or on features of the words."""
    assert config.finetune is not None
    return finetuning(config.finetune.task).linear_scores(labelled, lambda: plain_features(labelled, find("text"), None))


def similar(config: RunConfig, labelled: Labelled) -> Mapping[str, float]:
    """The correlations of the cosine of the TF-IDF vectors of both texts, of n-grams of characters."""
    del config
    both = [*labelled.train.texts, *(labelled.train.pairs or ())]
    test = [*labelled.test.texts, *(labelled.test.pairs or ())]
    vectors = find("text").features(None, both, test)[1]
    count = len(labelled.test)
    cosines = np.asarray(vectors[:count].multiply(vectors[count:]).sum(1)).ravel()
    return {name: value for name, value in correlations(labelled.test.targets, cosines).items() if value is not None}


def clauses(config: RunConfig, labelled: Labelled) -> Mapping[str, float]:
    """The scores of the clause of the passage that shares most bigrams of characters with the question, and is not longer than others."""
    del config
    passages = labelled.test.pairs or []
    found = []
    for question, passage in zip(labelled.test.texts, passages, strict=True):
        asked = _bigrams(question)
        parts = [part.strip() for part in CLAUSE_ENDS.split(passage) if part.strip()]
        found.append(max(parts, key=lambda part: (len(asked & _bigrams(part)), -len(part))))
    true = [[answer.text for answer in own] for own in labelled.test.targets]
    return match_all(found, true, scoring_of(passages)).of(np.ones(len(found), np.bool_))


def _bigrams(text: str) -> set[str]:
    lowered = text.lower()
    return {lowered[place : place + 2] for place in range(len(lowered) - 1)}
