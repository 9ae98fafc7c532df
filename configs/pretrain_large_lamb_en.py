"""BERT-large on English Wikipedia with LAMB: 7,038 steps of 65,536 sequences of 128 tokens, the first of two commands.

    python train.py --config=configs/pretrain_large_lamb_en.py --workdir=runs/pretrain_large_lamb_en
    python train.py --config=configs/pretrain_large_lamb_en_512.py --workdir=runs/pretrain_large_lamb_en_512

The schedule is that of You et al. 2020 (64k sequences of 128 tokens, then 32k of 512), with the learning rates, warm-ups and
step counts of NVIDIA's published recipe (DeepLearningExamples, PyTorch/LanguageModeling/BERT, scripts/configs/pretrain_config.sh).
Requirements are those of configs/pretrain_base_en.py.
Cost: compiled for a v5e-256 (`python -m bert_jax compile --topology=v5e:16x16`), a step takes 11.0 of each chip's 15.75 GiB and at
least 0.38 s; for a v5p-64 (v5p:4x4x4), 18.6 of 95 GiB and 0.54 s. Gradients are all-reduced once per step, however many
microbatches (`gradient_accumulation_steps`) it has.
On one 80 GB GPU, set --config.pretrain.gradient_accumulation_steps=256 (not measured; as in configs/pretrain_large_en.py).
Score: not measured here. You et al. report 76 minutes for both phases, on Wikipedia and books, with 1,024 TPU v3 chips.
"""

from dataclasses import replace

from bert_jax.config import LoopConfig, OptimizerConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.config.overrides import load_config


def get_config() -> RunConfig:
    # The encoder has all 512 positions from the beginning; the second command trains those above 127.
    return replace(
        load_config("pretrain_large_en"),
        pretrain=PretrainConfig(
            steps=7_038,
            batch_size=65_536,
            gradient_accumulation_steps=8,
            evaluation_batches=1,
            rows=RowsConfig(length=128),
            optimizer=OptimizerConfig(name="lamb", learning_rate=6e-3, warmup_fraction=0.2843),
            loop=LoopConfig(log_every=10, evaluate_every=500, save_every=100),
        ),
    )
