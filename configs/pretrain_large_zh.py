"""BERT-large on Chinese Wikipedia, masking whole words as jieba finds them: configs/pretrain_large_en.py with two values changed.

    python train.py --config=configs/pretrain_large_zh.py --workdir=runs/pretrain_large_zh

Cost and requirements are those of configs/pretrain_large_en.py.
Score: not measured here. RoBERTa-wwm-ext-large, trained longer on more text, reaches 95% on the ChnSentiCorp dev set (Cui et al. 2021).
"""

from bert_jax.config import RunConfig
from bert_jax.config.overrides import apply_overrides, load_config


def get_config() -> RunConfig:
    return apply_overrides(load_config("pretrain_large_en"), ["vocabulary.size=21248", "corpus.source=tfds:wikipedia/20230601.zh"])
