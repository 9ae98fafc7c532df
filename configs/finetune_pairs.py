"""A class for each pair of texts, such as whether one follows from the other, from your own files: .tsv, .csv or .jsonl with a header.

    python train.py --config=configs/finetune_pairs.py --workdir=runs/judged --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=judged.tsv --config.finetune.data.text=a --config.finetune.data.text_pair=b

The classifier reads both texts at once, as sentences A and B, so the encoder must have two segment types. The class is in the column
.task.label. For a number per pair, see configs/finetune_regress.py. Other options as in configs/finetune_tsv.py.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.tasks.classification import ClassificationOptions


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.tsv", text_pair="text_pair"),
            batch_size=16,
            epochs=4,
            task=ClassificationOptions(pooling="cls"),
            optimizer=OptimizerConfig(learning_rate=1e-4),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
