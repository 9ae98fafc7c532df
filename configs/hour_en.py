"""English in an hour of two CPU cores: from raw text and a table of labels to a classifier, beside a linear model.

    python train.py --config=configs/hour_en.py --workdir=runs/hour --config.corpus.source=PATH --config.finetune.data.train=train.tsv \
        --config.finetune.data.test=test.tsv

It differs from configs/hour_zh.py, which says what the stages are, in this only: a learned vocabulary is of lowercase word pieces,
as in the other English configurations.

Cost and score: not yet measured.
"""

from bert_jax.config import RunConfig
from bert_jax.config.overrides import apply_overrides, load_config


def get_config() -> RunConfig:
    return apply_overrides(load_config("hour_zh"), ["vocabulary.casing=uncased"])
