"""The questions that a pre-trained model answers: filling blanks, scoring texts and next-sentence prediction."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish, one_ahead
from bert_jax.runtime.terminal import padded, percent, width
from bert_jax.tasks.display import Json
from bert_jax.tasks.places import with_places
from bert_jax.tasks.question import ONE_SEGMENT_TYPE, Answers, Ask, Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import Queries
    from bert_jax.data.reader import Reader
    from bert_jax.model.directory import ModelDescription

    _Columns: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]

_BATCHES_PER_CHUNK = 32
"""Number of batches of masked copies of texts that are processed together when texts are scored."""


@dataclass(frozen=True)
class Prediction:
    """A predicted token for a blank."""

    token: str
    id: int
    probability: float


class FillMask(Question):
    """The most probable tokens at every [MASK]; each mask is predicted independently of the others."""

    name = "fill_mask"
    help = "predict what is masked in texts, images or recordings"
    examples = (
        "runs/demo/pretrain '这家酒店的服务很[MASK]。'",
        "runs/demo/pretrain texts.txt --words 好,差 --output filled.jsonl",
        "runs/images/pretrain 'photos/0.png#xywh=8,8,16,16'",
        "runs/audio/pretrain 'recordings/0.wav#t=0.1,0.3'",
    )
    parts = ("masked_token",)
    masked = True
    options = ("top_k", "words")

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add --top-k and --words."""
        command.add_argument("--top-k", type=int, default=5, help="number of predictions per [MASK] (default: %(default)s)")
        command.add_argument(
            "--words", type=_words, metavar="WORD,WORD,...", help="only predict these words, or codes (default: the whole vocabulary)"
        )

    def start(self, model: Loaded, top_k: int = 5, words: Sequence[str] | None = None, **_: Any) -> Callable[[Queries], Finish[Any]]:
        """Return a function that computes, for each text, a list of predictions for each of its masks."""
        from bert_jax.tasks.pretraining.answers import top_tokens

        tokenizer, forward = model.tokenizer, model.forward
        if not 1 <= top_k <= tokenizer.vocab_size:
            raise InputError(f"top_k={top_k} is invalid: it must be from 1 to {tokenizer.vocab_size}, the size of the vocabulary.")
        allowed = allowed_answers(tokenizer, words, model.description.spare_rows)
        head = partial(top_tokens, forward.model, forward.params, allowed=allowed, top_k=min(top_k, int(allowed.sum())))

        def start(queries: Queries) -> Finish[list[list[list[Prediction]]]]:
            finish = forward.per_masked_token(queries, lambda hidden, rows, columns, _: head(hidden, rows, columns))
            return lambda: _predictions(tokenizer, queries, *finish())

        return start

    def predictions(self, masks: int, top_k: int = 5, words: Sequence[str] | None = None, **_: Any) -> int:
        """Return the number of tokens that are predicted."""
        return masks * (top_k if words is None else min(top_k, len(words)))

    def portable(self, model: Loaded) -> Json:
        """Return the function."""
        return {"as": "fill_mask"}

    def record(self, answer: list[list[Prediction]]) -> dict[str, Any]:
        """Return a record with `masks`: for each mask, the tokens, their ids and probabilities."""
        masks = [[{"token": p.token, "id": p.id, "probability": round(p.probability, 6)} for p in mask] for mask in answer]
        return {"masks": masks}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return each text followed by a column of predictions per mask."""
        lines = []
        for one in records:
            lines.append(one["text"])
            columns = [_column(mask) for mask in one["masks"]]
            lines += ["  " + "    ".join(cells) for cells in zip(*columns, strict=True)]
        return lines


@dataclass(frozen=True)
class ScoredToken:
    """A token of a text, with its natural log probability when it alone is masked.

    Its place is `start` to `end` (exclusive), in characters, or in units of an image or a recording.
    """

    token: str
    start: int
    end: int
    log_probability: float


class Score(Question):
    """The pseudo-log-likelihood of each text (Salazar et al. 2020, section 2), or the terms of its sum, token by token."""

    name = "score"
    help = "score how probable texts, images or recordings are"
    examples = (
        "runs/demo/pretrain '房间很干净' '房间很干静'",
        "runs/demo/pretrain '房间很干静' --tokens",
        "runs/demo/pretrain texts.txt --output scores.jsonl",
        "runs/images/pretrain photos/0.png photos/1.png",
    )
    parts = ("masked_token",)
    options = ("tokens",)

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add --tokens."""
        command.add_argument("--tokens", action="store_const", const=True, help="also give the log probability of each token")

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[Any], pairs: Iterable[Any] | None, **options: Any) -> Answers:
        """Return the score of each text, or with `tokens` its scored tokens."""
        if not options.get("tokens"):
            return super().ask(model, ask, texts, pairs, **options)
        found = with_places(ask, texts, self.start(model, **options), self.encode)
        return [_scored_tokens(model.tokenizer, scored, places) for scored, places in found]

    def start(self, model: Loaded, tokens: bool = False, **_: Any) -> Callable[[Queries], Finish[list[Any]]]:
        """Return a function that computes, for each text, the sum of the log probabilities of its tokens, masked one at a time.

        With `tokens`, the function returns the terms: for each text, the indices of its tokens, their ids and their log probabilities.
        """
        import numpy as np

        from bert_jax.data.queries import mask_one_by_one
        from bert_jax.tasks.pretraining.answers import log_probabilities

        tokenizer, forward = model.tokenizer, model.forward
        special_ids = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
        max_tokens = _BATCHES_PER_CHUNK * forward.shapes.devices * forward.shapes.tokens
        head = partial(log_probabilities, forward.model, forward.params)

        def terms(texts: np.ndarray, copies: Queries) -> Finish[_Columns]:
            ids = copies.tokens[copies.masked]
            finish = forward.per_masked_token(copies, lambda hidden, rows, columns, which: head(hidden, rows, columns, ids[which]))
            return lambda: (texts, copies.masked, finish())

        def start(queries: Queries) -> Finish[list[Any]]:
            count = len(queries.examples)
            found = one_ahead(terms(*copied) for copied in mask_one_by_one(queries, special_ids, max_tokens))
            if tokens:
                return partial(_by_text, queries, [*found])
            total: np.ndarray = sum((np.bincount(texts, values, count) for texts, _, values in found), np.zeros(count))
            return total.tolist

        return start

    def portable(self, model: Loaded) -> Json:
        """Return the function."""
        return {"as": "score"}

    def record(self, answer: float | list[ScoredToken]) -> dict[str, Any]:
        """Return a record with `score`, and `tokens` if they were asked for."""
        if isinstance(answer, float):
            return {"score": round(answer, 6)}
        tokens = [vars(one) | {"log_probability": round(one.log_probability, 6)} for one in answer]
        return {"score": round(sum(one.log_probability for one in answer), 6), "tokens": tokens}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return the score and the text, one line per record, and below it its tokens, if they were asked for."""
        lines = []
        for one in records:
            lines.append(f"{one['score']:8.2f}  {one['text']}")
            lines += [f"{token['log_probability']:8.2f}    {token['token']}" for token in one.get("tokens", ())]
        return lines


class NextSentence(Question):
    """The probability that B follows A (for a model trained on sentence order: that A and B are not swapped)."""

    name = "next_sentence"
    help = "predict whether one sentence, image half or recording follows another"
    examples = ("runs/demo/pretrain '他打开门。' '屋里没有人。'", "runs/demo/pretrain pairs.tsv --text a --text-pair b")
    parts = ("pooler", "next_sentence")
    pairs = "required"

    def why_not(self, description: ModelDescription) -> str:
        """Return the reason if the head was not trained, or if the model has only one segment type."""
        if description.next_sentence == "none":
            return (
                "This model was pre-trained without the next-sentence task (pretrain.rows.next_sentence='none'), so it cannot predict "
                "whether a sentence follows. Load a model that was trained with 'nsp' or 'sop'."
            )
        return ONE_SEGMENT_TYPE if description.encoder.segment_types == 1 else ""

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[Any], pairs: Iterable[Any] | None, **options: Any) -> Answers:
        """Return the probability of each pair."""
        reader = model.tokenizer
        firsts, seconds = map(reader.first_half, texts), None if pairs is None else map(reader.second_half, pairs)
        return super().ask(model, ask, firsts, seconds, **options)

    def start(self, model: Loaded, **options: Any) -> Callable[[Queries], Finish[list[float]]]:
        """Return a function that computes the probability of each pair."""
        from bert_jax.tasks.pretraining.answers import follows

        forward = model.forward

        def work(batch: Any) -> Any:
            return follows(forward.model, forward.params, forward.encode(batch), batch["cls_positions"])

        def start(queries: Queries) -> Finish[list[float]]:
            finish = forward.per_example(queries, work)
            return lambda: finish().tolist()

        return start

    def portable(self, model: Loaded) -> Json:
        """Return the function."""
        return {"as": "next_sentence"}

    def record(self, answer: float) -> dict[str, Any]:
        """Return a record with `probability`."""
        return {"probability": round(answer, 6)}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return the probability and both sentences, one line per record."""
        return [f"{percent(one['probability'])}  {one['text']} | {one['text_pair']}" for one in records]


def _words(text: str) -> list[str]:
    words = [word for word in re.split("[,，]", text) if word]
    if not words:
        raise argparse.ArgumentTypeError("give one or more words separated by commas, such as 好,差")
    return words


def _predictions(tokenizer: Reader, queries: Queries, probabilities: np.ndarray, ids: np.ndarray) -> list[list[list[Prediction]]]:
    """Group predictions [masks, top_k] by text."""
    import numpy as np

    masks, top_k = ids.shape
    flat = ids.ravel().tolist()
    predictions = [Prediction(*fields) for fields in zip(tokenizer.tokens(flat), flat, probabilities.ravel().tolist(), strict=True)]
    columns = iter([predictions[start : start + top_k] for start in range(0, masks * top_k, top_k)])
    return [list(itertools.islice(columns, count)) for count in np.bincount(queries.owners).tolist()]


def _by_text(queries: Queries, found: Sequence[_Columns]) -> list[_Columns]:
    """Return, for each text, the indices of its scored tokens, their ids and their values, from (texts, places in `queries`, values)."""
    import numpy as np

    scored, values = np.zeros(len(queries.tokens), np.bool_), np.zeros(len(queries.tokens))
    for _, places, own in found:
        scored[places], values[places] = True, own
    answers = []
    for begin, end in queries.examples.a.tolist():
        indices = np.flatnonzero(scored[begin:end])
        answers.append((indices, queries.tokens[begin + indices], values[begin + indices]))
    return answers


def _scored_tokens(tokenizer: Reader, scored: _Columns, places: np.ndarray) -> list[ScoredToken]:
    indices, ids, values = scored
    fields = zip(tokenizer.tokens(ids.tolist()), places[indices].tolist(), values.tolist(), strict=True)
    return [ScoredToken(token, start, end, value) for token, (start, end), value in fields]


def _column(mask: list[dict[str, Any]]) -> list[str]:
    columns = max(width(prediction["token"]) for prediction in mask)
    return [padded(prediction["token"], columns) + "  " + percent(prediction["probability"]) for prediction in mask]


def allowed_answers(tokenizer: Reader, words: Sequence[str] | None, spare_rows: int) -> np.ndarray:
    """Return which rows of the token table may be predicted, bool [V]: the tokens of `words`, or all tokens.

    Raises:
        InputError: `words` is not a list, is empty, or has a word that is not a single token.
    """
    import numpy as np

    allowed = np.zeros(tokenizer.vocab_size + spare_rows, np.bool_)
    if words is None:
        allowed[: tokenizer.vocab_size] = True
        return allowed
    if isinstance(words, str) or not len(words):
        raise InputError(f"words={words!r} is invalid: give a list of one or more words, or None for the whole vocabulary.")
    allowed[[_word_id(tokenizer, word) for word in words]] = True
    return allowed


def _word_id(tokenizer: Reader, word: str) -> int:
    try:
        return tokenizer.id(word)
    except KeyError:
        ids = tokenizer.encode_flat([str(word)]).ids.tolist()
    if len(ids) != 1 or ids[0] == tokenizer.unk_id:
        pieces = f"the pieces {' '.join(tokenizer.tokens(ids))}" if ids else "nothing"
        raise InputError(f"The word {word!r} is not a single token of the vocabulary but {pieces}, so it cannot fill a [MASK]: remove it.")
    return int(ids[0])
