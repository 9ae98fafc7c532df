"""Count the rows of an epoch without making them."""

import numpy as np
from numpy.typing import NDArray

from bert_jax.config import RowsConfig
from bert_jax.data.packing import pack
from bert_jax.data.pairs import make_examples

_BLOCK_TOKENS = 1 << 17


class EpochCounter:
    """Packs documents into rows as training does, block by block, and counts the rows.

    Attributes:
        rows: number of rows so far.
        filled: number of tokens in them that are not padding.
    """

    def __init__(self, config: RowsConfig) -> None:
        self.rows = self.filled = 0
        self._config = config
        self._rng = np.random.default_rng(0)
        self._block: list[tuple[int, NDArray[np.int32]]] = []
        self._tokens = 0

    def add(self, tokens: int, sentence_starts: NDArray[np.int32]) -> None:
        """Add a document, given its number of tokens and the first token of each sentence."""
        if tokens:
            self._block.append((tokens, sentence_starts))
            self._tokens += tokens
        if self._tokens >= _BLOCK_TOKENS:
            self.finish()

    def finish(self) -> None:
        """Count the documents that do not fill a block yet; call it after the last one."""
        if not self._block:
            return
        config = self._config
        sizes = np.array([tokens for tokens, _ in self._block])
        begins = np.cumsum(sizes) - sizes
        starts = np.concatenate([begin + own for begin, (_, own) in zip(begins, self._block, strict=True)])
        examples = make_examples(starts, begins + sizes, config.length, config.next_sentence, config.short_probability, self._rng)
        lengths = examples.lengths
        self.rows += pack(lengths, config.length, config.examples_per_row if config.packing else 1).count
        self.filled += int(lengths.sum())
        self._block, self._tokens = [], 0

    @property
    def fill(self) -> float:
        """Fraction of the tokens in the rows that are not padding."""
        return self.filled / max(1, self.rows * self._config.length)
