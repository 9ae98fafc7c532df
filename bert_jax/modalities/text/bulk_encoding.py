"""Encode much text fast: each distinct word once, and Chinese characters and punctuation by table.

BERT's normalizer and pre-tokenizer let no token reach over white space, punctuation or a Chinese character. So what the
tokenizer says of these characters alone, and of the runs of other characters between them, holds wherever they stand.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]
"""Token ids; the complement (~id) of one that does not begin a word."""

_NOTHING = np.iinfo(np.int32).min
_RUN = _NOTHING + 1
_BLOCK = 1_000_000
_LONGEST_KEPT = 100
_MOST_KEPT = 200_000


class BulkEncoding(NamedTuple):
    """The tokens of texts, end to end.

    Attributes:
        codes: int32 [n].
        lengths: tokens of each text, int64 [texts].
        characters: int64 [n], where in the texts end to end the one character of a token stands; -1 for tokens out of runs.
        unknown: int64 [texts, 2], characters of each text that became [UNK]: in words that are too long, and in others.
    """

    codes: Codes
    lengths: NDArray[np.int64]
    characters: NDArray[np.int64]
    unknown: NDArray[np.int64]


class BulkEncoder:
    """Encodes texts as `encode` would encode them one by one."""

    def __init__(
        self,
        encode: Callable[[list[str]], list[Codes]],
        apart: Iterable[str],
        spaces: Iterable[str],
        unknown_id: int,
        count_unknown: Callable[[list[str]], list[tuple[int, int]]],
    ) -> None:
        """Learn what the tokenizer makes of single characters.

        Args:
            encode: the codes of each of some texts.
            apart: characters that no token shares with others, of the first plane.
            spaces: characters that are in no token and end a word, of the first plane.
            unknown_id: that of [UNK].
            count_unknown: characters of each of some texts that become [UNK], in words that are too long and in others; asked only
                about texts that have some.
        """
        self._encode, self._unknown_id, self._count_unknown = encode, unknown_id, count_unknown
        self._kept: dict[str, list[int]] = {}
        self._kept_unknown: dict[str, tuple[int, int]] = {}
        self._table = np.full(1 << 16, _RUN, np.int32)
        self._table[list(map(ord, spaces))] = _NOTHING
        apart = list(apart)
        for character, codes in zip(apart, encode(apart), strict=True):
            if len(codes) == 1:
                self._table[ord(character)] = codes[0]

    def __call__(self, texts: Sequence[str]) -> BulkEncoding:
        """The tokens of the texts."""
        blocks, before = [], 0
        for block in _blocks(texts):
            encoded = self._encode_block(block)
            encoded.characters[encoded.characters >= 0] += before
            before += sum(map(len, block))
            blocks.append(encoded)
        return blocks[0] if len(blocks) == 1 else BulkEncoding(*map(np.concatenate, zip(*blocks, strict=True)))

    def _encode_block(self, texts: Sequence[str]) -> BulkEncoding:
        text = "".join(texts)
        text_ends = np.cumsum([0, *map(len, texts)])
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        table = self._table[np.minimum(points, 0xFFFF)]  # U+FFFF is no character, and in a run like all of the other planes
        in_run = table == _RUN
        # A run ends where the next character is in none, and with its text.
        follows = np.zeros(len(text) + 1, np.bool_)
        follows[1:-1] = in_run[1:] & in_run[:-1]
        follows[text_ends] = False
        first = np.flatnonzero(in_run & ~follows[:-1])
        last = np.flatnonzero(in_run & ~follows[1:])
        words = [text[a:b] for a, b in zip(first.tolist(), (last + 1).tolist(), strict=True)]
        runs = self._encode_runs(words)

        alone = np.flatnonzero(table >= 0)
        counts = np.zeros(len(text) + 1, np.int64)
        counts[1 + alone] = 1
        counts[1 + first] = np.fromiter(map(len, runs), np.int64, len(runs))
        ends = np.cumsum(counts)
        characters = np.full(ends[-1], -1, np.int64)
        characters[ends[1 + alone] - 1] = alone
        codes = np.empty(ends[-1], np.int32)
        codes[characters >= 0] = table[alone]
        of_runs = np.fromiter(chain.from_iterable(runs), np.int32)
        codes[characters < 0] = of_runs

        unknown = np.zeros((len(texts), 2), np.int64)
        lost = alone[table[alone] == self._unknown_id]
        unknown[:, 1] = np.diff(np.searchsorted(lost, text_ends))
        if len(tokens := np.flatnonzero((of_runs == self._unknown_id) | (of_runs == ~self._unknown_id))):
            owners = np.unique(np.searchsorted(np.cumsum(counts[1 + first]), tokens, side="right"))
            found = self._unknown_in([words[owner] for owner in owners.tolist()])
            np.add.at(unknown, np.searchsorted(text_ends, first[owners], side="right") - 1, found)
        return BulkEncoding(codes, np.diff(ends[text_ends]), characters, unknown)

    def _encode_runs(self, runs: list[str]) -> list[list[int]]:
        kept = self._kept
        new = [run for run in set(runs) if run not in kept]
        kept.update(zip(new, (codes.tolist() for codes in self._encode(new)), strict=True))
        encoded = list(map(kept.__getitem__, runs))
        if len(kept) > _MOST_KEPT:
            kept.clear()
            self._kept_unknown.clear()
        for run in new:
            if len(run) > _LONGEST_KEPT:
                kept.pop(run, None)
        return encoded

    def _unknown_in(self, runs: list[str]) -> list[tuple[int, int]]:
        kept = self._kept_unknown
        new = [run for run in set(runs) if run not in kept]
        kept.update(zip(new, self._count_unknown(new), strict=True))
        found = list(map(kept.__getitem__, runs))
        for run in new:
            if len(run) > _LONGEST_KEPT:
                kept.pop(run, None)
        return found


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    first = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= _BLOCK:
            yield texts[first : i + 1]
            first, size = i + 1, 0
    if first < len(texts) or not texts:
        yield texts[first:]
