"""ViT-B/16 with BERT's layers on ImageNet: images of 224 x 224 pixels in 14 x 14 patches, and 8,192 codes, as in BEiT (Bao et al. 2022).

    python train.py --config=configs/pretrain_base_images.py --workdir=runs/pretrain_base_images

Requirements: ImageNet, prepared once through TFDS on a machine with TensorFlow (tfds build imagenet2012 --file_format=array_record),
and Pillow. Your own folder works too: --config.corpus.source=photos/.
Cost: compiled for a v5e-16 (`python -m bert_jax compile --config=configs/pretrain_base_images.py --topology=v5e:4x4`), a step takes 8.7 of
each chip's 16 GiB and at least 139 ms.
On one 80 GB GPU, set --config.pretrain.gradient_accumulation_steps=16 (not measured; for a TPU, 256 rows at a time take 50 GiB).
Score: not measured.
"""

from bert_jax.config import ComputeConfig, EncoderConfig, LoopConfig, MaskingConfig, OptimizerConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.modalities.image.modality import ImagesConfig
from bert_jax.modalities.media.options import CodebookConfig


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig.preset(
            "base", max_positions=256, dropout=0.0, attention_dropout=0.0, position_initializer="sinusoidal"
        ),
        compute=ComputeConfig(dtype="bfloat16"),
        vocabulary=CodebookConfig(size=8192),
        corpus=ImagesConfig(source="tfds:imagenet2012", size=224, patch=16, valid_fraction=0.005, unreadable="skip"),
        pretrain=PretrainConfig(
            steps=500_000,
            batch_size=2048,
            gradient_accumulation_steps=4,
            # An image is 196 patches between [CLS] and [SEP].
            rows=RowsConfig(length=198, next_sentence="none", examples_per_row=1),
            masking=MaskingConfig(rate=0.4, whole_words=True),
            optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_fraction=0.01, beta2=0.98, weight_decay=0.05, decay="cosine"),
            loop=LoopConfig(log_every=100, evaluate_every=10_000, save_every=5_000),
        ),
    )
