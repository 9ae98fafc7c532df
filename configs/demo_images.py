"""The demo of images: a small encoder pre-trained on handwritten digits, then fine-tuned to read them with 100 labels.

    python train.py --config=configs/demo_images.py --workdir=runs/demo_images

The 1,797 images of 8 x 8 pixels come with scikit-learn; a unit is a patch of 2 x 2 pixels, and there are 64 codes.

Cost: 6 minutes on two busy cores of an EPYC (Zen 4).
Score: masked-unit accuracy 52.7% (most frequent code: 31.3%); test accuracy 82.2% pre-trained, 56.9% from scratch, 78.9% linear model.
"""

from bert_jax.config import (
    AugmentationConfig,
    EncoderConfig,
    FinetuneConfig,
    LabelledConfig,
    LoopConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
)
from bert_jax.modalities.image.modality import ImagesConfig
from bert_jax.modalities.media.options import CodebookConfig
from bert_jax.tasks.classification import ClassificationOptions


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig(
            layers=3,
            width=96,
            heads=4,
            feed_forward=384,
            max_positions=24,
            dropout=0.0,
            attention_dropout=0.0,
            initializer_range=0.08,
            position_initializer="sinusoidal",
        ),
        vocabulary=CodebookConfig(size=64),
        corpus=ImagesConfig(source="demo", size=8, patch=2, color=False, block=1, valid_fraction=0.05),
        pretrain=PretrainConfig(
            steps=3000,
            batch_size=64,
            rows=RowsConfig(length=18, next_sentence="none", examples_per_row=1),
            masking=MaskingConfig(rate=0.5),
            optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.98),
            loop=LoopConfig(log_every=100, evaluate_every=500, save_every=500),
        ),
        finetune=FinetuneConfig(
            data=LabelledConfig(train="demo", max_train_examples=100),
            compare_from_scratch=True,
            compare_linear=True,
            length=18,
            examples_per_row=1,
            epochs=60,
            batch_size=16,
            task=ClassificationOptions(pooling="mean"),
            augmentation=AugmentationConfig(shift=1),
            optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05),
            loop=LoopConfig(log_every=20, evaluate_every=60, save_every=60),
        ),
    )
