"""Configuration of a complete run."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bert_jax.config.checks import not_negative, require
from bert_jax.config.compute import ComputeConfig, MeshConfig
from bert_jax.config.corpus import CorpusOptions, VocabularyOptions
from bert_jax.config.encoder import EncoderConfig
from bert_jax.config.finetuning import FinetuneConfig, UncheckedOptions
from bert_jax.config.pretraining import PretrainConfig
from bert_jax.config.text import CorpusConfig, VocabularyConfig


@dataclass(frozen=True)
class RunConfig:
    """A run: its stages, model, data and devices. A stage that is None is not run."""

    seed: int = 0
    """What everything random is derived from: initialization, order of the data, masks and dropout."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    # Text, unless the corpus is of another modality.
    vocabulary: VocabularyConfig | VocabularyOptions = field(default_factory=VocabularyConfig)
    corpus: CorpusConfig | CorpusOptions = field(default_factory=CorpusConfig)
    pretrain: PretrainConfig | None = None
    finetune: FinetuneConfig | None = None

    def __post_init__(self) -> None:
        not_negative(self, "seed")
        require(
            self.compute.attention in ("auto", "dense") or self.encoder.attention_dropout == 0,
            "compute.attention",
            self.compute.attention,
            "fused kernels do not support attention dropout; set encoder.attention_dropout=0.",
        )
        self._check_pairs()
        lengths = {
            "pretrain.rows.length": self.pretrain and self.pretrain.rows.length,
            "pretrain.long_rows.length": self.pretrain and self.pretrain.long_rows.share and self.pretrain.long_rows.length,
            "finetune.length": self.finetune and self.finetune.length,
        }
        for name, length in lengths.items():
            require(
                not length or self.compute.attention != "splash" or length % 128 == 0,
                name,
                length,
                "compute.attention=splash needs a multiple of 128 tokens.",
            )
            require(
                not length or length <= self.encoder.max_positions,
                name,
                length,
                f"the encoder has {self.encoder.max_positions} positions; shorten the rows or raise encoder.max_positions.",
            )

    def _check_pairs(self) -> None:
        """Check that pairs are used only with two segment types; otherwise segment 1 would silently get the embedding of segment 0."""
        if self.encoder.segment_types > 1:
            return
        why = "an encoder with encoder.segment_types=1 cannot tell the second text of a pair from the first;"
        if self.pretrain:
            task = self.pretrain.rows.next_sentence
            require(task == "none", "pretrain.rows.next_sentence", task, f"{why} set it to none, or encoder.segment_types=2.")
        # A model fine-tuned from another checkpoint uses the encoder of that checkpoint.
        joined = self.finetune and not self.finetune.task.SEPARATE_TEXTS
        if self.finetune and joined and not self.finetune.checkpoint and (self.pretrain or self.finetune.from_scratch):
            column = self.finetune.data.text_pair
            require(not column, "finetune.data.text_pair", column, f"{why} set encoder.segment_types=2, or put both texts in one column.")


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a dataclass to plain JSON values; tuples become lists."""
    values = {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for f in dataclasses.fields(config)
        for value in (getattr(config, f.name),)
    }
    return {"name": config.name, **config.values} if isinstance(config, UncheckedOptions) else values
