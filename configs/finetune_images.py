"""Classify your own images: a folder with a folder per class, or a .tsv, .csv or .jsonl table with a column of paths.

    python train.py --config=configs/finetune_images.py --workdir=runs/mine --config.finetune.checkpoint=runs/images/pretrain \
        --config.finetune.data.train=train/

The name of a file's first folder below `train/` is its class. Optional: --config.finetune.data.dev and .test name folders of your own;
with a table, .text names the column of paths, which are relative to the table, and --config.finetune.task.label the column of classes.
"""

from bert_jax.config import AugmentationConfig, FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.modalities.image.modality import ImagesConfig
from bert_jax.tasks.classification import ClassificationOptions


def get_config() -> RunConfig:
    return RunConfig(
        corpus=ImagesConfig(),
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train/", text="path"),
            length=66,
            examples_per_row=1,
            batch_size=32,
            epochs=20,
            task=ClassificationOptions(pooling="mean"),
            augmentation=AugmentationConfig(flip=True, shift=2),
            optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
