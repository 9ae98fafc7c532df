"""BERT-base on the recordings of LibriSpeech: slices of 40 ms, 500 codes of log-mel features, as in HuBERT's first iteration.

    python train.py --config=configs/pretrain_base_audio.py --workdir=runs/pretrain_base_audio

Requirements: LibriSpeech, prepared once through TFDS on a machine with TensorFlow (tfds build librispeech --file_format=array_record),
soundfile and soxr. Your own folder works too: --config.corpus.source=recordings/.
Cost: compiled for a v5e-16 (`python -m bert_jax compile --config=configs/pretrain_base_audio.py --topology=v5e:4x4`), a step takes 7.5 of
each chip's 16 GiB and at least 33 ms.
On one 80 GB GPU, set --config.pretrain.gradient_accumulation_steps=2 (not measured; as in configs/pretrain_base_en.py).
Score: not measured. Hsu et al. (2021) mask about half of the frames, in spans of 200 ms.
"""

from bert_jax.config import ComputeConfig, EncoderConfig, LoopConfig, MaskingConfig, OptimizerConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.modalities.audio.modality import AudioConfig
from bert_jax.modalities.media.options import CodebookConfig


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig.preset(
            "base", max_positions=512, dropout=0.0, attention_dropout=0.0, position_initializer="sinusoidal"
        ),
        compute=ComputeConfig(dtype="bfloat16"),
        vocabulary=CodebookConfig(size=500),
        corpus=AudioConfig(source="tfds:librispeech[train_clean100+train_clean360+train_other500]", frames=4, span=5, valid_fraction=0.005),
        pretrain=PretrainConfig(
            steps=400_000,
            batch_size=256,
            # A row of 512 units holds 20 seconds: one long utterance or several short ones.
            rows=RowsConfig(length=512, next_sentence="none", examples_per_row=8),
            masking=MaskingConfig(rate=0.5, whole_words=True),
            optimizer=OptimizerConfig(learning_rate=5e-4, warmup_fraction=0.08, beta2=0.98),
            loop=LoopConfig(log_every=100, evaluate_every=10_000, save_every=5_000),
        ),
    )
