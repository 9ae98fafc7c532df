"""The second command of configs/pretrain_large_lamb_en.py: 1,563 steps of 32,768 rows of 512 tokens, warmed up again.

    python train.py --config=configs/pretrain_large_lamb_en_512.py --workdir=runs/pretrain_large_lamb_en_512

It takes encoder, vocabulary and prepared records of the first, with a fresh optimizer. The trained model
is runs/pretrain_large_lamb_en_512/pretrain. Compiled for a v5e-256 a step takes 11.1 of a chip's 15.75 GiB and at
least 0.73 s.
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
)


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig.preset("large", attention_dropout=0.0),
        compute=ComputeConfig(dtype="bfloat16", scan_layers=True, remat="dots"),
        corpus=CorpusConfig(source="tfds:wikipedia/20230601.en", valid_fraction=0.005, data_dir="runs/pretrain_large_lamb_en/data"),
        pretrain=PretrainConfig(
            checkpoint="runs/pretrain_large_lamb_en/pretrain",
            steps=1_563,
            batch_size=32_768,
            accumulation=16,
            evaluation_batches=1,
            rows=RowsConfig(length=512),
            optimizer=OptimizerConfig(name="lamb", learning_rate=4e-3, warmup_fraction=0.128),
            loop=LoopConfig(log_every=10, evaluate_every=500, save_every=50),
        ),
    )
