"""Sentiment, or any classification, from your own labelled files: .tsv, .csv or .jsonl with a header.

    python train.py --config=configs/finetune_tsv.py --workdir=runs/mine --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=train.tsv --config.finetune.data.text=text --config.finetune.data.label=label

Add --config.finetune.data.dev and .test for files of your own, .leaks=leave_out to train without what is in them, .text_pair
for pairs of texts, .labels=negative,positive to fix the order of the classes, and --config.finetune.compare_from_scratch=true
to see what pre-training gave.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.tasks.classification import ClassificationOptions


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.tsv"),
            batch_size=16,
            epochs=4,
            task=ClassificationOptions(pooling="mean"),
            optimizer=OptimizerConfig(learning_rate=3e-4),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
