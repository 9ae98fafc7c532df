"""Classify your own recordings: a folder with a folder per class, or a .tsv, .csv or .jsonl table with a column of paths.

    python train.py --config=configs/finetune_audio.py --workdir=runs/mine --config.finetune.checkpoint=runs/audio/pretrain \
        --config.finetune.data.train=train/

Optional settings as in configs/finetune_images.py. Recordings longer than a row of 128 units, 3.8 seconds, are truncated and counted.
"""

from bert_jax.config import AugmentationConfig, FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.modalities.audio.modality import AudioConfig
from bert_jax.tasks.classification import ClassificationOptions


def get_config() -> RunConfig:
    return RunConfig(
        corpus=AudioConfig(),
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train/", text="path"),
            length=128,
            examples_per_row=8,
            batch_size=8,
            epochs=20,
            task=ClassificationOptions(pooling="mean"),
            augmentation=AugmentationConfig(time_mask=0.2, band_mask=0.2),
            optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
