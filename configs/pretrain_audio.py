"""Your own recordings: a small encoder, pre-trained on the log-mel spectrograms of the recordings in a folder.

    python train.py --config=configs/pretrain_audio.py --workdir=runs/audio --config.corpus.source=recordings/

`recordings/` is a folder of any depth with .wav, .flac, .ogg and .mp3 files; a glob and tfds:NAME work too. Short recordings share rows,
long ones are cut into several examples. A row of 128 units holds 3.8 seconds.
"""

from bert_jax.config import EncoderConfig, LoopConfig, MaskingConfig, OptimizerConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.modalities.audio.modality import AudioConfig
from bert_jax.modalities.media.options import CodebookConfig


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig(
            layers=3,
            width=128,
            heads=4,
            feed_forward=512,
            max_positions=128,
            dropout=0.0,
            attention_dropout=0.0,
            initializer_range=0.08,
            position_initializer="sinusoidal",
        ),
        vocabulary=CodebookConfig(size=200),
        corpus=AudioConfig(source="recordings/", bands=40, valid_fraction=0.02),
        pretrain=PretrainConfig(
            steps=2000,
            batch_size=16,
            rows=RowsConfig(length=128, next_sentence="none", examples_per_row=8),
            masking=MaskingConfig(rate=0.5, whole_words=True),
            optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.98),
            loop=LoopConfig(log_every=50, evaluate_every=500, save_every=500),
        ),
    )
