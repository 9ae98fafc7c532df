"""The attention weights of each text, which every encoder has, whatever its task."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.display import Json
from bert_jax.tasks.question import Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import Queries
    from bert_jax.data.reader import Reader

_MOST_WEIGHTS = 1 << 22
"""Weights in the answers of one call: as JSON, they are about 30 MB."""


@dataclass(frozen=True)
class AttentionWeights:
    """How much each token looks at each other: the n tokens with [CLS] and [SEP], and the weights, float32 [layers, heads, n, n].

    Row i of a head says how token i divides its attention: the row adds up to 1.
    """

    tokens: list[str]
    weights: np.ndarray


class Attention(Question):
    """The attention weights of each text or pair (Vaswani et al. 2017, section 3.2.1), for all layers or one."""

    name = "attention"
    help = "compute which token attends to which, by layer and head"
    examples = (
        "runs/demo/pretrain '房间很干净' --layer -1",
        "runs/demo/pretrain '房间很干净' --json",
    )
    pairs = "optional"
    options = ("layer",)
    quadratic = True

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add --layer."""
        command.add_argument("--layer", type=int, metavar="N", help="only this layer, from 1, or from -1 for the last (default: all)")

    def start(self, model: Loaded, layer: int | None = None, **_: Any) -> Callable[[Queries], Finish[list[AttentionWeights]]]:
        """Return a function that computes the weights of a chunk of texts or pairs.

        Raises:
            InputError: there is no such layer, or the engine computes the last layer only.
        """
        forward, encoder = model.forward, model.description.encoder
        forward.check_every_layer()
        if layer is not None and not 1 <= abs(layer) <= encoder.layers:
            raise InputError(f"layer={layer} is invalid: give a number from 1 to {encoder.layers}, or -1 for the last layer.")
        first = 0 if layer is None else layer - 1 if layer > 0 else encoder.layers + layer
        layers = range(first, encoder.layers if layer is None else first + 1)
        asked = 0

        def start(queries: Queries) -> Finish[list[AttentionWeights]]:
            nonlocal asked
            lengths = queries.examples.lengths
            asked += len(layers) * encoder.heads * int((lengths**2).sum())
            if asked > _MOST_WEIGHTS:
                noun = model.tokenizer.nouns.input
                raise InputError(
                    f"The result would have more than {_MOST_WEIGHTS:,} attention weights: ask about one layer, or about fewer or shorter "
                    f"{noun}s at once."
                )
            finish = forward.per_token(queries, forward.queries_and_keys)
            return lambda: _answers(queries, finish()[:, layers], encoder.heads, model.tokenizer)

        return start

    def portable(self, model: Loaded) -> Json:
        """Return the function."""
        return {"as": "attention"}

    def record(self, answer: AttentionWeights) -> dict[str, Any]:
        """Return a record with `tokens` and `weights`."""
        return {"tokens": answer.tokens, "weights": answer.weights.astype("float64").round(5).tolist()}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return, for each text, the token that each token looks at most, on average over the layers and heads."""
        import numpy as np

        lines = []
        for one in records:
            mean, tokens = np.mean(np.array(one["weights"]), (0, 1)), one["tokens"]
            lines.append(str(one["text"]))
            lines += [f"  {token} → {tokens[row.argmax()]} {row.max():.0%}" for token, row in zip(tokens, mean, strict=True)]
        return lines


def _answers(queries: Queries, projected: np.ndarray, heads: int, reader: Reader) -> list[AttentionWeights]:
    """Return the weights of each text from the queries and keys of all tokens, float32 [t, layers, 2, D]."""
    import numpy as np

    examples, texts = queries.examples, np.split(projected, np.cumsum(queries.examples.lengths)[:-1])
    return [
        AttentionWeights(_tokens(queries.tokens[slice(*a)], queries.tokens[slice(*b)], reader), _weights(own, heads))
        for a, b, own in zip(examples.a.tolist(), examples.b.tolist(), texts, strict=True)
    ]


def _tokens(a: np.ndarray, b: np.ndarray, reader: Reader) -> list[str]:
    ids = [reader.cls_id, *a.tolist(), reader.sep_id, *b.tolist(), *([reader.sep_id] if len(b) else [])]
    return [*reader.tokens(ids)]


def _weights(projected: np.ndarray, heads: int) -> np.ndarray:
    """Return the softmax of the scaled products of queries and keys: [n, layers, 2, D] -> [layers, heads, n, n]."""
    import numpy as np

    count, layers, _, width = projected.shape
    queries, keys = projected.reshape(count, layers, 2, heads, width // heads).transpose(2, 1, 3, 0, 4)
    scores = queries @ keys.swapaxes(-1, -2) / np.float32(np.sqrt(width // heads))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    found: np.ndarray = weights / weights.sum(-1, keepdims=True)
    return found
