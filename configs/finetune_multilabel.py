"""Several labels for each text, from your own files: .tsv, .csv or .jsonl with a header.

    python train.py --config=configs/finetune_multilabel.py --workdir=runs/mentions --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=mentions.tsv --config.finetune.task.label=labels

The column has labels separated by commas (.separator), or lists in a .jsonl file. Optional: --config.finetune.task.labels=a,b,c names all
labels, and --config.finetune.task.unlabeled=keep accepts texts without any. Other options as in configs/finetune_tsv.py.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.tasks.multilabel import MultilabelOptions


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.tsv"),
            batch_size=16,
            epochs=6,
            task=MultilabelOptions(pooling="mean"),
            optimizer=OptimizerConfig(learning_rate=3e-4),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
