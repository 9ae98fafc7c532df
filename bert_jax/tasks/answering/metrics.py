"""Exact match and F1 of answers, as the official scripts of SQuAD (English) and CMRC 2018 (Chinese) compute them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))

_CHINESE_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What CMRC's script leaves out. Its list also has two ellipses in a row, which it compares with single characters."""
_CHINESE = re.compile(r"[\u4e00-\u9fa5]")
_TOKENS = re.compile(
    r"""
    [][(){}<>;@\#$%&?!"«»‘„\u2012-\u2015] | \.{2,}  # tokens of their own
    | ,(?!\d)                                       # not in 1,000
    | (?<!\.)\.(?=[])}>"']*\s*$)                    # the last period
    """,
    re.VERBOSE,
)
_CLITICS = re.compile(r"(?<=[^'\s])('(?:s|m|d|ll|re|ve|)|n't)(?=\s|$)")


class Match(NamedTuple):
    """How well an answer matches the true ones: 0 or 1, and the harmonic mean of precision and recall of its words."""

    exact: float
    f1: float


def english(found: str, true: str) -> Match:
    """Compare two answers by their words, without case, punctuation and articles, as SQuAD 2.0's script does (Rajpurkar et al. 2018).

    It differs from that of SQuAD 1.1 only for answers that contain nothing else.
    """
    words, true_words = (_english_words(text) for text in (found, true))
    if not words or not true_words:
        same = float(words == true_words)
        return Match(same, same)
    common = sum((Counter(words) & Counter(true_words)).values())
    return Match(float(words == true_words), 2 * common / (len(words) + len(true_words)))


def chinese(found: str, true: str) -> Match:
    """Compare two answers by the longest sequence of tokens that they share, without punctuation, as CMRC 2018's script does (Cui et al.
    2019). A token is a Chinese character, or a word between them.

    The script finds words with NLTK. Here a stretch of words is one sentence, and a quotation mark is the same token at both ends.
    """
    exact = float(_without_punctuation(found) == _without_punctuation(true))
    tokens, true_tokens = (_mixed_tokens(text) for text in (found, true))
    common = _longest_common_run(tokens, true_tokens)
    return Match(exact, 2 * common / (len(tokens) + len(true_tokens)) if common else 0.0)


SCORINGS: dict[str, Callable[[str, str], Match]] = {"english": english, "chinese": chinese}


def scoring_of(passages: Iterable[str]) -> str:
    """Return how to score answers about these passages: `chinese` if most of their letters are Chinese characters, or `english`."""
    letters = characters = 0
    for passage in passages:
        letters += sum(map(str.isalpha, passage))
        characters += len(_CHINESE.findall(passage))
    return "chinese" if 2 * characters > letters else "english"


def match(found: str, answers: Sequence[str], scoring: str) -> Match:
    """Return how well an answer, empty for none, matches the best of the true ones; without any, only no answer is right."""
    if scoring == "english":
        answers = [answer for answer in answers if _english_words(answer)]
    compared = [SCORINGS[scoring](found, answer) for answer in answers] or [Match(*[float(not found)] * 2)]
    return Match(max(one.exact for one in compared), max(one.f1 for one in compared))


@dataclass(frozen=True)
class Matches:
    """How well the answers to n questions match, if the model answers all of them.

    Attributes:
        exact, f1: float64 [n], from 0 to 1.
        answerable: bool [n], whether there is an answer.
    """

    exact: np.ndarray
    f1: np.ndarray
    answerable: np.ndarray

    def of(self, answered: np.ndarray) -> dict[str, float]:
        """Return the mean exact match and F1, also of the questions with and without answers if there are both.

        Args:
            answered: bool [n], the questions to which the model gives its answer, and not none.
        """
        import numpy as np

        parts = {"": np.ones(len(self.f1), np.bool_)}
        if 0 < self.answerable.sum() < len(self.answerable):
            parts |= {"has_answer_": self.answerable, "no_answer_": ~self.answerable}
        scores: dict[str, float] = {}
        for name, matched in (("exact_match", self.exact), ("f1", self.f1)):
            values = np.where(answered, matched, ~self.answerable)
            scores |= {part + name: float(values[inside].mean()) for part, inside in parts.items()}
        return scores


def match_all(found: Sequence[str], answers: Sequence[Sequence[str]], scoring: str) -> Matches:
    """Return how well the answers to n questions match their true answers."""
    import numpy as np

    matched = np.array([match(*both, scoring) for both in zip(found, answers, strict=True)], np.float64).reshape(-1, 2)
    return Matches(matched[:, 0], matched[:, 1], np.array([*map(bool, answers)], np.bool_))


def best_threshold(matches: Matches, none_scores: np.ndarray) -> float:
    """Return the no-answer score above which giving no answer leads to the highest F1, as SQuAD 2.0's script finds it.

    The threshold is halfway between the scores of two questions, or 1 beyond the lowest or highest.

    Args:
        matches: the answers to n questions, at least one.
        none_scores: float [n], how much the model prefers no answer.
    """
    import numpy as np

    order = np.argsort(none_scores, kind="stable")
    scores = none_scores[order].astype(np.float64)
    # What answering a question gains: its F1, or the loss of the point for giving no answer where there is none.
    gains = np.where(matches.answerable, matches.f1, -1.0)[order]
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    between = np.concatenate([[scores[0] - 1], (scores[:-1] + scores[1:]) / 2, [scores[-1] + 1]])
    # Questions with equal scores cannot be told apart.
    possible = np.concatenate([[True], scores[:-1] < scores[1:], [True]])
    return float(f"{between[np.where(possible, totals, -np.inf).argmax()]:.6g}")


def _english_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _without_punctuation(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in _CHINESE_PUNCTUATION)


def _mixed_tokens(text: str) -> list[str]:
    """Return the Chinese characters and, between them and between punctuation marks, words."""
    tokens: list[str] = []
    words = ""
    for character in text.lower().strip():
        if character in _CHINESE_PUNCTUATION:
            # The script leaves punctuation out before it looks for words, so that words on both sides are joined.
            continue
        if _CHINESE.match(character):
            tokens += [*_words(words), character]
            words = ""
        else:
            words += character
    return tokens + _words(words)


def _words(text: str) -> list[str]:
    return _CLITICS.sub(r" \1", _TOKENS.sub(r" \g<0> ", text)).split()


def _longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest sequence of consecutive tokens that both contain."""
    longest, ending = 0, [0] * (len(b) + 1)
    for token in a:
        ending = [0, *(ending[j] + 1 if token == other else 0 for j, other in enumerate(b))]
        longest = max(longest, *ending)
    return longest
