"""The fine-tuning stage."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config.checks import fraction, not_negative, positive, require
from bert_jax.config.training import LoopConfig, OptimizerConfig


@dataclass(frozen=True)
class LabelledConfig:
    """Labelled text: files (.tsv, .csv, .jsonl, also .gz and .xz), `tfds:NAME`, or `demo`."""

    train: str = "demo"
    dev: str = ""
    """Empty holds out `dev_fraction` of the training examples."""
    test: str = ""
    """Empty reports on dev."""
    text: str = "text"
    """Name of the column that holds the text."""
    text_pair: str = ""
    """Name of the column that holds the second text; empty for single texts."""
    label: str = "label"
    labels: tuple[str, ...] = ()
    """The values of the label column in class order; empty takes them, sorted, from the training file, where `1` beside `1.0` is refused
    as one label in two spellings. `true` and `"true"` of a .jsonl file are one label."""
    dev_fraction: float = 0.1
    leaks: Literal["report", "leave_out", "refuse"] = "report"
    """What is done about training examples that stand in dev or test too: told, left out of training, or not trained with."""
    max_train_examples: int = 0
    """Train on a random sample of this many examples, with one of every class at least where so many allow it; 0 takes all."""

    def __post_init__(self) -> None:
        require(bool(self.train), "train", self.train, "name a labelled file, a tfds: name or demo.")
        require(0 < self.dev_fraction < 1, "dev_fraction", self.dev_fraction, "it must be in (0, 1).")
        not_negative(self, "max_train_examples")
        require(len(self.labels) != 1, "labels", self.labels, "name at least two labels, or none to take the file's.")
        require(self.label not in (self.text, self.text_pair), "label", self.label, "it must be another column than the texts.")
        for label in self.labels:
            require(bool(label.strip()), "labels", label, "every class needs a name.")
            require(label == label.strip(), "labels", label, "remove the white space around it; the labels of a file are read without.")
        twice = [label for label, count in Counter(self.labels).items() if count > 1]
        require(not twice, "labels", ", ".join(twice), "name each class once.")


@dataclass(frozen=True)
class FinetuneConfig:
    """The classification stage: sentiment first, any single text or pair with N classes by the same code."""

    data: LabelledConfig = field(default_factory=LabelledConfig)
    checkpoint: str = ""
    """A pre-training workdir to start from; empty takes this run's own pre-training stage."""
    from_scratch: bool = False
    """Start from random parameters instead of a checkpoint."""
    compare_from_scratch: bool = False
    """Also train the same classifier from random parameters, to see what pre-training gave."""
    length: int = 128
    examples_per_row: int = 8
    packing: bool = True
    batch_size: int = 32
    """Rows in one optimizer step."""
    epochs: int = 3
    pooling: Literal["cls", "mean"] = "cls"
    dropout: float = 0.1
    """Dropout before the classification head."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=3e-5))
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        positive(self, "examples_per_row", "batch_size", "epochs")
        fraction(self, "dropout")
        require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        require(
            not (self.from_scratch and self.checkpoint),
            "from_scratch",
            self.from_scratch,
            "a run from scratch takes no checkpoint; drop one of the two.",
        )
