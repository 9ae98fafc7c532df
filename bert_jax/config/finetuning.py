"""The fine-tuning stage."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from bert_jax.config.checks import fraction, not_negative, positive, require
from bert_jax.config.renamed import formerly
from bert_jax.config.training import LoopConfig, OptimizerConfig


@dataclass(frozen=True)
class TaskOptions:
    """What the encoder is fine-tuned for: `name` chooses the task, whose own options are in a subclass beside it (`bert_jax.tasks`)."""

    CHOSEN_BY: ClassVar[str] = "name"
    name: str = "classification"

    def columns(self) -> Mapping[str, str]:
        """The columns with what is learned, beside those of the texts, by the options that name them."""
        return {}

    @staticmethod
    def unchecked(values: Mapping[str, Any]) -> "TaskOptions":
        """Options that somebody who knows the task will check."""
        return with_values(TaskOptions(values.get("name", TaskOptions.name)), {n: v for n, v in values.items() if n != "name"})


@dataclass(frozen=True)
class UncheckedOptions(TaskOptions):
    """Options of a task by name, before anybody who knows the task has checked them."""

    values: Mapping[str, Any] = field(default_factory=dict)


def with_values(task: TaskOptions, values: Mapping[str, Any]) -> TaskOptions:
    """The options with some values changed, which are checked where the task is known."""
    if not values:
        return task
    own = dict(task.values) if isinstance(task, UncheckedOptions) else {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    return UncheckedOptions(task.name, {name: value for name, value in own.items() if name != task.CHOSEN_BY} | dict(values))


_NOW = "FinetuneConfig(task=ClassificationOptions({}=...))"


def _keep(data: Any, values: Mapping[str, Any]) -> None:
    object.__setattr__(data, "for_task", values)


def _give_task(config: Any, values: Mapping[str, Any]) -> None:
    object.__setattr__(config, "task", with_values(config.task, values))


@formerly(_keep, label=_NOW.format("label"), labels=_NOW.format("labels"))
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
    dev_fraction: float = 0.1
    leaks: Literal["report", "leave_out", "refuse"] = "report"
    """What is done about training examples that stand in dev or test too: told, left out of training, or not trained with."""
    max_train_examples: int = 0
    """Train on a random sample of this many examples, with one of every class at least where so many allow it; 0 takes all."""

    def __post_init__(self) -> None:
        require(bool(self.train), "train", self.train, "name a labelled file, a tfds: name or demo.")
        require(0 < self.dev_fraction < 1, "dev_fraction", self.dev_fraction, "it must be in (0, 1).")
        not_negative(self, "max_train_examples")


@formerly(_give_task, pooling=_NOW.format("pooling"))
@dataclass(frozen=True)
class FinetuneConfig:
    """The fine-tuning stage: one task, on labelled texts or pairs of texts."""

    task: TaskOptions = field(default_factory=TaskOptions)
    """What is learned, such as `classification`; its own options are below it."""
    data: LabelledConfig = field(default_factory=LabelledConfig)
    checkpoint: str = ""
    """A pre-training workdir to start from; empty takes this run's own pre-training stage."""
    from_scratch: bool = False
    """Start from random parameters instead of a checkpoint."""
    compare_from_scratch: bool = False
    """Also train the same model from random parameters, to see what pre-training gave."""
    length: int = 128
    examples_per_row: int = 8
    packing: bool = True
    batch_size: int = 32
    """Rows in one optimizer step."""
    epochs: int = 3
    dropout: float = 0.1
    """Dropout before the task's head."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=3e-5))
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        _give_task(self, getattr(self.data, "for_task", {}))
        for option, column in self.task.columns().items():
            texts = (self.data.text, self.data.text_pair)
            require(column not in texts, f"task.{option}", column, "it must be another column than the texts.")
        positive(self, "examples_per_row", "batch_size", "epochs")
        fraction(self, "dropout")
        require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        require(
            not (self.from_scratch and self.checkpoint),
            "from_scratch",
            self.from_scratch,
            "a run from scratch takes no checkpoint; drop one of the two.",
        )
