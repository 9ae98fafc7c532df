"""Find the words of Chinese text, for whole-word masking.

BERT's tokenizer makes every Chinese character a word. Here a segmenter determines which characters continue a word:

- `jieba`: the most probable words according to jieba's dictionary, as jieba finds them with `HMM=False`.
- `marked`: the text is pre-segmented, with U+200B between words. In a text without marks, each character is a word.
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
    """Encode texts as `Tokenizer.encode_flat` does, but with the word starts of the segmenter.

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
    """Return the segmenter's word starts for the tokens of one text, bool [n]. For many texts, `encode_words` is faster.

    Raises:
        InputError: the segmenter is not installed.
    """
    if segmenter == "characters" or not _CHINESE.search(text):
        return encoding.word_starts
    return encoding.word_starts & ~_continues([text], segmenter)[encoding.offsets[:, 0]]


def chinese_word_starts(text: str, segmenter: Segmenter) -> Flags:
    """Return bool [characters], false at the Chinese characters of a text that continue a word and true at all other characters.

    Raises:
        InputError: the segmenter is not installed.
    """
    return ~_continues([text], segmenter)


def segment(text: str, segmenter: Segmenter) -> list[str]:
    """Split a text into its Chinese words and the text between them, without word marks.

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
    """Return bool [characters] over the concatenated texts, true at each Chinese character that continues a word."""
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
    # Located but not imported: importing jieba emits warnings, and jieba caches its dictionary in a shared folder.
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
