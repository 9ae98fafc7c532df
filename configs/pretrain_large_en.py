"""BERT-large on English Wikipedia with whole-word masking: configs/pretrain_base_en.py at the larger size.

    python train.py --config=configs/pretrain_large_en.py --workdir=runs/pretrain_large_en

Requirements are those of configs/pretrain_base_en.py.
Cost: compiled for a v5p-64 (`python -m bert_jax compile --topology=v5p:4x4x4`), a step takes 7.2 of each chip's 95 GiB and at
least 14 ms, plus 4.8 ms to all-reduce gradients; 64 chips are put to better use by the large batches of
configs/pretrain_large_lamb_en.py.
On one 80 GB GPU, set --config.pretrain.gradient_accumulation_steps=4 (not measured; for a TPU, 64 rows at a time take 27 GiB).
Score: not measured here. Devlin et al. (2019) also trained on books, used sequences of 128 tokens for 90% of the steps and did
not mask whole words; they took four days on 64 TPU chips, and their model reaches 94.9% on SST-2 after fine-tuning.
"""

from bert_jax.config import RunConfig
from bert_jax.config.overrides import apply_overrides, load_config


def get_config() -> RunConfig:
    return apply_overrides(
        load_config("pretrain_base_en"), ["encoder=large", "compute.remat=dots", "pretrain.masking.whole_words=true"]
    )
