"""BERT-base on English Wikipedia, rows of 512 tokens, the published learning-rate schedule.

    python train.py --config=configs/pretrain_base_en.py --workdir=runs/pretrain_base_en

Needs TensorFlow and Apache Beam to fetch Wikipedia through TFDS: pip install tensorflow-cpu==2.21.0 apache-beam==2.77.0.
Not measured here. Devlin et al. (2019) trained on books too and on rows of 128 tokens for nine tenths of the
steps in four days on 16 TPU chips; fine-tuned, that model gives 93.5 % on SST-2.

No weights of attention are dropped, so that fused kernels compute it; the vocabulary is a multiple of 128.
Compiled for a v5e-8 (`python -m bert_jax compile --topology=v5e:2x4`) it takes 14.9 of a chip's 15.75 GiB
and at least 66 ms a step. A v5e-256 is better used with LAMB and 8,192 rows (rates by the square-root rule of
You et al. 2020): --config.pretrain.batch_size=8192 --config.pretrain.steps=31250
--config.pretrain.optimizer.name=lamb --config.pretrain.optimizer.learning_rate=2.5e-3
--config.pretrain.optimizer.warmup_fraction=0.05
"""

from bert_jax.config import (
    ComputeConfig,
    CorpusConfig,
    EncoderConfig,
    LoopConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
    VocabularyConfig,
)


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig.preset("base", attention_dropout=0.0),
        compute=ComputeConfig(dtype="bfloat16", scan_layers=True, remat="none"),
        vocabulary=VocabularyConfig(size=30_592),
        corpus=CorpusConfig(source="tfds:wikipedia/20230601.en", valid_fraction=0.005),
        pretrain=PretrainConfig(
            steps=1_000_000,
            batch_size=256,
            rows=RowsConfig(length=512),
            masking=MaskingConfig(whole_words=False),
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_fraction=0.01),
            loop=LoopConfig(log_every=100, evaluate_every=10_000, save_every=5_000),
        ),
    )
