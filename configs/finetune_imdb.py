"""Sentiment of long English movie reviews (IMDB, through TFDS), from a pre-trained encoder.

    python train.py --config=configs/finetune_imdb.py --workdir=runs/imdb --config.finetune.checkpoint=runs/pretrain_base_en/pretrain

Requirements: TensorFlow, to fetch the reviews through TFDS: pip install tensorflow-cpu==2.21.0.
Score: not measured here. Published results for BERT-base are about 94%.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, RunConfig


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="tfds:imdb_reviews"),
            length=512,
            batch_size=16,
            epochs=3,
            loop=LoopConfig(log_every=50, evaluate_every=500, save_every=500),
        ),
    )
