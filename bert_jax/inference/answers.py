"""What a model answers, and which tokens it may answer with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_jax.errors import InputError
from bert_jax.modalities.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prediction:
    """A token that may stand in a blank."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class Classification:
    """The likeliest class of a text, and the probability of each."""

    label: str
    probability: float
    probabilities: dict[str, float]


def allowed_answers(tokenizer: Tokenizer, words: Sequence[str] | None, spare_rows: int) -> np.ndarray:
    """Which rows of the token table may be answers, bool [V]: the tokens of `words`, or all tokens."""
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
