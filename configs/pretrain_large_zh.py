"""BERT-large on Chinese Wikipedia with whole-word masking by jieba's words.

    python train.py --config=configs/pretrain_large_zh.py --workdir=runs/pretrain_large_zh

Needs TensorFlow and Apache Beam to fetch Wikipedia through TFDS: pip install tensorflow-cpu==2.21.0 apache-beam==2.77.0.
Not measured here. RoBERTa-wwm-ext-large, trained longer on more text, gives 95 % on
ChnSentiCorp's dev set (Cui et al. 2021).

What it takes of a TPU, and how to use 64 of them, is in configs/pretrain_large_en.py.
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
        encoder=EncoderConfig.preset("large", attention_dropout=0.0),
        compute=ComputeConfig(dtype="bfloat16", scan_layers=True, remat="dots"),
        vocabulary=VocabularyConfig(size=21_248),
        corpus=CorpusConfig(source="tfds:wikipedia/20230601.zh", valid_fraction=0.005),
        pretrain=PretrainConfig(
            steps=1_000_000,
            batch_size=256,
            rows=RowsConfig(length=512),
            masking=MaskingConfig(whole_words=True),
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_fraction=0.01),
            loop=LoopConfig(log_every=100, evaluate_every=10_000, save_every=5_000),
        ),
    )
