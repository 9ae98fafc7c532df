"""Your own images: a small encoder of 32 x 32 pixels, pre-trained on the images in a folder.

    python train.py --config=configs/pretrain_images.py --workdir=runs/images --config.corpus.source=photos/

`photos/` is a folder of any depth with .png, .jpg, .webp, .bmp and .gif files; a glob and tfds:NAME work too. Larger images need longer
rows: 96 x 96 pixels in patches of 8 are 144 units,

    --config.corpus.size=96 --config.corpus.patch=8 --config.encoder.max_positions=160 --config.pretrain.rows.length=146
"""

from bert_jax.config import EncoderConfig, LoopConfig, MaskingConfig, OptimizerConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.modalities.image.modality import ImagesConfig
from bert_jax.modalities.media.options import CodebookConfig


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig(
            layers=3,
            width=160,
            heads=5,
            feed_forward=640,
            max_positions=72,
            dropout=0.0,
            attention_dropout=0.0,
            initializer_range=0.08,
            position_initializer="sinusoidal",
        ),
        vocabulary=CodebookConfig(size=512),
        corpus=ImagesConfig(source="photos/", size=32, patch=4, valid_fraction=0.02),
        pretrain=PretrainConfig(
            steps=2000,
            batch_size=128,
            # An image is 64 patches between [CLS] and [SEP].
            rows=RowsConfig(length=66, next_sentence="none", examples_per_row=1),
            masking=MaskingConfig(rate=0.5, whole_words=True),
            optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.98),
            loop=LoopConfig(log_every=50, evaluate_every=500, save_every=500),
        ),
    )
