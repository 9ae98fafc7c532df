"""BERT-base on English Wikipedia, sequences of 512 tokens, the published learning-rate schedule.

    python train.py --config=configs/pretrain_base_en.py --workdir=runs/pretrain_base_en

The other Wikipedia configurations are short differences from this one. Attention weights are not dropped, so that fused kernels can
compute attention; the vocabulary size is a multiple of 128.
Requirements: TensorFlow and Apache Beam, to fetch Wikipedia through TFDS: pip install tensorflow-cpu==2.21.0 apache-beam==2.77.0.
Cost: compiled for a v5e-8 (`python -m bert_jax compile --topology=v5e:2x4`), a step takes 14.9 of each chip's 15.75 GiB and at least
66 ms. A v5e-256 is put to better use by LAMB with batches of 8,192 (learning rate by the square-root rule of You et al. 2020):
--config.pretrain.batch_size=8192 --config.pretrain.steps=31250 --config.pretrain.optimizer.name=lamb
--config.pretrain.optimizer.learning_rate=2.5e-3 --config.pretrain.optimizer.warmup_fraction=0.05
On one 80 GB GPU, set --config.pretrain.gradient_accumulation_steps=2: 128 rows at a time took 33 GiB on an H200.
Score: not measured here. Devlin et al. (2019) also trained on books and used sequences of 128 tokens for 90% of the steps; they
took four days on 16 TPU chips, and their model reaches 93.5% on SST-2 after fine-tuning.
"""

from bert_jax.config import (
    ComputeConfig,
    CorpusConfig,
    EncoderConfig,
    LoopConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
    VocabularyConfig,
)


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig.preset("base", attention_dropout=0.0),
        compute=ComputeConfig(dtype="bfloat16"),
        vocabulary=VocabularyConfig(size=30_592),
        corpus=CorpusConfig(source="tfds:wikipedia/20230601.en", valid_fraction=0.005),
        pretrain=PretrainConfig(
            steps=1_000_000,
            batch_size=256,
            rows=RowsConfig(length=512),
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_fraction=0.01),
            loop=LoopConfig(log_every=100, evaluate_every=10_000, save_every=5_000),
        ),
    )
