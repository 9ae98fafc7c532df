"""BERT-large on English Wikipedia with whole-word masking.

    python train.py --config=configs/pretrain_large_en.py --workdir=runs/pretrain_large_en

Needs TensorFlow and Apache Beam to fetch Wikipedia through TFDS: pip install tensorflow-cpu==2.21.0 apache-beam==2.77.0.
Not measured here. Devlin et al. (2019) trained on books too and on rows of 128 tokens for nine tenths of the
steps, without whole-word masking, in four days on 64 TPU chips; fine-tuned, that model gives 94.9 % on SST-2.

Compiled for a v5p-64 (`python -m bert_jax compile --topology=v5p:4x4x4`) it takes 7.2 of a chip's 95 GiB and at least
14 ms a step, and 4.8 ms to sum gradients: 64 chips are better used by the large batches of
configs/pretrain_large_lamb_en.py.
"""

from bert_jax.config import (
    ComputeConfig,
    CorpusConfig,
    EncoderConfig,
    LoopConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
    VocabularyConfig,
)


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig.preset("large", attention_dropout=0.0),
        compute=ComputeConfig(dtype="bfloat16", scan_layers=True, remat="dots"),
        vocabulary=VocabularyConfig(size=30_592),
        corpus=CorpusConfig(source="tfds:wikipedia/20230601.en", valid_fraction=0.005),
        pretrain=PretrainConfig(
            steps=1_000_000,
            batch_size=256,
            rows=RowsConfig(length=512),
            masking=MaskingConfig(whole_words=True),
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_fraction=0.01),
            loop=LoopConfig(log_every=100, evaluate_every=10_000, save_every=5_000),
        ),
    )
