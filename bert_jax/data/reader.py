"""What a trained vocabulary does, whatever it is one of: it knows the ids, and reads what a user asks about."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np


class Units(NamedTuple):
    """What stands beside every id where an id does not say everything: `size` numbers."""

    dtype: type[np.uint8] | type[np.floating]
    size: int


class EncodedQueries(Protocol):
    """Queries as ids, end to end.

    Attributes:
        ids: int32 [n].
        lengths: int64 [queries].
        units: [n, U], or None where the reader has none.
    """

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def units(self) -> np.ndarray | None: ...


class SpecialTokens(Protocol):
    """The ids that rows need."""

    @property
    def pad_id(self) -> int: ...
    @property
    def cls_id(self) -> int: ...
    @property
    def sep_id(self) -> int: ...


class MaskingTokens(SpecialTokens, Protocol):
    """The ids that rows with masked tokens need."""

    @property
    def mask_id(self) -> int: ...


class Reader(MaskingTokens, Protocol):
    """A vocabulary, and how queries become ids and ids something to show; `bert_jax.modalities.text.tokenizer.Tokenizer` is one.

    Attributes:
        vocab_size: the number of rows that an embedding table needs.
        unk_id: the id of what the vocabulary lacks.
        special_ids: the ids that are never masked nor an answer, padding among them.
        ordinary_ids: int32, the ids that a masked one may be replaced by.
        fingerprint: a name for all that decides an encoding.
        units: what stands beside each id, or None.
    """

    @property
    def vocab_size(self) -> int: ...
    @property
    def unk_id(self) -> int: ...
    @property
    def special_ids(self) -> tuple[int, ...]: ...
    @property
    def ordinary_ids(self) -> np.ndarray: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def units(self) -> Units | None: ...

    def save(self, directory: str | Path) -> None:
        """Writes what `Modality.load` reads."""

    def encode_flat(self, texts: Sequence[str]) -> EncodedQueries:
        """The ids of what users typed, without added special ones; [MASK] in it is the special id."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The name of each id."""

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as a person may read them, special ones included."""
