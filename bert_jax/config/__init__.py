"""The configuration of a run: frozen, typed dataclasses that validate themselves.

A configuration file (`configs/*.py`) builds a `RunConfig` from these defaults and a few changes. All values are validated
at construction, so every `RunConfig` instance is valid.
"""

from bert_jax.config.compute import ComputeConfig, MeshConfig
from bert_jax.config.corpus import CorpusOptions, VocabularyOptions
from bert_jax.config.encoder import EncoderConfig
from bert_jax.config.finetuning import AugmentationConfig, FinetuneConfig, LabelledConfig, LoraConfig, TaskOptions
from bert_jax.config.pretraining import AdaptConfig, LongRowsConfig, MaskingConfig, PretrainConfig, RowsConfig
from bert_jax.config.run import RunConfig, to_dict
from bert_jax.config.text import CorpusConfig, VocabularyConfig
from bert_jax.config.training import LoopConfig, OptimizerConfig

__all__ = [
    "AdaptConfig",
    "AugmentationConfig",
    "ComputeConfig",
    "CorpusConfig",
    "CorpusOptions",
    "EncoderConfig",
    "FinetuneConfig",
    "LabelledConfig",
    "LongRowsConfig",
    "LoopConfig",
    "LoraConfig",
    "MaskingConfig",
    "MeshConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "RowsConfig",
    "RunConfig",
    "TaskOptions",
    "VocabularyConfig",
    "VocabularyOptions",
    "to_dict",
]
