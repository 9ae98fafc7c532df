"""Characters of a text that become [UNK]: how many, for what reason, and the warning with its remedies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WARNED_ABOVE = 0.01
"""Warn if more than this fraction of the non-whitespace characters become [UNK]: more than a few rare words suggests a mistake."""

_EXAMPLES = 3
_SHOWN = 30


class UnknownWord(NamedTuple):
    """A word that becomes [UNK]."""

    text: str
    too_long: bool
    """Whether the reason is its length, rather than a character that is not in the vocabulary."""


@dataclass(frozen=True)
class UnknownCharacters:
    """The number of non-whitespace characters of a text, and of those that become [UNK]."""

    characters: int
    in_long_words: int
    """Unknown characters in words longer than the tokenizer's limit."""
    in_other_words: int
    """Unknown characters in other words: those with a character that is not in the vocabulary, or words that are not in it themselves."""

    @property
    def too_many(self) -> bool:
        """Whether there are enough unknown characters to warn the user."""
        return self.in_long_words + self.in_other_words > WARNED_ABOVE * self.characters

    def warning(self, words: Sequence[UnknownWord], max_word_length: int, kind: str) -> str:
        """Return a warning with the counts, the causes, examples from `words`, and the remedies for this kind of vocabulary."""
        long, other = _examples(words, too_long=True), _examples(words, too_long=False)
        unknown = self.in_long_words + self.in_other_words
        causes = []
        if self.in_long_words:
            causes.append(
                f"{self.in_long_words:,} are in words longer than {max_word_length} characters{long} (raise "
                "vocabulary.max_word_length, or --max-word-length of train-vocab, or set vocabulary.kind=characters)"
            )
        if self.in_other_words and kind == "words":
            causes.append(
                f"{self.in_other_words:,} are in words that are not in the vocabulary{other} (raise vocabulary.size, lower "
                "vocabulary.min_frequency, or set vocabulary.kind=wordpiece, which spells rare words)"
            )
        elif self.in_other_words:
            causes.append(
                f"{self.in_other_words:,} are in words with a character that is not in the vocabulary{other} (raise vocabulary.size, lower "
                "vocabulary.min_frequency, or use a vocabulary for this language)"
            )
        return (
            f"Warning: {unknown:,} of the corpus's {self.characters:,} characters ({unknown / self.characters:.1%}) become [UNK], from "
            f"which models learn nothing: {'; '.join(causes)}."
        )


def shortened(word: str) -> str:
    """Return the quoted word, or the beginning and the length of a long word."""
    return repr(word) if len(word) <= _SHOWN else f"{word[:_SHOWN]!r}... ({len(word):,} characters)"


def _examples(words: Sequence[UnknownWord], too_long: bool) -> str:
    chosen = list(dict.fromkeys(word.text for word in words if word.too_long == too_long))[:_EXAMPLES]
    return f", such as {', '.join(map(shortened, chosen))}" if chosen else ""
