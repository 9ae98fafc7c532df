"""Scores of predicted tags: F1 of entities, as seqeval computes it in strict mode, and the accuracy of tags."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from bert_jax.tasks.tagging import schemes

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def entity_scores(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return `precision`, `recall` and `f1` of all entities, and the same of each type with its number of `entities`.

    An entity counts as found if its type and both of its ends are right. Tags are IOB2.
    """
    counts = {name: Counter[str]() for name in ("hits", "true", "predicted")}
    for true_tags, predicted_tags in zip(true, predicted, strict=True):
        expected, found = ({*schemes.strict_entities(tags)} for tags in (true_tags, predicted_tags))
        for name, entities in (("hits", expected & found), ("true", expected), ("predicted", found)):
            counts[name].update(entity.type for entity in entities)
    hits, wanted, got = (counts[name] for name in ("hits", "true", "predicted"))
    types = [
        {"type": kind, **_rates(hits[kind], got[kind], wanted[kind]), "entities": wanted[kind]} for kind in sorted(wanted | got)
    ]
    return _rates(hits.total(), got.total(), wanted.total()) | {"types": types}


def _rates(hits: int, predicted: int, true: int) -> dict[str, float]:
    precision, recall = (hits / count if count else 0.0 for count in (predicted, true))
    return {"precision": precision, "recall": recall, "f1": 2 * hits / (predicted + true) if predicted + true else 0.0}


def scores(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, Any]:
    """Return the accuracy of the tags of all texts, and the scores of entities or, if tags do not mark any, those of each tag.

    Args:
        true, predicted: the tags of each text, in IOB2 or without prefixes.
        names: all tags of the model.
    """
    pairs = [pair for one in zip(true, predicted, strict=True) for pair in zip(*one, strict=True)]
    accuracy = {"accuracy": sum(a == b for a, b in pairs) / len(pairs), "test_words": len(pairs)}
    if any(schemes.parts(name)[0] for name in names):
        return entity_scores(true, predicted) | accuracy
    return {"f1": None, **accuracy, "tags": _tag_scores(pairs)}


class TagScorer:
    """Compares predicted with true tags, word by word.

    Args:
        targets: array [n] of tuples, the indices of the true tags of each text.
        texts: the texts, as `bert_jax.tasks.tagging.words.Words`.
        names: the names of the tags.
        about: what the result also says.
    """

    def __init__(self, targets: np.ndarray, texts: Sequence[Any], names: Sequence[str], about: Mapping[str, Any] = _NOTHING) -> None:
        self._names, self._texts, self._about = names, texts, about
        self._true = [[names[tag] for tag in tags] for tags in targets]
        self._ends = np.cumsum([len(tags) for tags in targets], dtype=np.int64)
        # A word without a token is predicted to be outside of entities.
        self._found = np.full(int(self._ends[-1]), -1, np.int64)

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Add the predicted tags of the words with indices `examples`, int64 [k], and their probabilities: `found`, float32 [k, 2]."""
        self._found[examples] = found[:, 0].astype(np.int64)

    def _predicted(self, example: int) -> list[str]:
        end = self._ends[example]
        start = end - len(self._true[example])
        return [self._names[tag] if tag >= 0 else schemes.OUTSIDE for tag in self._found[start:end].tolist()]

    def result(self) -> dict[str, Any]:
        """Return the scores."""
        predicted = [self._predicted(example) for example in range(len(self._true))]
        return scores(self._true, predicted, self._names) | dict(self._about)

    def line(self, example: int) -> dict[str, Any]:
        """Return the words of a text and their true and predicted tags."""
        return {"words": list(self._texts[example].words), "tags": self._true[example], "predicted": self._predicted(example)}


def _tag_scores(pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    hits = Counter(true for true, predicted in pairs if true == predicted)
    wanted, got = Counter(true for true, _ in pairs), Counter(predicted for _, predicted in pairs)
    return [{"tag": tag, **_rates(hits[tag], got[tag], wanted[tag]), "words": wanted[tag]} for tag in sorted(wanted | got)]
