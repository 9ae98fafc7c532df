"""BERT-large on English Wikipedia with LAMB in 7,038 steps of 65,536 rows of 128 tokens: the first of two commands.

    python train.py --config=configs/pretrain_large_lamb_en.py --workdir=runs/pretrain_large_lamb_en
    python train.py --config=configs/pretrain_large_lamb_en_512.py --workdir=runs/pretrain_large_lamb_en_512

The schedule of You et al. 2020 (64k rows of 128 tokens, then 32k of 512) with the rates, warm-ups and
steps of NVIDIA's published recipe (DeepLearningExamples, PyTorch/LanguageModeling/BERT,
scripts/configs/pretrain_config.sh). Not measured here; You et al. report, on Wikipedia and books, 76
minutes for both on 1,024 TPU v3 chips.
Needs TensorFlow and Apache Beam to fetch Wikipedia through TFDS: pip install tensorflow-cpu==2.21.0 apache-beam==2.77.0.

Compiled for a v5e-256 (`python -m bert_jax compile --topology=v5e:16x16`) a step takes 11.0 of a chip's 15.75 GiB and at
least 0.38 s; for a v5p-64 (v5p:4x4x4) 18.6 of 95 GiB and 0.54 s. Gradients are summed over the chips once a step, however
many rounds of `accumulation` it has.
"""

from bert_jax.config import (
    ComputeConfig,
    CorpusConfig,
    EncoderConfig,
    LoopConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
    VocabularyConfig,
)


def get_config() -> RunConfig:
    return RunConfig(
        # All 512 positions are there from the beginning; those above 127 are learned by the second command.
        encoder=EncoderConfig.preset("large", attention_dropout=0.0),
        compute=ComputeConfig(dtype="bfloat16", scan_layers=True, remat="dots"),
        vocabulary=VocabularyConfig(size=30_592),
        corpus=CorpusConfig(source="tfds:wikipedia/20230601.en", valid_fraction=0.005),
        pretrain=PretrainConfig(
            steps=7_038,
            batch_size=65_536,
            accumulation=8,
            evaluation_batches=1,
            rows=RowsConfig(length=128),
            optimizer=OptimizerConfig(name="lamb", learning_rate=6e-3, warmup_fraction=0.2843),
            loop=LoopConfig(log_every=10, evaluate_every=500, save_every=100),
        ),
    )
