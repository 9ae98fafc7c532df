"""How well vectors retrieve the second text of each pair, or rank scored pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bert_jax.tasks.contrastive.pairs import ANCHOR, NEGATIVE, POSITIVE
from bert_jax.tasks.similar import greatest

_ANCHORS_AT_ONCE = 512
_NEIGHBORS = 5
_MOST_POINTS = 1000
"""Test pairs in the chart of the report."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors [n, D] to length 1, as float32; zero vectors remain."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


class Found(NamedTuple):
    """What was retrieved for an anchor: the rank of its positive, and its nearest candidates with their cosines."""

    rank: float
    nearest: list[int]
    """Slots of the nearest candidates, nearest first."""
    cosines: list[float]
    correct: list[bool]
    """Whether each of the nearest is a positive of this anchor text."""


def retrieved(vectors: np.ndarray, targets: np.ndarray, neighbors: int = 0) -> Iterator[Found]:
    """Yield what is retrieved for each pair, in the order of the pairs.

    The candidates are all distinct texts of the second and third columns. Those that are positives of an equal anchor, and the anchor's
    own text, do not count against a positive. Candidates as near as the positive count half each, so that equal vectors earn nothing.

    Args:
        vectors: float32 [t, D], of any length.
        targets: int32 [t, 4], see `bert_jax.tasks.contrastive.pairs.single_texts`.
        neighbors: how many of the nearest candidates to return.
    """
    vectors, roles, texts = unit(vectors), targets[:, 1], targets[:, 2]
    slots = np.flatnonzero((roles == POSITIVE) | (roles == NEGATIVE))
    distinct, first = np.unique(texts[slots], return_index=True)
    slots = slots[first]
    candidates = vectors[slots]
    anchors = np.flatnonzero(roles == ANCHOR)
    anchors = anchors[np.argsort(targets[anchors, 0], kind="stable")]
    positives: dict[int, set[int]] = {}
    for text, positive in targets[anchors, 2:].tolist():
        positives.setdefault(text, set()).add(positive)
    for start in range(0, len(anchors), _ANCHORS_AT_ONCE):
        chunk = anchors[start : start + _ANCHORS_AT_ONCE]
        # NaN is no nearer than anything.
        for row, anchor in zip(np.nan_to_num(vectors[chunk] @ candidates.T, nan=-2.0), chunk.tolist(), strict=True):
            text, positive = targets[anchor, 2:].tolist()
            own = row[np.searchsorted(distinct, positive)]
            others = np.ones(len(row), np.bool_)
            others[_places(distinct, [*positives[text], text])] = False
            rank = 1 + int((row[others] > own).sum()) + 0.5 * int((row[others] == own).sum())
            nearest = greatest(row, neighbors) if neighbors else np.zeros(0, np.int64)
            correct = [int(distinct[place]) in positives[text] for place in nearest]
            yield Found(rank, slots[nearest].tolist(), row[nearest].tolist(), correct)


def _places(distinct: np.ndarray, texts: Sequence[int]) -> np.ndarray:
    """Return the indices of texts in a sorted array, of those that are there."""
    places = np.searchsorted(distinct, texts).clip(max=len(distinct) - 1)
    return places[distinct[places] == texts]


def retrieval_scores(ranks: Sequence[float]) -> dict[str, float]:
    """Return the mean reciprocal rank (Voorhees 1999), and the share of positives that are the nearest and among the 10 nearest."""
    found = np.array(ranks)
    return {"mrr": float((1 / found).mean()), "recall_at_1": float((found <= 1).mean()), "recall_at_10": float((found <= 10).mean())}


def pair_cosines(vectors: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of each pair, and the rank of its score, [pairs] each, in the order of the pairs."""
    order = np.lexsort((targets[:, 1], targets[:, 0]))
    vectors, ranks = unit(vectors)[order], targets[order, 3]
    return (vectors[0::2] * vectors[1::2]).sum(1), ranks[0::2]


def spearman(scores: np.ndarray, cosines: np.ndarray) -> float | None:
    """Return Spearman's rank correlation; None if it is undefined, since all scores or cosines are equal."""
    from scipy.stats import spearmanr

    if len(scores) < 2 or np.ptp(scores) == 0 or not np.ptp(cosines) > 0:
        return None
    return float(spearmanr(scores.astype(np.float64), cosines.astype(np.float64)).statistic)


def held_out_scores(vectors: np.ndarray, targets: np.ndarray, scored: bool) -> dict[str, float]:
    """Return the scores of held-out texts; an undefined correlation counts as 0."""
    if scored:
        cosines, ranks = pair_cosines(vectors, targets)
        return {"spearman": spearman(ranks, cosines) or 0.0}
    return retrieval_scores([found.rank for found in retrieved(vectors, targets)])


class VectorScorer:
    """Collects the vectors of the test texts, and scores them. Texts are compared with those whose vectors are of the same model.

    Args:
        texts: the texts, k per pair, as `bert_jax.tasks.contrastive.pairs.single_texts` returns them.
        targets: their targets, int32 [t, 4].
        scores: the scores of scored pairs, float32 [t / 2]; None for others.
    """

    def __init__(self, texts: Sequence[Any], targets: np.ndarray, scores: np.ndarray | None) -> None:
        self._texts, self._targets, self._scores = texts, targets, scores
        self._vectors = np.zeros((len(texts), 0), np.float32)
        self._models = np.zeros(len(texts), np.int64)

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Add the vectors `found`, float32 [k, D], that a model has for the texts with indices `examples`, int64 [k]."""
        if not self._vectors.size:
            self._vectors = np.zeros((len(self._texts), found.shape[1]), np.float32)
        self._vectors[examples], self._models[examples] = found, self._models.max() + 1

    @cached_property
    def _found(self) -> list[Found]:
        """What is retrieved for each pair, in the order of the pairs."""
        found = {}
        for model in np.unique(self._models):
            slots = np.flatnonzero(self._models == model)
            own = self._targets[slots]
            pairs = np.sort(own[own[:, 1] == ANCHOR, 0]).tolist()
            for pair, one in zip(pairs, retrieved(self._vectors[slots], own, _NEIGHBORS), strict=True):
                found[pair] = one._replace(nearest=slots[one.nearest].tolist())
        return [found[pair] for pair in sorted(found)]

    @cached_property
    def _cosines(self) -> np.ndarray:
        return pair_cosines(self._vectors, self._targets)[0]

    def result(self) -> dict[str, Any]:
        """Return the scores: of retrieval, or of the ranking of scored pairs, with the points of a chart."""
        if self._scores is None:
            candidates = len(np.unique(self._targets[self._targets[:, 1] != ANCHOR, 2]))
            return retrieval_scores([found.rank for found in self._found]) | {"spearman": None, "candidates": candidates}
        points = [[float(f"{value:.6g}") for value in pair] for pair in zip(self._scores, self._cosines, strict=True)]
        nothing = dict.fromkeys(retrieval_scores([1.0]))
        return nothing | {"spearman": spearman(self._scores, self._cosines), "points": points[:_MOST_POINTS]}

    def line(self, example: int) -> dict[str, Any]:
        """Return the rank of a pair's positive and the nearest texts, or the score and the cosine of a scored pair."""
        if self._scores is not None:
            return {"score": float(f"{self._scores[example]:.6g}"), "cosine": round(float(self._cosines[example]), 6)}
        found = self._found[example]
        nearest = zip(found.nearest, found.cosines, found.correct, strict=True)
        shown = [{"text": str(self._texts[slot]), "cosine": round(cosine, 6), "correct": correct} for slot, cosine, correct in nearest]
        return {"rank": found.rank, "nearest": shown}
