"""Words of Chinese text, for masking whole words.

BERT's tokenizer makes every Chinese character a word. Here a segmenter says which of them continue a word:

- `jieba`: the most probable words by jieba's dictionary, which is jieba's answer with `HMM=False`.
- `marked`: the text carries its words, with a U+200B between them. A text without any mark has its characters as words.
- `characters`: each character is a word.
"""

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError
from bert_jax.modalities.text.segmentation import FIRST, LAST, DictionarySegmenter
from bert_jax.modalities.text.sentences import WORD_MARK
from bert_jax.modalities.text.tokenizer import Encoding, FlatEncodings, Tokenizer

Segmenter = Literal["jieba", "characters", "marked"]
Flags = NDArray[np.bool_]

_CHINESE = re.compile(f"[{chr(FIRST)}-\u4dbf\u4e00-{chr(LAST)}]")
_NOT_WORD = re.compile(f"[^{chr(FIRST)}-\u4dbf\u4e00-{chr(LAST)}]")


def encode_words(tokenizer: Tokenizer, texts: Sequence[str], segmenter: Segmenter) -> FlatEncodings:
    """`Tokenizer.encode_flat` with the word starts of the segmenter.

    Raises:
        InputError: the segmenter is not installed.
    """
    encodings, characters = tokenizer.encode_characters(texts)
    if segmenter == "characters" or not any(map(_CHINESE.search, texts)):
        return encodings
    known = characters >= 0
    starts = encodings.word_starts.copy()
    starts[known] &= ~_continues(texts, segmenter)[characters[known]]
    return encodings._replace(word_starts=starts)


def correct_word_starts(text: str, encoding: Encoding, segmenter: Segmenter) -> Flags:
    """The word starts of one text's tokens, bool [n], by the segmenter. For many texts, `encode_words` is faster.

    Raises:
        InputError: the segmenter is not installed.
    """
    if segmenter == "characters" or not _CHINESE.search(text):
        return encoding.word_starts
    return encoding.word_starts & ~_continues([text], segmenter)[encoding.offsets[:, 0]]


def chinese_word_starts(text: str, segmenter: Segmenter) -> Flags:
    """False at the Chinese characters of a text that continue a word, true at all its other characters; bool [characters].

    Raises:
        InputError: the segmenter is not installed.
    """
    return ~_continues([text], segmenter)


def segment(text: str, segmenter: Segmenter) -> list[str]:
    """A text cut into its Chinese words and what stands between them, without the marks.

    Raises:
        InputError: the segmenter is not installed.
    """
    if not text:
        return []
    chinese = _is_chinese(_code_points(text))
    cuts = chinese_word_starts(text, segmenter) & (chinese | np.append(True, chinese[:-1]))
    pieces = np.split(np.arange(len(text)), np.flatnonzero(cuts[1:]) + 1)
    words = (text[piece[0] : piece[-1] + 1].replace(WORD_MARK, "") for piece in pieces)
    return [word for word in words if word]


def _continues(texts: Sequence[str], segmenter: Segmenter) -> Flags:
    """True at each Chinese character that continues a word, in the texts end to end."""
    points = _code_points("".join(texts))
    continues = _is_chinese(points)
    if segmenter == "characters":
        return np.zeros(len(points), np.bool_)
    ends = np.cumsum([0, *map(len, texts)])
    run_starts = continues & ~np.append(False, continues[:-1])
    run_starts[ends[:-1][ends[:-1] < len(points)]] = True
    if segmenter == "jieba":
        continues[continues] = ~_jieba().word_starts(points[continues], run_starts[continues])
        return continues
    marked = np.repeat([WORD_MARK in text for text in texts], np.diff(ends))
    return continues & ~run_starts & marked


@cache
def _jieba() -> DictionarySegmenter:
    # Found, not imported: jieba's import warns, and it would write its own cache of the dictionary to a shared folder.
    package = importlib.util.find_spec("jieba")
    if package is None or package.origin is None:
        raise InputError(
            "The segmenter jieba is not installed: `pip install jieba`, or set corpus.segmenter=characters, "
            "which makes every Chinese character a word."
        )
    counts: dict[str, int] = {}
    total = 0
    with Path(package.origin).with_name("dict.txt").open(encoding="utf-8") as lines:
        for line in lines:
            word, count, *_ = line.split(" ")
            total += int(count)
            if not _NOT_WORD.search(word):
                counts[word] = int(count)
    return DictionarySegmenter({word: count for word, count in counts.items() if count}, total)


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _is_chinese(points: NDArray[np.uint32]) -> Flags:
    return ((points >= FIRST) & (points <= 0x4DBF)) | ((points >= 0x4E00) & (points <= LAST))
