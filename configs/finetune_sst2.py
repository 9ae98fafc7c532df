"""Sentiment of phrases from English movie reviews (SST-2, through TFDS), from a pre-trained encoder.

    python train.py --config=configs/finetune_sst2.py --workdir=runs/sst2 --config.finetune.checkpoint=runs/pretrain_base_en/pretrain

Requirements: TensorFlow, to fetch GLUE through TFDS: pip install tensorflow-cpu==2.21.0.
Score: not measured here. The published BERT-base reaches 93.5% on the test set, whose labels are not public; this configuration
reports accuracy on the validation set.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, RunConfig


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="tfds:glue/sst2", text="sentence"),
            length=128,
            batch_size=16,
            epochs=3,
            loop=LoopConfig(log_every=50, evaluate_every=500, save_every=500),
        ),
    )
