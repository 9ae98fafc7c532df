"""The second command of configs/pretrain_large_lamb_en.py: 1,563 steps of 32,768 sequences of 512 tokens, with a new warm-up.

    python train.py --config=configs/pretrain_large_lamb_en_512.py --workdir=runs/pretrain_large_lamb_en_512

It takes the encoder, the vocabulary and the prepared records of the first command, and starts with a fresh optimizer. The trained
model is runs/pretrain_large_lamb_en_512/pretrain.
Cost: compiled for a v5e-256, a step takes 11.1 of each chip's 15.75 GiB and at least 0.73 s.
On one 80 GB GPU, set --config.pretrain.gradient_accumulation_steps=512 (not measured; as in configs/pretrain_large_en.py).
Score: that of configs/pretrain_large_lamb_en.py.
"""

from dataclasses import replace

from bert_jax.config import LoopConfig, OptimizerConfig, PretrainConfig, RowsConfig, RunConfig, VocabularyConfig
from bert_jax.config.overrides import load_config


def get_config() -> RunConfig:
    first = load_config("pretrain_large_lamb_en")
    return replace(
        first,
        vocabulary=VocabularyConfig(),  # the checkpoint brings its own
        corpus=replace(first.corpus, data_dir="runs/pretrain_large_lamb_en/data"),
        pretrain=PretrainConfig(
            checkpoint="runs/pretrain_large_lamb_en/pretrain",
            steps=1_563,
            batch_size=32_768,
            gradient_accumulation_steps=16,
            evaluation_batches=1,
            rows=RowsConfig(length=512),
            optimizer=OptimizerConfig(name="lamb", learning_rate=4e-3, warmup_fraction=0.128),
            loop=LoopConfig(log_every=10, evaluate_every=500, save_every=50),
        ),
    )
