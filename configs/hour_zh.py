"""Chinese in an hour of two CPU cores: from raw text and a table of labels to a classifier, beside a linear model.

    python train.py --config=configs/hour_zh.py --workdir=runs/hour --config.corpus.source=PATH --config.finetune.data.train=train.tsv \
        --config.finetune.data.test=test.tsv

The text is laid out as for configs/pretrain_folder.py and the labels as for configs/finetune_tsv.py, whose optional values apply here too.
The three stages: a vocabulary and an encoder from the text; 1,500 further steps on the texts of train.tsv, without their labels
(task-adaptive pre-training, Gururangan et al. 2020; --config.adapt=none leaves them out); then the classifier, also trained from random
parameters for comparison, and a linear model on n-grams.

Cost: not yet measured. The steps of pre-training assume 11,000 tokens/s, at which they take 45 minutes. Measure your machine with
--config.pretrain.steps=300 in another workdir, and set the steps in proportion.
Score: not yet measured. The values are a starting point: those of configs/demo.py for an encoder that is larger, and trained longer.
"""

from bert_jax.config import (
    AdaptConfig,
    ComputeConfig,
    CorpusConfig,
    EncoderConfig,
    FinetuneConfig,
    LabelledConfig,
    LoopConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
    VocabularyConfig,
)
from bert_jax.tasks.classification import ClassificationOptions


def get_config() -> RunConfig:
    masking, length, batch_size = MaskingConfig(rate=0.3), 128, 16
    return RunConfig(
        encoder=EncoderConfig(
            layers=4,
            width=192,
            heads=6,
            feed_forward=768,
            max_positions=length,
            dropout=0.0,
            attention_dropout=0.0,
            initializer_range=0.06,
            position_initializer="sinusoidal",
            attention_initializer="neighbours",
        ),
        compute=ComputeConfig(cpu_devices=2),
        vocabulary=VocabularyConfig(size=8000),
        corpus=CorpusConfig(source="text", valid_fraction=0.02),
        pretrain=PretrainConfig(
            steps=14_000,
            batch_size=batch_size,
            rows=RowsConfig(length=length),
            masking=masking,
            optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.98),
            loop=LoopConfig(log_every=50, evaluate_every=2000, save_every=1000),
        ),
        adapt=AdaptConfig(
            steps=1500,
            batch_size=batch_size,
            rows=RowsConfig(length=length, next_sentence="none"),
            masking=masking,
            optimizer=OptimizerConfig(learning_rate=5e-4, beta2=0.98),
            loop=LoopConfig(log_every=50, evaluate_every=500, save_every=500),
        ),
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.tsv"),
            compare_from_scratch=True,
            compare_linear=True,
            length=length,
            batch_size=batch_size,
            epochs=6,
            task=ClassificationOptions(pooling="mean"),
            optimizer=OptimizerConfig(learning_rate=5e-4, weight_decay=0.1),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
