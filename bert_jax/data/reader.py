"""The modality-independent interface of a vocabulary: its special ids, and the encoding of queries."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np


class Units(NamedTuple):
    """The type of the unit vectors: `size` numbers per token, for modalities whose ids do not carry all of the input."""

    dtype: type[np.uint8] | type[np.floating]
    size: int


class EncodedQueries(Protocol):
    """Encoded queries, concatenated.

    Attributes:
        ids: int32 [n].
        lengths: int64 [queries], the number of ids of each query.
        units: [n, U], or None if the reader has no units.
    """

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def units(self) -> np.ndarray | None: ...


class SpecialTokens(Protocol):
    """The special token ids that batches need."""

    @property
    def pad_id(self) -> int: ...
    @property
    def cls_id(self) -> int: ...
    @property
    def sep_id(self) -> int: ...


class MaskingTokens(SpecialTokens, Protocol):
    """The special token ids that batches with masked tokens need."""

    @property
    def mask_id(self) -> int: ...


class Reader(MaskingTokens, Protocol):
    """A vocabulary with the encoding of queries and the decoding of ids, such as `bert_jax.modalities.text.tokenizer.Tokenizer`.

    Attributes:
        vocab_size: number of rows that an embedding table needs.
        unk_id: id of inputs that are not in the vocabulary.
        special_ids: ids that are never masked or predicted, including padding.
        ordinary_ids: int32, ids that may replace a masked token.
        fingerprint: hash of everything that determines the encoding.
        units: type of the unit vectors that accompany the ids, or None.
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
        """Write the files that `Modality.load` reads."""

    def encode_flat(self, texts: Sequence[str]) -> EncodedQueries:
        """Encode user input without adding special tokens; [MASK] in a text is encoded as the special id."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id as a string."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return human-readable text for the ids, including special tokens."""
