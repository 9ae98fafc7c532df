"""A number for each text, or for each pair of texts, from your own files: .tsv, .csv or .jsonl with a header.

    python train.py --config=configs/finetune_regress.py --workdir=runs/similarity --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=similar.tsv --config.finetune.data.text=a --config.finetune.data.text_pair=b \
        --config.finetune.task.target=score

Leave out .text_pair for single texts. Numbers of about 0 to 5 are learned fastest. Other options as in configs/finetune_tsv.py.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.tasks.regression import RegressionOptions


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.tsv"),
            batch_size=16,
            epochs=4,
            task=RegressionOptions(pooling="mean"),
            optimizer=OptimizerConfig(learning_rate=3e-4),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
