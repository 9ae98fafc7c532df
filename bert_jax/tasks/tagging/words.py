"""Texts that are divided into words, and the tokens of these words."""

import dataclasses
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from bert_jax.data.windows import Windows, read_texts
from bert_jax.errors import TextError


@dataclass(frozen=True)
class Words:
    """A text given as words; its string is the words with spaces between them, except next to Chinese characters."""

    words: tuple[str, ...]

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """The start and end (exclusive) of each word in the string."""
        spans, place, wide = [], 0, True
        for word in self.words:
            begins_wide = not word or _is_wide(word[0])
            place += not (wide or begins_wide)
            spans.append((place, place + len(word)))
            place += len(word)
            wide = _is_wide(word[-1]) if word else wide
        return spans

    @cached_property
    def pieces(self) -> list[str]:
        """The words, each with the space that follows it in the string."""
        next_starts = [start for start, _ in self.spans[1:]] + [end for _, end in self.spans[-1:]]
        return [word + " " * (start - end) for word, (_, end), start in zip(self.words, self.spans, next_starts, strict=True)]

    @cached_property
    def identity(self) -> str:
        """The string."""
        return "".join(self.pieces)

    def __str__(self) -> str:
        return self.identity


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


class TokenizedWords(NamedTuple):
    """Texts as tokens and words.

    Attributes:
        ids: int32 [t], the token ids of all texts.
        word_starts: bool [t].
        ranges: int64 [n, 2], the tokens of each text.
        first: int64 [w], the first token of each word of all texts; -1 for a word that has none, such as a control character.
        counts: int64 [n], the number of words of each text.
        spans: int64 [w, 2], start and end of each word in the string of its text.
    """

    ids: np.ndarray
    word_starts: np.ndarray
    ranges: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    spans: np.ndarray

    def items(self) -> np.ndarray:
        """Return the word whose first token each token is, int64 [t]; -1 for other tokens."""
        items = np.full(len(self.ids), -1, np.int64)
        has = np.flatnonzero(self.first >= 0)
        items[self.first[has]] = has
        return items


def tokenize_words(texts: Sequence[Words], reader: Any) -> TokenizedWords:
    """Tokenize texts that are divided into words, each word on its own, with the space that follows it in the string."""
    counts = np.array([len(text.words) for text in texts], np.int64)
    flat = reader.encode_flat([*chain.from_iterable(text.pieces for text in texts)])
    word_ends = np.concatenate([[0], np.cumsum(flat.lengths)])
    text_ends = word_ends[np.concatenate([[0], np.cumsum(counts)])]
    first = np.where(flat.lengths > 0, word_ends[:-1], -1)
    spans = np.array([span for text in texts for span in text.spans], np.int64).reshape(-1, 2)
    return TokenizedWords(flat.ids, flat.word_starts, np.stack([text_ends[:-1], text_ends[1:]], 1), first, counts, spans)


def split_words(texts: Sequence[str], reader: Any) -> TokenizedWords:
    """Tokenize strings, dividing them into words as the tokenizer does: at spaces and punctuation, and around Chinese characters."""
    found = read_texts(texts, reader)
    # A text begins with a word, even if its first token continues one.
    starts = found.word_starts.copy()
    starts[found.ranges[:, 0][found.ranges[:, 0] < found.ranges[:, 1]]] = True
    first = np.flatnonzero(starts)
    text_of = np.searchsorted(found.ranges[:, 1], first, side="right")
    last = np.concatenate([first[1:], [len(starts)]]) - 1
    spans = np.stack([found.offsets[first, 0], found.offsets[last, 1]], 1).astype(np.int64)
    # If spaces are tokens, as in a vocabulary of bytes, they belong to no word.
    strings = [texts[text][start:end] for text, (start, end) in zip(text_of.tolist(), spans.tolist(), strict=True)]
    spans[:, 1] -= np.array([len(string) - len(string.rstrip()) for string in strings], np.int64)
    words = ~np.array([string.isspace() for string in strings], np.bool_)
    first, spans, text_of = first[words], spans[words], text_of[words]
    return TokenizedWords(found.ids, found.word_starts, found.ranges, first, np.bincount(text_of, minlength=len(texts)), spans)


@dataclass(frozen=True)
class WordWindows(Windows):
    """Windows of texts whose words are to be tagged."""

    strings: Sequence[str] = field(kw_only=True)
    words: TokenizedWords = field(kw_only=True)


def encode_words(texts: Sequence[Any], reader: Any, positions: int) -> WordWindows:
    """Convert strings, or lists of words, to windows of at most `positions` tokens.

    Raises:
        TextError: a text is neither, it is given in another way than the first one, or it has no readable characters.
    """
    given = [_given(index, text) for index, text in enumerate(texts)]
    for index, text in enumerate(given):
        if type(text) is not type(given[0]):
            raise TextError(index, "has another type than the first one: pass only strings, or only lists of words.")
    tokenized = tokenize_words(given, reader) if isinstance(given[0], Words) else split_words(given, reader)
    if empty := np.flatnonzero(tokenized.ranges[:, 0] == tokenized.ranges[:, 1]).tolist():
        problem = "is empty: it contains no readable characters. Leave it out."
        raise TextError(empty[0], problem, problems=dict.fromkeys(empty, problem))
    windows = Windows.of(tokenized.ids, tokenized.ranges, positions)
    fields = {field.name: getattr(windows, field.name) for field in dataclasses.fields(windows)}
    return WordWindows(**fields, strings=[*map(str, given)], words=tokenized)


def _given(index: int, text: Any) -> Any:
    """Return a text as a string or as `Words`."""
    if isinstance(text, str | Words):
        return text
    if isinstance(text, list | tuple) and all(isinstance(word, str) for word in text):
        return Words(tuple(text))
    raise TextError(index, f"is not a string or a list of words but {type(text).__name__}: pass strings, or lists of strings.")
