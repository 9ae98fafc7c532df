"""Configuration that images and audio share: the corpus and its codebook."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from bert_jax.config import CorpusOptions, VocabularyOptions
from bert_jax.config.checks import at_most, require
from bert_jax.modalities.media.extractor import Extractor

MOST_CODES = (1 << 16) - 5
"""Codes and special tokens fit in 16 bits."""


@dataclass(frozen=True)
class CodebookConfig(VocabularyOptions):
    """The vocabulary of units: `size` codes, which are the centroids of k-means over units of the training data."""

    kind: Literal["codebook"] = "codebook"
    path: str = ""
    """The directory of an existing codebook; empty learns one from the corpus."""
    size: int = 512
    """Number of codes."""
    normalize: Literal["dimensions", "units"] = "dimensions"
    """What is compared: `dimensions` removes the mean and deviation of each number of the units over the corpus; `units` also removes
    those of each unit, so that codes describe shape and not brightness or loudness."""
    seed: int = 0
    """What the sample of units and the first centroids are drawn from."""

    def __post_init__(self) -> None:
        require(self.size >= 2, "size", self.size, "it must be at least 2 codes.")
        at_most(self, size=MOST_CODES)
        require(self.seed >= 0, "seed", self.seed, "it must not be negative.")


@dataclass(frozen=True)
class MediaOptions(CorpusOptions, ABC):
    """A corpus of files of one medium."""

    source: str = "demo"
    """`demo`; a file, folder (searched recursively) or glob; or a data set: `tfds:NAME`, `hf:OWNER/NAME`, a folder written by
    `save_to_disk`, or .parquet files."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What to do about a file that cannot be read: stop, or skip, count and report it."""

    @abstractmethod
    def extractor(self) -> Extractor:
        """Return what turns a file into units."""
