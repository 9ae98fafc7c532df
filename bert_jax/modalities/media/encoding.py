"""From media files to documents of units and codes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bert_jax.data.records.encoding import Encoder
from bert_jax.data.records.record import SPLITS, Counts, EncodedDocument, token_dtype
from bert_jax.errors import InputError
from bert_jax.modalities.media.codebook import Codebook
from bert_jax.modalities.media.extractor import Unreadable
from bert_jax.modalities.media.items import Item
from bert_jax.modalities.media.options import MediaOptions

_NAMED = 20
"""Number of unreadable files that are named in a message."""


class EncodedItem(NamedTuple):
    """A document of n units; `problem` says why a file could not be read, in which case n is 0.

    The other fields are those of `bert_jax.data.records.record.Document`.
    """

    tokens: NDArray[np.unsignedinteger]
    sentence_starts: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    units: NDArray[Any]
    problem: str = ""


@dataclass
class MediaCounts(Counts):
    """Statistics of a split of files; `bytes` is their size."""

    unreadable: int = 0
    """Files that were skipped because they cannot be read."""


@dataclass(frozen=True)
class MediaEncoder(Encoder[Item]):
    """Reads files, cuts them into units, and looks up the codes."""

    reader: Codebook
    config: MediaOptions
    skipped: list[str] = field(default_factory=list, compare=False)
    """The first unreadable files, with their problems."""

    counts = MediaCounts

    def identity(self) -> dict[str, Any]:
        """Return the codebook's fingerprint and what is done about unreadable files."""
        return {"codebook": self.reader.fingerprint, "unreadable": self.config.unreadable}

    def __call__(self, documents: list[Item]) -> list[EncodedItem]:
        """Encode items; one that cannot be read becomes an empty document."""
        extractor = self.reader.extractor
        found: list[NDArray[Any] | str] = []
        for item in documents:
            try:
                found.append(extractor.extract(item.read()))
            except Unreadable as error:
                found.append(str(error))
        units = [one for one in found if not isinstance(one, str)]
        dtype = token_dtype(self.reader.vocab_size)
        codes = iter(self._codes(units, dtype) if units else ())
        nothing = np.zeros((0, self.reader.units.size), self.reader.units.dtype)
        return [
            EncodedItem(np.zeros(0, dtype), np.zeros(0, np.int32), np.zeros(0, np.bool_), nothing, one)
            if isinstance(one, str)
            else EncodedItem(next(codes), extractor.parts(len(one)), extractor.word_starts(len(one)), one)
            for one in found
        ]

    def _codes(self, units: list[NDArray[Any]], dtype: Any) -> list[NDArray[Any]]:
        """Return the codes of each item."""
        ends = np.cumsum([len(one) for one in units])[:-1]
        return np.split(self.reader.codes(np.concatenate(units)).astype(dtype), ends)

    def count(self, raw: Item, document: EncodedDocument) -> MediaCounts:
        """Return the counts of an item.

        Raises:
            InputError: it cannot be read, and `corpus.unreadable` is `refuse`.
        """
        counts = MediaCounts.of(document, raw.size)
        if problem := cast(EncodedItem, document).problem:
            if self.config.unreadable == "refuse":
                raise InputError(
                    f"{raw.name} {problem}. Remove or repair the file, or set --config.corpus.unreadable=skip to leave out such files."
                )
            counts.empty_documents, counts.unreadable = 0, 1
            if len(self.skipped) < _NAMED:
                self.skipped.append(f"{raw.name} {problem}")
        return counts

    def size(self, raw: Item) -> int:
        """Return the size of the file in bytes, and at least as much as decoding a small one costs."""
        return max(raw.size, 4096)

    def warnings(self, info: Mapping[str, Any], first: Iterable[Item]) -> list[str]:
        """Return the files that were skipped."""
        del first
        count = sum(info[split]["unreadable"] for split in SPLITS)
        if not count:
            return []
        listed = [f"  {problem}" for problem in self.skipped]
        more = [f"  and {count - len(listed):,} more"] if count > len(listed) else []
        return ["\n".join([f"Warning: skipped {count:,} file{'s' * (count != 1)} that cannot be read:", *listed, *more])]
