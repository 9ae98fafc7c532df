"""Options of the corpus and of the vocabulary that all modalities share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from bert_jax.config.checks import require


@dataclass(frozen=True)
class CorpusOptions:
    """The raw data and what to hold out; a subclass adds the options of one modality (`bert_jax.modalities`)."""

    CHOSEN_BY: ClassVar[str] = "modality"
    modality: str = ""
    """Name of the modality."""
    source: str = ""
    """Training data: a file, a folder, or any other name that the modality supports."""
    valid_source: str = ""
    """Held-out data, as for `source`; if empty, `valid_fraction` of the documents of `source` is held out."""
    valid_fraction: float = 0.01
    """Fraction of the documents of `source` to hold out."""
    leaks: Literal["report", "leave_out", "refuse"] = "report"
    """What to do about training documents that are also in `valid_source`: report them, drop them, or raise an error."""
    data_dir: str = ""
    """Folder for prepared records; empty means `data` in the workdir."""

    def __post_init__(self) -> None:
        require(bool(self.source), "source", self.source, "name a file, a folder, a glob, a data set (tfds: or hf:) or demo.")
        require(0 < self.valid_fraction < 1, "valid_fraction", self.valid_fraction, "it must be in (0, 1).")


@dataclass(frozen=True)
class VocabularyOptions:
    """The vocabulary: an existing one, or the settings for learning one from the corpus; a subclass adds the options of its kind."""

    CHOSEN_BY: ClassVar[str] = "kind"
    kind: str = ""
    """Kind of the vocabulary."""
    path: str = ""
    """An existing vocabulary; empty learns one from the corpus."""
