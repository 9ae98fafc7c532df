"""Pre-training on your own text: .txt, .txt.gz or .txt.xz, a paragraph a line, a blank line between documents.

    python train.py --config=configs/pretrain_folder.py --workdir=runs/mine --config.corpus.source=PATH

Look before you leap: python -m bert_jax inspect PATH. Held-out text of your own is --config.corpus.valid_source=PATH; what of it
stands in the training text is counted, and left out of that with --config.corpus.leaks=leave_out.

The sizes suit 10 to 100 MB of text and a CPU. For more text and a GPU or TPU: --config.encoder=base
--config.pretrain.batch_size=256 --config.pretrain.rows.length=512 --config.pretrain.optimizer.learning_rate=1e-4
--config.compute.dtype=bfloat16. The preset brings the initialization that suits it; dropout stays off, and with it the fused attention on.
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
        # What learns soonest in a short run of a narrow encoder; configs/demo.py says how that was found.
        encoder=EncoderConfig.preset(
            "tiny", heads=4, initializer_range=0.08, position_initializer="sinusoidal", dropout=0.0, attention_dropout=0.0
        ),
        compute=ComputeConfig(cpu_devices=2),
        vocabulary=VocabularyConfig(size=8_000),
        corpus=CorpusConfig(source="text", valid_fraction=0.02),
        pretrain=PretrainConfig(
            steps=10_000,
            batch_size=16,
            rows=RowsConfig(length=128),
            masking=MaskingConfig(rate=0.3),
            optimizer=OptimizerConfig(learning_rate=1e-3, beta2=0.98),
            loop=LoopConfig(log_every=50, evaluate_every=1000, save_every=500),
        ),
    )
