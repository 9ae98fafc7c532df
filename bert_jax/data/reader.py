"""The modality-independent interface of a vocabulary: its special ids, and the encoding of queries."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bert_jax.data.nouns import Nouns
from bert_jax.errors import TextError


class Units(NamedTuple):
    """The type of the unit vectors: `size` numbers per token, for modalities whose ids do not carry all of the input.

    Units of a sequence may consist of several `frames` of equal size, one after another.
    """

    dtype: type[np.uint8] | type[np.floating]
    size: int
    frames: int = 1


class Grid(NamedTuple):
    """The two-dimensional arrangement of units: `columns` x `columns`, in blocks of `block` x `block` consecutive units."""

    columns: int
    block: int

    def cells(self) -> NDArray[np.int32]:
        """Return the (row, column) of each unit, int32 [columns^2, 2]: block by block, in reading order, as are the units of a block."""
        side = np.arange(self.columns, dtype=np.int32)
        rows, columns = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
        block = self.block
        order = np.lexsort((columns % block, rows % block, columns // block, rows // block))
        cells: NDArray[np.int32] = np.stack([rows, columns], 1)[order]
        return cells


class EncodedQuery(Protocol):
    """One encoded query.

    Attributes:
        ids: int32 [n].
        word_starts: bool [n], true where a token starts a word.
        units: [n, U], or None if the reader has no units.
    """

    @property
    def ids(self) -> np.ndarray: ...
    @property
    def word_starts(self) -> np.ndarray: ...
    @property
    def units(self) -> np.ndarray | None: ...


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
        token_characters: int32 [V], how many characters of text each id stands for, so that vocabularies can be compared in bits per
            character; None if ids do not stand for text.
        fingerprint: hash of everything that determines the encoding.
        units: type of the unit vectors that accompany the ids, or None.
        nouns: what queries and their parts are called.
        mask_hint: how a user masks a part of a query, as an instruction.
        grid: the two-dimensional arrangement of the units of an input, or None if they are a sequence.
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
    def token_characters(self) -> np.ndarray | None: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def units(self) -> Units | None: ...
    @property
    def grid(self) -> Grid | None: ...
    @property
    def nouns(self) -> Nouns: ...
    @property
    def mask_hint(self) -> str: ...

    def save(self, directory: str | Path) -> None:
        """Write the files that `Modality.load` reads."""

    def encode_batch(self, queries: Sequence[Any]) -> Sequence[EncodedQuery]:
        """Encode user input as `encode_flat` does, each query on its own."""

    def encode_flat(self, queries: Sequence[Any]) -> EncodedQueries:
        """Encode user input without adding special tokens; what is masked in a query is encoded as the special id of [MASK].

        Raises:
            TextError: a query cannot be read, or is not of the type that the vocabulary encodes.
        """

    def listed(self, typed: str, folder: Path) -> Any:
        """Return the query that a line of a file in `folder` holds."""

    def is_one(self, queries: Any) -> bool:
        """Return whether a user's input is a single query, rather than several."""

    def first_half(self, query: Any) -> Any:
        """Return what stands for A in a question about what follows; most queries stand for themselves."""

    def second_half(self, query: Any) -> Any:
        """Return what stands for B."""

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id as a string."""

    def id(self, token: str) -> int:
        """Return the id of a token; raises KeyError if there is none of this name."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return human-readable text for the ids, including special tokens."""


class StringQueries:
    """The part of a `Reader` that is the same for every vocabulary whose queries are strings and whose ids carry all of the input."""

    units: None = None
    grid: None = None
    nouns = Nouns()
    mask_hint = "write [MASK] where a token should be filled in"

    @property
    def token_characters(self) -> np.ndarray | None:
        """None, unless a vocabulary knows it."""
        return None

    def listed(self, typed: str, folder: Path) -> str:
        """Return the text of the line."""
        del folder
        return typed

    def is_one(self, queries: Any) -> bool:
        """Return whether the queries are a single string."""
        return isinstance(queries, str)

    def first_half(self, query: str) -> str:
        """Return the query."""
        return query

    def second_half(self, query: str) -> str:
        """Return the query."""
        return query

    def check(self, queries: Sequence[Any]) -> None:
        """Raise TextError if a query is not a string."""
        for index, query in enumerate(queries):
            if not isinstance(query, str):
                raise TextError(index, f"is not a string but {type(query).__name__}: pass strings.")
