"""What a pre-trained model answers: blanks, how probable texts are, whether a sentence follows."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish, one_ahead
from bert_jax.runtime.terminal import padded, percent, width
from bert_jax.tasks.base import Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import Queries
    from bert_jax.modalities.text.tokenizer import Tokenizer
    from bert_jax.model.directory import ModelDescription

_SCORED_BATCHES = 32
"""Batches that the copies of texts to be scored fill at once."""

ONE_SEGMENT_TYPE = (
    "This model has one segment type (encoder.segment_types=1), so it cannot tell sentence B from A. Load one with two to ask about pairs."
)


@dataclass(frozen=True)
class Prediction:
    """A token that may stand in a blank."""

    token: str
    id: int
    probability: float


class FillMask(Question):
    """The most probable tokens at every [MASK]; every mask for itself, the others unknown."""

    name = "fill_mask"
    help = "fill the blanks of texts"
    examples = (
        "runs/demo/pretrain '这家酒店的服务很[MASK]。'",
        "runs/demo/pretrain texts.txt --words 好,差 --output filled.jsonl",
    )
    parts = ("masked_token",)
    masked = True
    options = ("top_k", "words")

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """--top-k and --words."""
        command.add_argument("--top-k", type=int, default=5, help="predictions for each [MASK] (default: %(default)s)")
        command.add_argument("--words", type=_words, metavar="WORD,WORD,...", help="predict none but these (default: the whole vocabulary)")

    def start(self, model: Loaded, top_k: int = 5, words: Sequence[str] | None = None, **_: Any) -> Callable[[Queries], Finish[Any]]:
        """Of each text a list of predictions for each of its masks."""
        from bert_jax.tasks.pretraining.answers import top_tokens

        tokenizer, forward = model.tokenizer, model.forward
        if not 1 <= top_k <= tokenizer.vocab_size:
            raise InputError(f"top_k={top_k} is not possible: it takes 1 to {tokenizer.vocab_size}, the size of the vocabulary.")
        allowed = allowed_answers(tokenizer, words, model.description.spare_rows)
        head = partial(top_tokens, forward.model, forward.params, allowed=allowed, top_k=min(top_k, int(allowed.sum())))

        def start(queries: Queries) -> Finish[list[list[list[Prediction]]]]:
            finish = forward.at_masked(queries, lambda hidden, rows, columns, _: head(hidden, rows, columns))
            return lambda: _predictions(tokenizer, queries, *finish())

        return start

    def record(self, answer: list[list[Prediction]]) -> dict[str, Any]:
        """`masks`: for each the tokens, their ids and probabilities."""
        masks = [[{"token": p.token, "id": p.id, "probability": round(p.probability, 6)} for p in mask] for mask in answer]
        return {"masks": masks}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Below each text a column for every mask."""
        lines = []
        for one in records:
            lines.append(one["text"])
            columns = [_column(mask) for mask in one["masks"]]
            lines += ["  " + "    ".join(cells) for cells in zip(*columns, strict=True)]
        return lines


class Score(Question):
    """How probable the model finds a text (Salazar et al. 2020, section 2)."""

    name = "score"
    help = "tell how likely texts are"
    examples = ("runs/demo/pretrain '房间很干净' '房间很干静'", "runs/demo/pretrain texts.txt --output scores.jsonl")
    parts = ("masked_token",)

    def start(self, model: Loaded, **options: Any) -> Callable[[Queries], Finish[list[float]]]:
        """Of each text the sum of the log-probabilities of its tokens, each masked alone."""
        import numpy as np

        from bert_jax.data.queries import mask_one_by_one
        from bert_jax.tasks.pretraining.answers import log_probabilities

        tokenizer, forward = model.tokenizer, model.forward
        uncounted = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
        at_once = _SCORED_BATCHES * forward.shapes.devices * forward.shapes.tokens
        head = partial(log_probabilities, forward.model, forward.params)

        def sums(count: int, texts: np.ndarray, copies: Queries) -> Finish[np.ndarray]:
            tokens = copies.tokens[copies.masked]
            finish = forward.at_masked(copies, lambda hidden, rows, columns, which: head(hidden, rows, columns, tokens[which]))
            return lambda: np.bincount(texts, finish(), count)

        def start(queries: Queries) -> Finish[list[float]]:
            count = len(queries.examples)
            started = (sums(count, *copied) for copied in mask_one_by_one(queries, uncounted, at_once))
            total: np.ndarray = sum(one_ahead(started), np.zeros(count))
            return total.tolist

        return start

    def record(self, answer: float) -> dict[str, Any]:
        """`score`."""
        return {"score": round(answer, 6)}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """The score and the text."""
        return [f"{one['score']:8.2f}  {one['text']}" for one in records]


class NextSentence(Question):
    """The probability that B follows A (for a model of sentence order: that they are not swapped)."""

    name = "next_sentence"
    help = "tell whether a sentence follows another"
    examples = ("runs/demo/pretrain '他打开门。' '屋里没有人。'", "runs/demo/pretrain pairs.tsv --text a --text-pair b")
    parts = ("pooler", "next_sentence")
    pairs = "required"

    def fault(self, description: ModelDescription) -> str:
        """It was not trained, or there is one segment type."""
        if description.next_sentence == "none":
            return (
                "This model was pre-trained without the next-sentence task (pretrain.rows.next_sentence='none'), so it cannot tell "
                "whether a sentence follows. Load a model that was trained with 'nsp' or 'sop'."
            )
        return ONE_SEGMENT_TYPE if description.encoder.segment_types == 1 else ""

    def start(self, model: Loaded, **options: Any) -> Callable[[Queries], Finish[list[float]]]:
        """The probability of each pair."""
        from bert_jax.tasks.pretraining.answers import follows

        forward = model.forward

        def work(batch: Any) -> Any:
            return follows(forward.model, forward.params, forward.encode(batch), batch["cls_positions"])

        def start(queries: Queries) -> Finish[list[float]]:
            finish = forward.of_examples(queries, work)
            return lambda: finish().tolist()

        return start

    def record(self, answer: float) -> dict[str, Any]:
        """`probability`."""
        return {"probability": round(answer, 6)}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """The probability and both sentences."""
        return [f"{percent(one['probability'])}  {one['text']} | {one['text_pair']}" for one in records]


def _words(text: str) -> list[str]:
    words = [word for word in re.split("[,，]", text) if word]
    if not words:
        raise argparse.ArgumentTypeError("it names no word, as 好,差 would")
    return words


def _predictions(tokenizer: Tokenizer, queries: Queries, probabilities: np.ndarray, ids: np.ndarray) -> list[list[list[Prediction]]]:
    """The predictions [masks, top_k] of each text."""
    import numpy as np

    masks, most = ids.shape
    flat = ids.ravel().tolist()
    made = [Prediction(*fields) for fields in zip(tokenizer.tokens(flat), flat, probabilities.ravel().tolist(), strict=True)]
    columns = iter([made[start : start + most] for start in range(0, masks * most, most)])
    return [list(itertools.islice(columns, count)) for count in np.bincount(queries.owners).tolist()]


def _column(mask: list[dict[str, Any]]) -> list[str]:
    columns = max(width(prediction["token"]) for prediction in mask)
    return [padded(prediction["token"], columns) + "  " + percent(prediction["probability"]) for prediction in mask]


def allowed_answers(tokenizer: Tokenizer, words: Sequence[str] | None, spare_rows: int) -> np.ndarray:
    """Which rows of the token table may be answers, bool [V]: the tokens of `words`, or all tokens."""
    import numpy as np

    allowed = np.zeros(tokenizer.vocab_size + spare_rows, np.bool_)
    if words is None:
        allowed[: tokenizer.vocab_size] = True
        return allowed
    if isinstance(words, str) or not len(words):
        raise InputError(f"words={words!r} is not possible: give a list of one or more words, or None for the whole vocabulary.")
    allowed[[_word_id(tokenizer, word) for word in words]] = True
    return allowed


def _word_id(tokenizer: Tokenizer, word: str) -> int:
    try:
        return tokenizer.id(word)
    except KeyError:
        ids = tokenizer.encode(str(word)).ids.tolist()
    if len(ids) != 1 or ids[0] == tokenizer.unk_id:
        pieces = f"the pieces {' '.join(tokenizer.tokens(ids))}" if ids else "nothing that can be read"
        raise InputError(f"The word {word!r} is not one token of the vocabulary but {pieces}, so it cannot fill a [MASK]: leave it out.")
    return int(ids[0])
