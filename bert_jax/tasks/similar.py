"""The nearest of given texts, which every encoder can find, whatever its task."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bert_jax.errors import InputError, TextError
from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.embedding import Embed, text_length
from bert_jax.tasks.question import Answers, Ask, Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import Queries

_EMBED = Embed()
_MOST_COSINES = 1 << 24
"""Cosines that are in memory at once."""
_QUERY_PROMPTS, _TEXT_PROMPTS = ("query",), ("document", "passage", "corpus")
"""Prompts that sentence-transformers uses for queries and for the texts that are searched, if a model has them."""


@dataclass(frozen=True)
class Neighbor:
    """A text that is near a query: its index among the texts, counted from 0, and the cosine of both vectors."""

    text: Any
    index: int
    cosine: float


@dataclass(frozen=True)
class Searchable:
    """Texts with their vectors, float32 [n, D], of length 1."""

    texts: Sequence[Any]
    vectors: np.ndarray


class Similar(Question):
    """The texts nearest to each query, by the cosine of their embeddings."""

    name = "similar"
    help = "find the texts that are nearest to each query"
    examples = (
        "runs/demo/pretrain '房间很干净' '再也不来了' --texts texts.txt --top-k 3",
        "runs/demo/pretrain texts.txt --texts reviews.tsv --output nearest.jsonl",
    )
    options = ("among", "top_k")
    files = ("among",)

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add --texts and --top-k."""
        command.add_argument(
            "--texts", dest="among", metavar="FILE", required=True, help="the file of texts to search, in the same formats as INPUT"
        )
        command.add_argument("--top-k", type=int, default=5, metavar="K", help="number of texts per query (default: %(default)s)")

    def start(self, model: Loaded, **options: Any) -> Callable[[Queries], Finish[np.ndarray]]:
        """Return a function that computes the vectors of a chunk of queries."""
        return _EMBED.start(model, prompt_name=_prompt(model, _QUERY_PROMPTS))

    def prepared(self, model: Loaded, ask: Ask, **options: Any) -> dict[str, Any]:
        """Embed the texts to search.

        Raises:
            InputError: there are none, one of them is empty, or `top_k` is not positive.
        """
        if options.get("top_k", 1) < 1:
            raise InputError(f"top_k={options['top_k']} is invalid: it must be at least 1.")
        among = options.get("among")
        if isinstance(among, Searchable):
            return options
        noun = model.tokenizer.nouns.input
        texts = [] if among is None else [among] if model.tokenizer.is_one(among) else list(among)
        if not texts:
            raise InputError(f"There are no {noun}s to search: give at least one.")
        try:
            vectors = _unit_vectors(model, ask, texts, _TEXT_PROMPTS)
        except TextError as error:
            raise InputError(f"The {noun} to search at index {error.index} (counted from 0) {error.problem}") from None
        return options | {"among": Searchable(texts, vectors)}

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[Any], pairs: Iterable[Any] | None, **options: Any) -> Answers:
        """Return the nearest texts of each query, nearest first; of equally near ones, those that come first."""
        found = self.prepared(model, ask, **options)
        searched: Searchable = found["among"]
        vectors = _unit_vectors(model, ask, texts, _QUERY_PROMPTS)
        at_once = max(1, _MOST_COSINES // len(searched.texts))
        answers = []
        for start in range(0, len(vectors), at_once):
            for row in vectors[start : start + at_once] @ searched.vectors.T:
                nearest = greatest(row, found.get("top_k", 5)).tolist()
                answers.append([Neighbor(searched.texts[index], index, float(row[index])) for index in nearest])
        return answers

    def record(self, answer: Sequence[Neighbor]) -> dict[str, Any]:
        """Return a record with `nearest`: the texts with their indices and cosines."""
        return {"nearest": [{"text": str(one.text), "index": one.index, "cosine": round(one.cosine, 6)} for one in answer]}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return each query, and below it the nearest texts with their cosines."""
        return [
            line
            for one in records
            for line in (one["text"], *(f"  {near['cosine']:6.3f}  {near['text']}" for near in one["nearest"]))
        ]

    def prefix(self, model: Loaded, option: str = "", **options: Any) -> str:
        """Return the prompt of queries, or that of the texts to search."""
        return _EMBED.prefix(model, prompt_name=_prompt(model, _TEXT_PROMPTS if option else _QUERY_PROMPTS))

    def max_tokens(self, model: Loaded) -> int:
        """Return the limit of embeddings."""
        return text_length(model.description)


def greatest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` greatest of the values [n], greatest first, and of equal ones the first first."""
    import numpy as np

    values = np.nan_to_num(values, nan=-np.inf)
    least = np.partition(values, -count)[-count] if count < len(values) else -np.inf
    indices = np.flatnonzero(values >= least)
    return indices[np.argsort(-values[indices], kind="stable")][:count]


def _unit_vectors(model: Loaded, ask: Ask, texts: Iterable[Any], prompts: Sequence[str]) -> np.ndarray:
    return _EMBED.ask(model, ask, texts, None, normalize=True, prompt_name=_prompt(model, prompts))


def _prompt(model: Loaded, names: Sequence[str]) -> str | None:
    """Return the first of these names that the model has a prompt for; None for its default prompt."""
    return next((name for name in names if name in model.description.embedding.prompts), None)
