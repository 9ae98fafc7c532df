"""Pre-training on your own text: .txt, .txt.gz or .txt.xz, one paragraph per line, with a blank line between documents.

    python train.py --config=configs/pretrain_folder.py --workdir=runs/mine --config.corpus.source=PATH

Inspect the text first: python -m bert_jax inspect PATH. To evaluate on held-out text of your own, set --config.corpus.valid_source=PATH;
documents that appear in both are counted, and --config.corpus.leaks=leave_out drops them from the training text.

Cost and score depend on your text. The sizes suit 10 to 100 MB of text and a CPU. For more text and a GPU or TPU:
--config.encoder=base --config.pretrain.batch_size=256 --config.pretrain.rows.length=512
--config.pretrain.optimizer.learning_rate=1e-4 --config.compute.dtype=bfloat16. The preset brings the initialization that suits its
size. Dropout stays off, so fused attention stays on.
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
        # A narrow encoder learns fastest this way in a short run; configs/demo.py has the experiments.
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
