"""The corpus, whatever it consists of."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from bert_jax.config.checks import require


@dataclass(frozen=True)
class CorpusOptions:
    """Where the raw data are and what is held out of them; a subclass has the options of one modality (`bert_jax.modalities`)."""

    CHOSEN_BY: ClassVar[str] = "modality"
    modality: str = ""
    """What the corpus consists of."""
    source: str = ""
    """What to train on: a file or folder, or another name that the modality knows."""
    valid_source: str = ""
    """The same for the held-out data; empty holds out `valid_fraction` of the documents of `source`."""
    valid_fraction: float = 0.01
    leaks: Literal["report", "leave_out", "refuse"] = "report"
    """What is done about training documents that are in `valid_source` too: reported, left out of training, or not trained with."""
    data_dir: str = ""
    """Where prepared records are kept; empty means `data` inside the workdir."""

    def __post_init__(self) -> None:
        require(bool(self.source), "source", self.source, "name a folder, a glob, a tfds: name or demo.")
        require(0 < self.valid_fraction < 1, "valid_fraction", self.valid_fraction, "it must be in (0, 1).")
