"""Configuration of a complete run."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from bert_jax.config.checks import not_negative, require
from bert_jax.config.compute import ComputeConfig, MeshConfig
from bert_jax.config.corpus import CorpusOptions, VocabularyOptions
from bert_jax.config.encoder import EncoderConfig
from bert_jax.config.finetuning import FinetuneConfig, UncheckedOptions
from bert_jax.config.pretraining import AdaptConfig, PretrainConfig
from bert_jax.config.text import CorpusConfig, VocabularyConfig

_LEFT_OUT = "left out"
"""Key of a field's metadata: the value that is not stored, so that the files of runs that do not use the field stay as they were."""


@dataclass(frozen=True)
class RunConfig:
    """A run: its stages, model, data and devices. A stage that is None is not run."""

    seed: int = 0
    """Seed of everything random: initialization, order of the data, masks and dropout."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    # Text, unless the corpus is of another modality.
    vocabulary: VocabularyConfig | VocabularyOptions = field(default_factory=VocabularyConfig)
    corpus: CorpusConfig | CorpusOptions = field(default_factory=CorpusConfig)
    pretrain: PretrainConfig | None = None
    adapt: AdaptConfig | None = field(default=None, metadata={_LEFT_OUT: None})
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
        if self.adapt:
            self._check_adapt(self.adapt, self.finetune)
        lengths: dict[str, Any] = {}
        for stage in filter(None, (self.pretrain, self.adapt)):
            lengths[f"{stage.NAME}.rows.length"] = stage.rows.length
            lengths[f"{stage.NAME}.long_rows.length"] = stage.long_rows.share and stage.long_rows.length
        lengths["finetune.length"] = self.finetune and self.finetune.length
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
        for stage in filter(None, (self.pretrain, self.adapt)):
            task = stage.rows.next_sentence
            require(task == "none", f"{stage.NAME}.rows.next_sentence", task, f"{why} set it to none, or encoder.segment_types=2.")
        # A model fine-tuned from another checkpoint uses the encoder of that checkpoint.
        joined = self.finetune and not self.finetune.task.SEPARATE_TEXTS
        if self.finetune and joined and not self.finetune.checkpoint and (self.pretrain or self.finetune.from_scratch):
            column = self.finetune.data.text_pair
            require(not column, "finetune.data.text_pair", column, f"{why} set encoder.segment_types=2, or put both texts in one column.")

    @staticmethod
    def _check_adapt(adapt: AdaptConfig, finetune: FinetuneConfig | None) -> None:
        without = "or leave the adapt stage out (adapt=none)."
        require(
            finetune is not None,
            "adapt.steps",
            adapt.steps,
            f"the stage trains on the texts of the finetune stage, which this run does not have; add that stage, {without}",
        )
        assert finetune is not None
        require(
            not adapt.checkpoint,
            "adapt.checkpoint",
            adapt.checkpoint,
            "the stage continues from the pretrain stage of this run, or from finetune.checkpoint; set that one instead.",
        )
        require(not adapt.blanks, "adapt.blanks", adapt.blanks, "a run fills in those of pretrain; set pretrain.blanks instead.")
        require(
            not finetune.from_scratch,
            "finetune.from_scratch",
            finetune.from_scratch,
            f"the adapt stage needs a pre-trained encoder; set finetune.compare_from_scratch instead, {without}",
        )
        require(
            not finetune.data.folds,
            "finetune.data.folds",
            finetune.data.folds,
            f"the adapt stage would train on the texts of every fold, also of the one to test on; drop the folds, {without}",
        )


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a dataclass to plain JSON values; tuples become lists."""
    values = {
        f.name: to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for f in dataclasses.fields(config)
        for value in (getattr(config, f.name),)
        if not (_LEFT_OUT in f.metadata and value == f.metadata[_LEFT_OUT])
    }
    return {"name": config.name, **config.values} if isinstance(config, UncheckedOptions) else values
