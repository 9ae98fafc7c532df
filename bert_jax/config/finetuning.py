"""Configuration of the fine-tuning stage."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from bert_jax.config.checks import at_most, fraction, not_negative, positive, require
from bert_jax.config.renamed import formerly
from bert_jax.config.training import LoopConfig, OptimizerConfig


@dataclass(frozen=True)
class TaskOptions:
    """The fine-tuning task: `name` selects the task, whose own options are defined in a subclass (`bert_jax.tasks`)."""

    CHOSEN_BY: ClassVar[str] = "name"
    SEPARATE_TEXTS: ClassVar[bool] = False
    """Whether the model reads each text of a pair alone, instead of both as segments A and B of one input."""
    name: str = "classification"

    def columns(self) -> Mapping[str, str]:
        """Return the names of the target columns, keyed by the options that set them; the text columns are not included."""
        return {}

    @staticmethod
    def unchecked(values: Mapping[str, Any]) -> "TaskOptions":
        """Return options that are validated later, when the task is known."""
        return with_values(TaskOptions(values.get("name", TaskOptions.name)), {n: v for n, v in values.items() if n != "name"})


@dataclass(frozen=True)
class UncheckedOptions(TaskOptions):
    """Task options by name, not yet validated by the task."""

    values: Mapping[str, Any] = field(default_factory=dict)


def with_values(task: TaskOptions, values: Mapping[str, Any]) -> TaskOptions:
    """Return the options with some values replaced; they are validated when the task is known."""
    if not values:
        return task
    options = dict(task.values) if isinstance(task, UncheckedOptions) else {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    return UncheckedOptions(task.name, {name: value for name, value in options.items() if name != task.CHOSEN_BY} | dict(values))


_NOW = "FinetuneConfig(task=ClassificationOptions({}=...))"


def _keep(data: Any, values: Mapping[str, Any]) -> None:
    object.__setattr__(data, "for_task", values)


def _give_task(config: Any, values: Mapping[str, Any]) -> None:
    object.__setattr__(config, "task", with_values(config.task, values))


@formerly(_keep, label=_NOW.format("label"), labels=_NOW.format("labels"))
@dataclass(frozen=True)
class LabelledConfig:
    """Labeled text: files (.tsv, .csv, .jsonl, also .gz and .xz), a data set (as for `corpus.source`), or `demo`."""

    train: str = "demo"
    """Training data: a file, a folder of labeled images or recordings, a data set (`tfds:NAME`, `hf:OWNER/NAME`), or `demo`."""
    dev: str = ""
    """Data that the best checkpoint is selected on; if empty, `dev_fraction` of the training examples is held out."""
    test: str = ""
    """Data for the final scores; if empty, test metrics are reported on dev."""
    text: str = "text"
    """Name of the text column."""
    text_pair: str = ""
    """Name of the column with the second text of a pair; empty for single texts."""
    dev_fraction: float = 0.1
    """Fraction of the training examples to hold out if `dev` is empty."""
    leaks: Literal["report", "leave_out", "refuse"] = "report"
    """What to do about training examples that are also in dev or test: report them, drop them, or raise an error."""
    max_train_examples: int = 0
    """Train on a random sample of this size, with at least one example of every class if possible; 0 uses all examples."""
    folds: int = 0
    """Number of folds of cross-validation: each part of `train` tests a model trained on the other parts; 0 does not cross-validate."""

    def __post_init__(self) -> None:
        require(bool(self.train), "train", self.train, "name a labeled file, a data set (tfds: or hf:) or demo.")
        require(0 < self.dev_fraction < 1, "dev_fraction", self.dev_fraction, "it must be in (0, 1).")
        not_negative(self, "max_train_examples")
        require(self.folds == 0 or self.folds >= 2, "folds", self.folds, "it must be at least 2, or 0 for no cross-validation.")
        given = " and ".join(name for name in ("dev", "test") if getattr(self, name))
        require(
            not (self.folds and given),
            "folds",
            self.folds,
            f"cross-validation tests on parts of train and holds dev out of the others; leave {given} empty, or drop folds.",
        )


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the training examples, different in every step."""

    flip: bool = False
    """Mirror images from left to right, each with probability 1/2."""
    shift: int = 0
    """Shift images by up to this many pixels in each direction, repeating the pixels at the edge."""
    time_mask: float = 0.0
    """Hide a stretch of each recording, of up to this share of its length (Park et al. 2019)."""
    band_mask: float = 0.0
    """Hide a range of each recording's frequency bands, of up to this share of them."""

    def __post_init__(self) -> None:
        not_negative(self, "shift")
        at_most(self, shift=1 << 10)
        fraction(self, "time_mask", "band_mask")


MATRICES = ("query", "key", "value", "attention_output", "feed_forward", "feed_forward_output")
"""The matrices of an encoder layer."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2021): only the head and small factors of some of the encoder's matrices are trained."""

    rank: int = 0
    """Rank of the factors; 0 trains every parameter instead."""
    alpha: float = 16.0
    """The product of the factors is scaled by alpha / rank."""
    matrices: tuple[str, ...] = ("query", "value")
    """Matrices of each layer that are adapted, of query, key, value, attention_output, feed_forward and feed_forward_output."""

    def __post_init__(self) -> None:
        not_negative(self, "rank")
        positive(self, "alpha")
        unknown = [name for name in self.matrices if name not in MATRICES]
        require(not unknown, "matrices", ",".join(unknown), f"name some of {', '.join(MATRICES)}.")
        once = len(set(self.matrices)) == len(self.matrices) > 0
        require(once, "matrices", ",".join(self.matrices), "name at least one matrix, and each once.")


@formerly(_give_task, pooling=_NOW.format("pooling"))
@dataclass(frozen=True)
class FinetuneConfig:
    """The fine-tuning stage: one task, trained on labeled texts or text pairs."""

    task: TaskOptions = field(default_factory=TaskOptions)
    """The task, such as `classify`, and its options."""
    data: LabelledConfig = field(default_factory=LabelledConfig)
    checkpoint: str = ""
    """Directory of the pre-trained or imported model to start from, such as `runs/demo/pretrain`; empty uses the pre-training stage of this
    run. If there is an adapt stage, it continues from this model first."""
    from_scratch: bool = False
    """Start from random parameters instead of a checkpoint."""
    compare_from_scratch: bool = False
    """Also train the same model from random parameters, to measure the benefit of pre-training."""
    compare_linear: bool = False
    """Also train a linear model on plain features of the same inputs: n-grams of characters, pixels, or log-mel energies."""
    length: int = 128
    """Tokens per row, and the most tokens of an example, with [CLS] and [SEP]."""
    examples_per_row: int = 8
    """The most examples in a row."""
    packing: bool = True
    """Whether a row may hold several examples; otherwise the rest of each row is padding."""
    batch_size: int = 32
    """Rows in one optimizer step."""
    epochs: int = 3
    """Number of passes over the training examples."""
    seeds: tuple[int, ...] = ()
    """Train a model with each of these seeds, for the mean and standard deviation of the scores; empty trains one, with the run's seed."""
    patience: int = 0
    """End training after this many evaluations (`loop.evaluate_every`) without a better score on dev; 0 trains for all epochs."""
    dropout: float = 0.1
    """Dropout before the task head."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=3e-5))
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        _give_task(self, getattr(self.data, "for_task", {}))
        for option, column in self.task.columns().items():
            texts = (self.data.text, self.data.text_pair)
            require(column not in texts, f"task.{option}", column, "it must not be one of the text columns.")
        positive(self, "examples_per_row", "batch_size", "epochs")
        not_negative(self, "patience")
        fraction(self, "dropout")
        distinct = min(self.seeds, default=0) >= 0 and len(set(self.seeds)) == len(self.seeds) != 1
        require(distinct, "seeds", self.seeds, "name two or more different seeds, such as 0,1,2, or none to train one model.")
        require(
            not (self.seeds and self.data.folds),
            "seeds",
            self.seeds,
            "it cannot be combined with finetune.data.folds, which trains a model for each fold; drop one of the two.",
        )
        require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        require(
            not (self.from_scratch and self.checkpoint),
            "from_scratch",
            self.from_scratch,
            "it cannot be combined with finetune.checkpoint; drop one of the two.",
        )
        random = next((name for name in ("from_scratch", "compare_from_scratch") if getattr(self, name)), "")
        require(
            not (self.lora.rank and random),
            "lora.rank",
            self.lora.rank,
            f"LoRA adapts a pre-trained encoder, not a random one; set it to 0, or drop finetune.{random}.",
        )
