"""What of a text a vocabulary cannot say: how many characters become [UNK], why, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WARNED_ABOVE = 0.01
"""Share of the characters, white space aside, that become [UNK], above which it is a mistake rather than a few rare words."""

_EXAMPLES = 3
_SHOWN = 30


class UnknownWord(NamedTuple):
    """A word that becomes [UNK]."""

    text: str
    too_long: bool
    """Whether for its length, or else for a character that the vocabulary lacks."""


@dataclass(frozen=True)
class UnknownCharacters:
    """Characters of a text, white space aside, and those of them that become [UNK]."""

    characters: int
    in_long_words: int
    """In words longer than the vocabulary takes."""
    in_other_words: int
    """In words with a character that the vocabulary lacks."""

    @property
    def too_many(self) -> bool:
        """Whether a user should know."""
        return self.in_long_words + self.in_other_words > WARNED_ABOVE * self.characters

    def warning(self, words: Sequence[UnknownWord], max_word_length: int) -> str:
        """How many, why, with some of the `words`, and what helps."""
        long, other = _examples(words, too_long=True), _examples(words, too_long=False)
        unknown = self.in_long_words + self.in_other_words
        causes = []
        if self.in_long_words:
            causes.append(
                f"{self.in_long_words:,} are in words longer than {max_word_length} characters{long} (raise "
                "vocabulary.max_word_length, for train-vocab --max-word-length, or set vocabulary.kind=characters)"
            )
        if self.in_other_words:
            causes.append(
                f"{self.in_other_words:,} are in words with a character that the vocabulary lacks{other} (raise vocabulary.size, lower "
                "vocabulary.min_frequency, or take a vocabulary of this language)"
            )
        return (
            f"Beware: {unknown:,} of the corpus's {self.characters:,} characters ({unknown / self.characters:.1%}) become [UNK], which "
            f"models learn nothing from: {'; '.join(causes)}."
        )


def shortened(word: str) -> str:
    """The word, or its beginning and its length."""
    return repr(word) if len(word) <= _SHOWN else f"{word[:_SHOWN]!r}... ({len(word):,} characters)"


def _examples(words: Sequence[UnknownWord], too_long: bool) -> str:
    chosen = list(dict.fromkeys(word.text for word in words if word.too_long == too_long))[:_EXAMPLES]
    return f", such as {', '.join(map(shortened, chosen))}" if chosen else ""
