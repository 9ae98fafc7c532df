"""BERT-base on Chinese Wikipedia, one token per character: configs/pretrain_base_en.py with two values changed.

    python train.py --config=configs/pretrain_base_zh.py --workdir=runs/pretrain_base_zh

Cost and requirements are those of configs/pretrain_base_en.py.
Score: not measured here. Google's Chinese BERT, which has this size, averages 94.3% on the ChnSentiCorp dev set (Cui et al. 2021).
"""

from bert_jax.config import RunConfig
from bert_jax.config.overrides import apply_overrides, load_config


def get_config() -> RunConfig:
    return apply_overrides(load_config("pretrain_base_en"), ["vocabulary.size=21248", "corpus.source=tfds:wikipedia/20230601.zh"])
