"""Texts of any length as overlapping windows, for tasks that read every token of a text.

A text that does not fit into the model's positions is cut into windows that overlap by a quarter of their length. A token in two
windows belongs to the one in which it is farther from an end, where it has the most context (Devlin et al. 2019, code of SQuAD).
"""

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

import numpy as np

from bert_jax.data.pairs import Examples
from bert_jax.data.queries import Queries
from bert_jax.data.reader import EncodedQuery

_OVERLAP = 4
"""The share of a window that the next one repeats is one in so many."""


class EncodedText(EncodedQuery, Protocol):
    """An encoded text whose tokens know their places in it.

    Attributes:
        offsets: int32 [n, 2], start and end (exclusive) of each token, in characters of the text.
    """

    @property
    def offsets(self) -> np.ndarray: ...


class TextReader(Protocol):
    """The part of the interface of a tokenizer that `read_texts` uses."""

    def encode_batch(self, texts: Sequence[str], /) -> Sequence[EncodedText]: ...


class Texts(NamedTuple):
    """Encoded texts, concatenated.

    Attributes:
        ids: int32 [t].
        word_starts: bool [t].
        offsets: int32 [t, 2], in characters of the text that a token is in.
        ranges: int64 [n, 2], where the tokens of each text begin and end.
    """

    ids: np.ndarray
    word_starts: np.ndarray
    offsets: np.ndarray
    ranges: np.ndarray


def read_texts(texts: Sequence[str], reader: TextReader) -> Texts:
    """Encode texts together with the places of their tokens.

    Raises:
        TextError: a text is not a string.
    """
    encoded = reader.encode_batch(texts)
    ends = np.cumsum([len(one.ids) for one in encoded], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    nothing = Texts(np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int64))
    if not encoded:
        return nothing
    ids, word_starts, offsets = (np.concatenate([getattr(one, name) for one in encoded]) for name in Texts._fields[:3])
    ranges = np.stack([starts, ends], 1)
    return Texts(ids, word_starts, _with_marks(texts, offsets, ranges), ranges)


def _with_marks(texts: Sequence[str], offsets: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Extend the ends of tokens over the combining marks that follow, which a tokenizer that strips accents does not count."""
    text_of = np.repeat(np.arange(len(texts)), ranges[:, 1] - ranges[:, 0])
    limits = np.append(offsets[1:, 0], 0)
    last = ranges[ranges[:, 0] < ranges[:, 1], 1] - 1
    limits[last] = [len(texts[text]) for text in text_of[last]]
    other = np.array([not text.isascii() for text in texts], np.bool_)
    for token in np.flatnonzero((offsets[:, 1] < limits) & other[text_of]).tolist():
        text, end = texts[text_of[token]], offsets[token, 1]
        while end < limits[token] and unicodedata.category(text[end]) in ("Mn", "Me"):
            end += 1
        offsets[token, 1] = end
    return offsets


@dataclass(frozen=True)
class Windows(Queries):
    """n windows of texts; as queries, each window is an example, after a question if there is one.

    A window's own tokens are those that belong to no other window of the text. The own tokens of all windows are all tokens.
    """

    texts: np.ndarray = field(kw_only=True)
    """int64 [n]: the text that each window is a part of, in non-decreasing order."""
    own: np.ndarray = field(kw_only=True)
    """int64 [n, 2]: start and end of the window's own tokens in the token array."""

    @classmethod
    def of(cls, ids: np.ndarray, ranges: np.ndarray, positions: int, before: np.ndarray | None = None) -> Self:
        """Cut texts into windows.

        Args:
            ids: int32 [t], token ids.
            ranges: int64 [texts, 2], the tokens of each text.
            positions: the number of tokens, with [CLS] and [SEP], that the model reads at once.
            before: int64 [texts, 2], the tokens of a question that precedes each window of the text as A; None for no questions. They
                must leave room for the text.
        """
        asked = np.zeros(len(ranges), np.int64) if before is None else before[:, 1] - before[:, 0]
        rooms = positions - 2 - asked - (asked > 0)
        pieces = [_cut(start, end, room) for (start, end), room in zip(ranges.tolist(), rooms.tolist(), strict=True)]
        counts = [len(one) for one in pieces]
        cells = np.array([window for one in pieces for window in one], np.int64).reshape(-1, 4)
        text = np.repeat(np.arange(len(ranges)), counts)
        shown, own = cells[:, :2], cells[:, 2:]
        a, b = (shown, np.zeros_like(shown)) if before is None else (before[text], shown)
        examples = Examples(a, b, np.zeros(len(text), np.int32), np.ones(len(text), np.float32))
        none = np.zeros(0, np.int64)
        return cls(examples, ids, none, none, texts=text, own=own)

    @property
    def shown(self) -> np.ndarray:
        """int64 [n, 2]: start and end in the token array of the part of its text that a window shows, its own tokens and others."""
        paired = (self.examples.b[:, 1] > self.examples.b[:, 0])[:, None]
        shown: np.ndarray = np.where(paired, self.examples.b, self.examples.a)
        return shown

    @property
    def cells(self) -> np.ndarray:
        """int64 [n, 2]: start and end of the window's part of its text among the tokens of all examples, one after another.

        These include [CLS], the question and [SEP]; see `bert_jax.inference.forward.Forward.per_token`.
        """
        lengths = self.examples.lengths
        size = self.shown[:, 1] - self.shown[:, 0]
        # The text is followed by one [SEP].
        ends = np.cumsum(lengths) - 1
        return np.stack([ends - size, ends], 1)

    def own_cells(self) -> np.ndarray:
        """Return, for each token that is some window's own, in order, its place among the tokens of all examples; int64 [tokens]."""
        begins = self.cells[:, 0] + self.own[:, 0] - self.shown[:, 0]
        sizes = self.own[:, 1] - self.own[:, 0]
        places: np.ndarray = np.repeat(begins - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        return places


def _cut(start: int, end: int, room: int) -> list[tuple[int, int, int, int]]:
    """Return the windows of a text's tokens: start and end of what they show, and of what is their own."""
    size = end - start
    if size <= room:
        return [(start, end, start, end)]
    step = room - room // _OVERLAP
    begins = [start + offset for offset in range(0, size - room, step)] + [end - room]
    borders = [(after + before + room) // 2 for before, after in itertools.pairwise(begins)]
    return [
        (begin, begin + room, first, last) for begin, first, last in zip(begins, [start, *borders], [*borders, end], strict=True)
    ]
