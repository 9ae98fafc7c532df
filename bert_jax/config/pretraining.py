"""Configuration of the pre-training stage."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bert_jax.config.checks import fraction, positive, require
from bert_jax.config.renamed import renamed
from bert_jax.config.training import LoopConfig, OptimizerConfig


@dataclass(frozen=True)
class RowsConfig:
    """How documents are packed into rows of the batch layout (see docs/architecture.md)."""

    length: int = 128
    """Tokens per row, and the most tokens of an example, with [CLS] and [SEP]."""
    next_sentence: Literal["nsp", "sop", "none"] = "nsp"
    """Next-sentence prediction (Devlin et al. 2019), sentence-order prediction (Lan et al. 2020), or no sentence task."""
    packing: bool = True
    """Whether a row may hold several examples; otherwise the rest of each row is padding."""
    examples_per_row: int = 8
    """The most examples in a row."""
    short_probability: float = 0.1
    """Fraction of examples that are limited to a random shorter length (Devlin et al. 2019, appendix A.2)."""

    def __post_init__(self) -> None:
        require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        positive(self, "examples_per_row")
        fraction(self, "short_probability")


@dataclass(frozen=True)
class MaskingConfig:
    """Masking for masked language modeling (Devlin et al. 2019, section 3.1)."""

    rate: float = 0.15
    """Share of the tokens of a row that are chosen for prediction."""
    mask_share: float = 0.8
    """Share of the chosen tokens that become [MASK]."""
    random_share: float = 0.1
    """Share of the chosen tokens that become a random token; the others stay as they are."""
    whole_words: bool = False
    """Choose whole words, all of whose tokens are predicted, instead of single tokens; of images, blocks of patches, and of recordings,
    spans of slices."""

    def __post_init__(self) -> None:
        require(0 < self.rate < 1, "rate", self.rate, "it must be in (0, 1).")
        require(
            self.mask_share >= 0 and self.random_share >= 0 and self.mask_share + self.random_share <= 1,
            "mask_share, random_share",
            (self.mask_share, self.random_share),
            "they must not be negative, and their sum must be at most 1.",
        )


@renamed(accumulation="gradient_accumulation_steps")
@dataclass(frozen=True)
class LongRowsConfig:
    """Longer rows for the last part of pre-training (Devlin et al. 2019, appendix A.2: 512 tokens for the last 10% of the steps)."""

    share: float = 0.0
    """Fraction of the steps; 0 keeps `rows.length` to the end."""
    length: int = 512
    """As `rows.length`."""
    examples_per_row: int = 8
    """As `rows.examples_per_row`."""
    batch_size: int = 256
    """As `batch_size` of the stage."""
    gradient_accumulation_steps: int = 1
    """As `gradient_accumulation_steps` of the stage."""

    def __post_init__(self) -> None:
        fraction(self, "share")
        require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        positive(self, "examples_per_row", "batch_size", "gradient_accumulation_steps")
        require(
            self.batch_size % self.gradient_accumulation_steps == 0,
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps,
            f"it must divide the batch size, {self.batch_size}.",
        )


@renamed(accumulation="gradient_accumulation_steps")
@dataclass(frozen=True)
class PretrainConfig:
    """The pre-training stage."""

    NAME: ClassVar[str] = "pretrain"
    """Name of the stage, and of its directory in a workdir."""
    checkpoint: str = ""
    """A trained or imported model directory whose encoder and vocabulary to continue from."""
    steps: int = 100_000
    """Number of optimizer updates."""
    batch_size: int = 256
    """Rows per optimizer step, over all devices and microbatches."""
    gradient_accumulation_steps: int = 1
    """Number of microbatches into which each batch is divided, to save memory; it does not change what is learned."""
    evaluation_batches: int = 16
    """Number of held-out batches in each evaluation; they are the same every time."""
    blanks: tuple[str, ...] = ()
    """Sentences with [MASK] to fill in at the end of the run; if empty, words of held-out text are masked."""
    rows: RowsConfig = field(default_factory=RowsConfig)
    long_rows: LongRowsConfig = field(default_factory=LongRowsConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        positive(self, "steps", "batch_size", "gradient_accumulation_steps", "evaluation_batches")
        require(
            self.batch_size % self.gradient_accumulation_steps == 0,
            "gradient_accumulation_steps",
            self.gradient_accumulation_steps,
            f"it must divide the batch size, {self.batch_size}.",
        )


@dataclass(frozen=True)
class AdaptConfig(PretrainConfig):
    """Task-adaptive pre-training (Gururangan et al. 2020, section 4): between the other two stages, the pre-training of the encoder goes
    on with the texts of the training examples, without their labels. Setting one of these values adds the stage to a run."""

    NAME: ClassVar[str] = "adapt"
    ADDABLE: ClassVar[bool] = True
    """Setting one of the values adds the stage to a configuration without it (`bert_jax.config.overrides`)."""
    checkpoint: str = ""
    """Leave it empty: the stage continues from the model that fine-tuning would otherwise start from."""
    steps: int = 1000
    batch_size: int = 16
    blanks: tuple[str, ...] = ()
    """Leave it empty: the blanks that a run fills in are those of `pretrain`."""
    rows: RowsConfig = field(default_factory=lambda: RowsConfig(next_sentence="none"))
