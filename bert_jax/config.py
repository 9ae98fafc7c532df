"""What a run is made of: frozen, typed dataclasses that check themselves.

A configuration file (`configs/*.py`) builds a `RunConfig` as a short difference from these defaults. Every value is
checked when the object is made, so a `RunConfig` that exists is one that can run.
"""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from bert_jax.errors import InputError


def _require(condition: bool, name: str, value: Any, remedy: str) -> None:
    if not condition:
        raise InputError(f"The configuration value {name}={value!r} is not possible: {remedy}")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        _require(getattr(config, name) > 0, name, getattr(config, name), "it must be greater than zero.")


def _at_most(config: Any, **limits: int) -> None:
    """Sizes beyond any BERT: what is made from them would fill every memory, or never be compiled."""
    for name, most in limits.items():
        _require(getattr(config, name) <= most, name, getattr(config, name), f"it must be at most {most:,}.")


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        _require(getattr(config, name) >= 0, name, getattr(config, name), "it must not be negative.")


def _fraction(config: Any, *names: str) -> None:
    for name in names:
        _require(0 <= getattr(config, name) < 1, name, getattr(config, name), "it must be in [0, 1).")


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of a BERT encoder (Devlin et al. 2019, section 3).

    The size of the vocabulary is not here: it is the tokenizer's.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    max_positions: int = 512
    segment_types: int = 2
    """Sentence A and sentence B; an encoder with one type takes single texts only, and pairs are refused wherever they come up."""
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-12
    initializer_range: float = 0.02
    """Standard deviation of fresh matrices and tables; 0.02 suits a width of 768, a narrow encoder learns sooner from more."""
    position_initializer: Literal["normal", "sinusoidal"] = "normal"
    """What the learned position table starts from: the published noise, or waves, from which nearness is learned sooner."""
    attention_initializer: Literal["normal", "neighbours"] = "normal"
    """What the first layer's heads start from: the published noise, or each a neighbour before or after, found by the waves."""

    def __post_init__(self) -> None:
        _positive(self, "layers", "width", "heads", "feed_forward", "max_positions", "segment_types", "norm_epsilon")
        _positive(self, "initializer_range")
        _at_most(self, layers=1 << 10, width=1 << 17, heads=1 << 17, feed_forward=1 << 17, max_positions=1 << 20, segment_types=1 << 17)
        _fraction(self, "dropout", "attention_dropout")
        _require(self.width % self.heads == 0, "heads", self.heads, f"it must divide the width, {self.width}.")
        _require(
            self.attention_initializer == "normal" or self.position_initializer == "sinusoidal",
            "attention_initializer",
            self.attention_initializer,
            "neighbours are found by waves; set encoder.position_initializer=sinusoidal.",
        )
        _require(self.position_initializer == "normal" or self.width % 2 == 0, "width", self.width, "waves come in pairs; it must be even.")
        _require(
            self.attention_initializer == "normal" or self.width // self.heads >= 4,
            "heads",
            self.heads,
            "heads that attend to neighbours need four dimensions or more each; take fewer heads.",
        )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The published sizes (Devlin et al. 2019; Turc et al. 2019): tiny, mini, small, medium, base, large.

        Raises:
            InputError: no such size.
        """
        return dataclasses.replace(cls(), **(_published_sizes(name) | changes))

    def resized(self, name: str) -> Self:
        """This encoder with a preset's layers, width, heads, feed-forward width and initializers; every other value stays.

        Raises:
            InputError: no such size.
        """
        return dataclasses.replace(self, **_published_sizes(name))


def _published_sizes(name: str) -> dict[str, Any]:
    sizes = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768), "large": (24, 1024)}
    if name not in sizes:
        raise InputError(f"There is no encoder preset {name!r}. The presets are {', '.join(sizes)}.")
    layers, width = sizes[name]
    # What suits the initialization of a narrow encoder does not suit a wide one, so it is part of the size.
    initializers = ("initializer_range", "position_initializer", "attention_initializer")
    published = {field.name: field.default for field in dataclasses.fields(EncoderConfig) if field.name in initializers}
    return {"layers": layers, "width": width, "heads": width // 64, "feed_forward": 4 * width} | published


@dataclass(frozen=True)
class ComputeConfig:
    """How the architecture is computed; no value here changes what is learned, beyond rounding."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; parameters, layer norms, softmaxes and losses stay float32."""
    scan_layers: bool = False
    """One compiled layer in a loop (compiles in half the time) instead of N unrolled ones (runs faster)."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes again: nothing, all but matrix products, or every layer."""
    attention: Literal["auto", "dense", "splash", "cudnn"] = "auto"
    """Every weight in memory, or a fused kernel: splash on TPUs (rows of a multiple of 128 tokens), cudnn on NVIDIA GPUs (bfloat16).
    A kernel drops no attention weights, so it takes encoder.attention_dropout=0. Training takes by `auto` the kernel that fits, or none."""
    random_bits: Literal["threefry", "rbg"] = "threefry"
    """What dropout draws from. Threefry draws the same on every machine and mesh; rbg is the generator of a TPU or GPU itself, which
    computes less, and draws anew on another mesh."""
    cpu_devices: int = 1
    """Devices that a CPU counts as: with one for each of a few cores a narrow model trains faster, each on its own rows."""

    def __post_init__(self) -> None:
        _positive(self, "cpu_devices")


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; -1 for the data axis means all that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        _positive(self, "fsdp", "tensor")
        _require(self.data == -1 or self.data > 0, "data", self.data, "it must be -1 (all that are left) or positive.")


@dataclass(frozen=True)
class VocabularyConfig:
    """Where the vocabulary comes from: an existing file, or training on the corpus."""

    path: str = ""
    """An existing `vocab.txt` or `tokenizer.json`; empty trains a vocabulary from the corpus."""
    kind: Literal["wordpiece", "characters"] = "wordpiece"
    size: int = 30_522
    min_frequency: int = 2
    casing: Literal["auto", "uncased", "cased"] = "auto"
    """Uncased lowers the case; auto is uncased for a new vocabulary and what its files say for an existing one."""
    strip_accents: Literal["auto", "true", "false"] = "auto"
    """Whether é becomes e. Auto strips accents where the case is lowered, unless that takes the meaning out of the corpus: where more than
    0.1 % of its characters are outside Latin script and would change (パ to ハ, a Thai or Hindi word without its vowels). For an
    existing vocabulary it is what its files say."""
    max_word_length: int = 100
    """Characters; a longer word is [UNK], as in the published models. Scripts without spaces need more, such as 1000, or
    kind=characters, which has no limit. For an existing vocabulary 100 is what its files say."""

    def __post_init__(self) -> None:
        _require(self.size >= 6, "size", self.size, "it must hold the five special tokens and at least one other.")
        _positive(self, "min_frequency", "max_word_length")
        _at_most(self, max_word_length=1 << 17)

    @property
    def lowercase(self) -> bool | None:
        """Whether to lower the case, or None where the vocabulary's own files decide."""
        return {"auto": None, "uncased": True, "cased": False}[self.casing]

    @property
    def strips_accents(self) -> bool | None:
        """Whether to strip accents, or None where the corpus or the vocabulary's own files decide."""
        return {"auto": None, "true": True, "false": False}[self.strip_accents]

    @property
    def other_max_word_length(self) -> int | None:
        """A word length that an existing vocabulary is to have in place of its own, or None."""
        return None if self.max_word_length == VocabularyConfig.max_word_length else self.max_word_length


@dataclass(frozen=True)
class CorpusConfig:
    """The raw text and how it becomes documents of sentences of words."""

    source: str = "demo"
    """`demo`, `demo:reviews`, `demo:newspaper`, `tfds:NAME`, or a file, folder or glob of .txt, .txt.gz, .txt.xz."""
    valid_source: str = ""
    """The same for the held-out text; empty holds out `valid_fraction` of the documents of `source`."""
    valid_fraction: float = 0.01
    leaks: Literal["report", "leave_out", "refuse"] = "report"
    """What is done about training documents that stand in `valid_source` too: told, left out of training, or not trained with."""
    segmenter: Literal["jieba", "characters", "marked"] = "jieba"
    """What a Chinese word is: jieba's, each character, or what stands between U+200B marks in the text."""
    sentence_ends: Literal["sentences", "clauses", "all_scripts"] = "sentences"
    """Split at Western and Chinese full stops and the like; also at commas and semicolons (short, informal text); or also at those of
    other scripts, without which Hindi, Urdu, Burmese, Khmer, Amharic, Armenian or Tibetan paragraphs are one sentence each."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    data_dir: str = ""
    """Where prepared records are kept; empty means `data` inside the workdir."""

    def __post_init__(self) -> None:
        _require(bool(self.source), "source", self.source, "name a folder, a glob, a tfds: name or demo.")
        _require(0 < self.valid_fraction < 1, "valid_fraction", self.valid_fraction, "it must be in (0, 1).")


@dataclass(frozen=True)
class RowsConfig:
    """How documents become rows of the one batch shape (see docs/architecture.md)."""

    length: int = 128
    next_sentence: Literal["nsp", "sop", "none"] = "nsp"
    """Random next (Devlin et al. 2019), swapped order (Lan et al. 2020), or full sentences without the task."""
    packing: bool = True
    examples_per_row: int = 8
    short_probability: float = 0.1
    """Share of examples cut to a random shorter length (BERT, appendix A.2)."""

    def __post_init__(self) -> None:
        _require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        _positive(self, "examples_per_row")
        _fraction(self, "short_probability")


@dataclass(frozen=True)
class MaskingConfig:
    """The masked language model's corruption (Devlin et al. 2019, section 3.1)."""

    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_words: bool = False

    def __post_init__(self) -> None:
        _require(0 < self.rate < 1, "rate", self.rate, "it must be in (0, 1).")
        _require(
            self.mask_share >= 0 and self.random_share >= 0 and self.mask_share + self.random_share <= 1,
            "mask_share, random_share",
            (self.mask_share, self.random_share),
            "they are shares and sum to at most 1.",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or LAMB with warm-up, decay and clipping."""

    name: Literal["adamw", "lamb"] = "adamw"
    learning_rate: float = 1e-4
    warmup_fraction: float = 0.1
    decay: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 does not clip."""
    ema: float = 0.0
    """Decay of an exponential moving average of the parameters, which is then evaluated and is the saved model; 0 keeps none."""
    skip_above: float = 0.0
    """Skip an update whose loss exceeds so many times the running mean of the losses; 0 skips none that is finite."""

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "epsilon")
        _fraction(self, "warmup_fraction", "beta1", "beta2", "ema")
        _not_negative(self, "weight_decay", "clip_norm")
        _require(
            self.skip_above == 0 or self.skip_above > 1, "skip_above", self.skip_above, "it must be 0 (off) or more than 1 time the mean."
        )


@dataclass(frozen=True)
class LoopConfig:
    """How often the loop reports, evaluates and saves, in steps; and when it gives up."""

    log_every: int = 50
    evaluate_every: int = 1000
    save_every: int = 1000
    keep: int = 2
    """Newest checkpoints kept, beside the best."""
    verify: Literal["before", "background"] = "before"
    """When a run that goes on verifies the hashes of its checkpoints: before its first step, or in a thread while the first steps run."""
    max_skipped: int = 10
    """Updates skipped in a row, for a loss or a gradient that is not finite, at which the run stops."""
    profile: str = ""
    """Steps to trace with jax.profiler into `profile` inside the stage's directory: `100:105` is the first and the last, empty none."""

    def __post_init__(self) -> None:
        _positive(self, "log_every", "evaluate_every", "save_every", "keep", "max_skipped")
        steps = re.fullmatch("([0-9]+):([0-9]+)", self.profile or "1:1")
        _require(
            steps is not None and 0 < int(steps[1]) <= int(steps[2]),
            "profile",
            self.profile,
            "name the first and the last step to trace, counted from 1, such as 100:105.",
        )


@dataclass(frozen=True)
class LongRowsConfig:
    """Longer rows for the last part of pre-training (Devlin et al. 2019, appendix A.2: 512 tokens for the last tenth)."""

    share: float = 0.0
    """Share of the steps; 0 keeps `rows.length` to the end."""
    length: int = 512
    examples_per_row: int = 8
    batch_size: int = 256
    accumulation: int = 1

    def __post_init__(self) -> None:
        _fraction(self, "share")
        _require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        _positive(self, "examples_per_row", "batch_size", "accumulation")
        _require(
            self.batch_size % self.accumulation == 0,
            "accumulation",
            self.accumulation,
            f"it must divide the batch size, {self.batch_size}.",
        )


@dataclass(frozen=True)
class PretrainConfig:
    """The pre-training stage."""

    checkpoint: str = ""
    """A model directory to go on from, with its encoder and vocabulary: one of training, or one that was imported."""
    steps: int = 100_000
    batch_size: int = 256
    """Rows in one optimizer step, over all devices and accumulation rounds."""
    accumulation: int = 1
    evaluation_batches: int = 16
    blanks: tuple[str, ...] = ()
    """Sentences with [MASK] to fill at the end of the run; empty covers words of held-out text."""
    rows: RowsConfig = field(default_factory=RowsConfig)
    long_rows: LongRowsConfig = field(default_factory=LongRowsConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        _positive(self, "steps", "batch_size", "accumulation", "evaluation_batches")
        _require(
            self.batch_size % self.accumulation == 0,
            "accumulation",
            self.accumulation,
            f"it must divide the batch size, {self.batch_size}.",
        )


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
        _require(bool(self.train), "train", self.train, "name a labelled file, a tfds: name or demo.")
        _require(0 < self.dev_fraction < 1, "dev_fraction", self.dev_fraction, "it must be in (0, 1).")
        _not_negative(self, "max_train_examples")
        _require(len(self.labels) != 1, "labels", self.labels, "name at least two labels, or none to take the file's.")
        _require(self.label not in (self.text, self.text_pair), "label", self.label, "it must be another column than the texts.")
        for label in self.labels:
            _require(bool(label.strip()), "labels", label, "every class needs a name.")
            _require(label == label.strip(), "labels", label, "remove the white space around it; the labels of a file are read without.")
        twice = [label for label, count in Counter(self.labels).items() if count > 1]
        _require(not twice, "labels", ", ".join(twice), "name each class once.")


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
        _positive(self, "examples_per_row", "batch_size", "epochs")
        _fraction(self, "dropout")
        _require(self.length >= 8, "length", self.length, "it must be at least 8 tokens.")
        _require(
            not (self.from_scratch and self.checkpoint),
            "from_scratch",
            self.from_scratch,
            "a run from scratch takes no checkpoint; drop one of the two.",
        )


@dataclass(frozen=True)
class RunConfig:
    """One run: which stages, on what, how. A stage that is None is not run."""

    seed: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    pretrain: PretrainConfig | None = None
    finetune: FinetuneConfig | None = None

    def __post_init__(self) -> None:
        _not_negative(self, "seed")
        _require(
            self.compute.attention in ("auto", "dense") or self.encoder.attention_dropout == 0,
            "compute.attention",
            self.compute.attention,
            "a fused kernel drops no attention weights; set encoder.attention_dropout=0.",
        )
        self._check_pairs()
        lengths = {
            "pretrain.rows.length": self.pretrain and self.pretrain.rows.length,
            "pretrain.long_rows.length": self.pretrain and self.pretrain.long_rows.share and self.pretrain.long_rows.length,
            "finetune.length": self.finetune and self.finetune.length,
        }
        for name, length in lengths.items():
            _require(
                not length or self.compute.attention != "splash" or length % 128 == 0,
                name,
                length,
                "compute.attention=splash takes rows of a multiple of 128 tokens.",
            )
            _require(
                not length or length <= self.encoder.max_positions,
                name,
                length,
                f"the encoder has {self.encoder.max_positions} positions; shorten the rows or raise encoder.max_positions.",
            )

    def _check_pairs(self) -> None:
        """Segment 1 of a pair needs a row of its own in the segment table; without one it would silently be read as segment 0."""
        if self.encoder.segment_types > 1:
            return
        why = "an encoder with encoder.segment_types=1 cannot tell the second text of a pair from the first;"
        if self.pretrain:
            task = self.pretrain.rows.next_sentence
            _require(task == "none", "pretrain.rows.next_sentence", task, f"{why} set it to none, or encoder.segment_types=2.")
        # A classifier of another model's checkpoint has that model's encoder.
        if self.finetune and not self.finetune.checkpoint and (self.pretrain or self.finetune.from_scratch):
            column = self.finetune.data.text_pair
            _require(not column, "finetune.data.text_pair", column, f"{why} set encoder.segment_types=2, or put both texts in one column.")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values (tuples become lists)."""
    return {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for f in dataclasses.fields(config)
        for value in (getattr(config, f.name),)
    }
