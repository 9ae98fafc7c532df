"""Find the words of Chinese text: for whole-word masking, and for vocabularies of whole words.

BERT's tokenizer makes every Chinese character a word. Here a segmenter determines which characters continue a word:

- `jieba`: the most probable words according to jieba's dictionary, as jieba finds them with `HMM=False`.
- `marked`: the text is pre-segmented, with U+200B between words. In a text without marks, each character is a word.
- `characters`: each character is a word.
"""

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError
from bert_jax.modalities.text.segmentation import FIRST, LAST, DictionarySegmenter
from bert_jax.modalities.text.sentences import WORD_MARK

Segmenter = Literal["jieba", "characters", "marked"]
Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]

CHINESE_BLOCKS = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF), (0x2A700, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""First and last code points of the blocks that BERT's normalizer treats as Chinese characters."""

CHINESE = "".join(f"{chr(first)}-{chr(last)}" for first, last in CHINESE_BLOCKS)
"""The same blocks in the syntax of a character class of a regular expression."""

_ANY_CHINESE = re.compile(f"[{CHINESE}]")
_IN_WORDS = re.compile(f"[{chr(FIRST)}-\u4dbf\u4e00-{chr(LAST)}]")
_NOT_WORD = re.compile(f"[^{chr(FIRST)}-\u4dbf\u4e00-{chr(LAST)}]")


class Spaced(NamedTuple):
    """Texts with a space before and after every Chinese word.

    Attributes:
        texts: the texts with these spaces.
        origins: for each text, the index in the given text of each character, int64 [characters]; a space that was added has the index
            of the character that follows it.
    """

    texts: list[str]
    origins: list[Integers]


def spaced(texts: Sequence[str], segmenter: Segmenter) -> Spaced:
    """Separate the Chinese words of each text from each other and from other text by spaces.

    Raises:
        InputError: the segmenter is not installed.
    """
    if not any(map(_ANY_CHINESE.search, texts)):
        return Spaced(list(texts), [np.arange(len(text)) for text in texts])
    points = _code_points("".join(texts))
    chinese = np.any([(points >= first) & (points <= last) for first, last in CHINESE_BLOCKS], axis=0)
    before = np.where(chinese, ~word_continues(texts, segmenter), np.append(False, chinese[:-1]))
    ends = np.cumsum([0, *map(len, texts)])
    before[ends[:-1][ends[:-1] < len(points)]] = False
    added = np.flatnonzero(before)
    joined = np.insert(points, added, ord(" ")).tobytes().decode("utf-32-le", "surrogatepass")
    origins = np.insert(np.arange(len(points)), added, added)
    cuts = ends + np.searchsorted(added, ends)
    pieces = [joined[first:last] for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]
    return Spaced(pieces, [own - first for own, first in zip(np.split(origins, cuts[1:-1]), ends[:-1].tolist(), strict=True)])


def has_words(text: str) -> bool:
    """Return whether a text has characters that a segmenter may join to words."""
    return bool(_IN_WORDS.search(text))


def chinese_word_starts(text: str, segmenter: Segmenter) -> Flags:
    """Return bool [characters], false at the Chinese characters of a text that continue a word and true at all other characters.

    Raises:
        InputError: the segmenter is not installed.
    """
    return ~word_continues([text], segmenter)


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


def word_continues(texts: Sequence[str], segmenter: Segmenter) -> Flags:
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


def requirement(segmenter: Segmenter) -> str:
    """Return a segmenter with the version of the package that it depends on, as pip writes it: `jieba==0.42.1`."""
    return f"jieba=={importlib.metadata.version('jieba')}" if segmenter == "jieba" else segmenter


def installed(required: str, file: Path) -> Segmenter | None:
    """Return the segmenter that the `requirement` in a vocabulary's files names, or None if it is empty.

    Raises:
        InputError: the segmenter is unknown, or another version is installed, which may find other words.
    """
    name, _, version = str(required).partition("==")
    if name not in ("", "jieba", "marked"):
        raise InputError(f"The vocabulary {file} needs the segmenter {name!r}, but only jieba and marked are known. Save it again.")
    try:
        found = importlib.metadata.version("jieba") if name == "jieba" else ""
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != version:
        raise InputError(
            f"The vocabulary {file} has Chinese words as {required} finds them, but the installed version is {found or 'none'}: "
            f"`pip install {required}`."
        )
    return cast("Segmenter", name) if name else None


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _is_chinese(points: NDArray[np.uint32]) -> Flags:
    return ((points >= FIRST) & (points <= 0x4DBF)) | ((points >= 0x4E00) & (points <= LAST))
