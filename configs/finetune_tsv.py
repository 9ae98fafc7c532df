"""Sentiment, or any classification, from your own labeled files: .tsv, .csv or .jsonl with a header.

    python train.py --config=configs/finetune_tsv.py --workdir=runs/mine --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=train.tsv --config.finetune.data.text=text --config.finetune.task.label=label

Optional: --config.finetune.data.dev and .test name files of your own, .leaks=leave_out drops training examples that appear in them,
.text_pair names a second column for pairs of texts, .labels=negative,positive fixes the order of the classes, and
--config.finetune.compare_from_scratch=true also trains a classifier without pre-training.
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
