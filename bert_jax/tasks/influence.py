"""The tokens that a prediction depends on, for tasks with one vector of outputs per example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.places import with_places
from bert_jax.tasks.pooled import PARTS
from bert_jax.tasks.question import Answers, Ask, Loaded, Question

if TYPE_CHECKING:
    from bert_jax.data.queries import Queries


@dataclass(frozen=True)
class InfluentialToken:
    """A token of a text, and how much it speaks for the verdict (above 0) or against it.

    Its place is `start` to `end` (exclusive), in characters, or in units of an image or a recording.
    """

    token: str
    start: int
    end: int
    influence: float


class Influence(Question):
    """How much each token of a text contributes to the greatest output: its gradient by the token's vector, times that vector.

    The vectors are those that enter the encoder. The method is known as gradient times input (Shrikumar et al. 2017 discuss its limits).
    """

    name = "influence"
    help = "show which tokens speak for and against the prediction for a text"
    examples = (
        "runs/demo/finetune '房间很干净'",
        "runs/demo/finetune texts.txt --output influence.jsonl",
    )
    parts = PARTS

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[Any], pairs: Iterable[Any] | None, **options: Any) -> Answers:
        """Return the tokens of each text, without [CLS] and [SEP]."""
        tokenizer, answers = model.tokenizer, []
        for (ids, values), places in with_places(ask, texts, self.start(model, **options), self.encode):
            fields = zip(tokenizer.tokens(ids.tolist()), places[: len(ids)].tolist(), values.tolist(), strict=True)
            answers.append([InfluentialToken(token, start, end, value) for token, (start, end), value in fields])
        return answers

    def start(self, model: Loaded, **_: Any) -> Callable[[Queries], Finish[list[Any]]]:
        """Return a function that computes, for each text, the ids and the influence of its tokens.

        Raises:
            InputError: the engine has no gradients.
        """
        import numpy as np

        from bert_jax.tasks.scores import gradient_times_input

        forward = model.forward
        forward.check_every_layer()

        def start(queries: Queries) -> Finish[list[Any]]:
            finish = forward.per_token(queries, lambda batch: gradient_times_input(forward.model, forward.params, batch))
            ends = np.cumsum(queries.examples.lengths)[:-1]
            return lambda: [
                (queries.tokens[slice(*own)], values[1:-1])
                for own, values in zip(queries.examples.a.tolist(), np.split(finish(), ends), strict=True)
            ]

        return start

    def record(self, answer: list[InfluentialToken]) -> dict[str, Any]:
        """Return a record with `tokens`."""
        return {"tokens": [vars(one) | {"influence": round(one.influence, 6)} for one in answer]}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return each text, and below it its tokens with their influence."""
        return [
            line
            for one in records
            for line in (str(one["text"]), *(f"{token['influence']:9.3f}  {token['token']}" for token in one["tokens"]))
        ]
