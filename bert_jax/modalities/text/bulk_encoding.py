"""Fast encoding of large amounts of text: each distinct word once, and Chinese characters and punctuation by table lookup.

With BERT's normalizer and pre-tokenizer, no token crosses whitespace, punctuation or a Chinese character. So the encoding
of such a character, and of each run of other characters between them, does not depend on its context.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Codes = NDArray[np.int32]
"""Token ids; the bitwise complement (~id) for a token that does not start a word."""

_NO_TOKEN = np.iinfo(np.int32).min
_RUN = _NO_TOKEN + 1
_UNSEEN = _NO_TOKEN + 2
_BLOCK = 1_000_000
_LONGEST_KEPT = 100
_MOST_KEPT = 200_000


class BulkEncoding(NamedTuple):
    """The concatenated tokens of several texts.

    Attributes:
        codes: int32 [n].
        lengths: number of tokens in each text, int64 [texts].
        characters: int64 [n], for a single-character token the index of its character in the concatenated texts; -1 for tokens of runs.
        unknown: int64 [texts, 2], the number of characters of each text that became [UNK]: in overlong words, and in others.
    """

    codes: Codes
    lengths: NDArray[np.int64]
    characters: NDArray[np.int64]
    unknown: NDArray[np.int64]


class BulkEncoder:
    """Encodes texts with the same result as calling `encode` on them; several threads may use it at the same time."""

    def __init__(
        self,
        encode: Callable[[list[str]], list[Codes]],
        apart: Iterable[str],
        spaces: Iterable[str],
        unknown_id: int,
        count_unknown: Callable[[list[str]], list[tuple[int, int]]],
    ) -> None:
        """Encode single characters when they first occur.

        Args:
            encode: returns the codes of each text in a list.
            apart: BMP characters that never share a token with other characters.
            spaces: BMP characters that end a word and belong to no token.
            unknown_id: id of [UNK].
            count_unknown: returns, for each text in a list, the number of characters that become [UNK] in overlong words and in
                others; called only with texts that contain unknown characters.
        """
        self._encode, self._unknown_id, self._count_unknown = encode, unknown_id, count_unknown
        self._kept: dict[str, list[int]] = {}
        self._kept_unknown: dict[str, tuple[int, int]] = {}
        self._table = np.full(1 << 16, _RUN, np.int32)
        self._table[list(map(ord, spaces))] = _NO_TOKEN
        self._table[list(map(ord, apart))] = _UNSEEN

    def __call__(self, texts: Sequence[str]) -> BulkEncoding:
        """Encode the texts."""
        encodings, offset = [], 0
        for block in blocks(texts):
            encoded = self._encode_block(block)
            encoded.characters[encoded.characters >= 0] += offset
            offset += sum(map(len, block))
            encodings.append(encoded)
        return encodings[0] if len(encodings) == 1 else BulkEncoding(*map(np.concatenate, zip(*encodings, strict=True)))

    def _fill(self, characters: list[int]) -> None:
        for character, codes in zip(characters, self._encode(list(map(chr, characters))), strict=True):
            self._table[character] = codes[0] if len(codes) == 1 else _RUN

    def _encode_block(self, texts: Sequence[str]) -> BulkEncoding:
        text = "".join(texts)
        text_ends = np.cumsum([0, *map(len, texts)])
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        places = np.minimum(points, 0xFFFF)  # U+FFFF is not a character; it stands for all other planes, which are in runs
        table = self._table[places]
        if (unseen := table == _UNSEEN).any():
            self._fill(np.unique(places[unseen]).tolist())
            table = self._table[places]
        in_run = table == _RUN
        # A run ends before a character that is not in a run, and at the end of its text.
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
        run_codes = np.fromiter(chain.from_iterable(runs), np.int32)
        codes[characters < 0] = run_codes

        unknown = np.zeros((len(texts), 2), np.int64)
        unknown_alone = alone[table[alone] == self._unknown_id]
        unknown[:, 1] = np.diff(np.searchsorted(unknown_alone, text_ends))
        if len(tokens := np.flatnonzero((run_codes == self._unknown_id) | (run_codes == ~self._unknown_id))):
            owners = np.unique(np.searchsorted(np.cumsum(counts[1 + first]), tokens, side="right"))
            found = self._unknown_in([words[owner] for owner in owners.tolist()])
            np.add.at(unknown, np.searchsorted(text_ends, first[owners], side="right") - 1, found)
        return BulkEncoding(codes, np.diff(ends[text_ends]), characters, unknown)

    def _encode_runs(self, runs: list[str]) -> list[list[int]]:
        return _looked_up(runs, self._kept, lambda new: [codes.tolist() for codes in self._encode(new)])

    def _unknown_in(self, runs: list[str]) -> list[tuple[int, int]]:
        return _looked_up(runs, self._kept_unknown, self._count_unknown)


def _looked_up(runs: list[str], kept: dict[str, T], make: Callable[[list[str]], list[T]]) -> list[T]:
    """Return what is kept of each run, or what `make` returns for those of which nothing is, and keep that of short runs.

    Several threads may do this at the same time, as those of a server do, so what another one drops must have been read before.
    """
    distinct = set(runs)
    found = {run: value for run in distinct if (value := kept.get(run)) is not None}
    new = [run for run in distinct if run not in found]
    found.update(zip(new, make(new), strict=True))
    kept.update({run: found[run] for run in new if len(run) <= _LONGEST_KEPT})
    if len(kept) > _MOST_KEPT:
        kept.clear()
    return list(map(found.__getitem__, runs))


def blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the texts in order, in lists of about a million characters; at least one list."""
    first = size = 0
    for i, text in enumerate(texts):
        size += len(text)
        if size >= _BLOCK:
            yield texts[first : i + 1]
            first, size = i + 1, 0
    if first < len(texts) or not texts:
        yield texts[first:]
