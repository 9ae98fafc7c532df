"""Embeddings in which related texts are near, from your own pairs: .tsv, .csv or .jsonl with a header.

    python train.py --config=configs/finetune_embed.py --workdir=runs/related --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=related.tsv --config.finetune.data.text=question --config.finetune.data.text_pair=answer

Optional: --config.finetune.task.negative names a column with a hard negative per pair, or .target one with a number, greater for more
similar texts; .microbatches=4 compares texts of larger batches than memory holds at once. Larger encoders need a lower rate, such as
--config.finetune.optimizer.learning_rate=2e-5. Other options as in configs/finetune_tsv.py.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.tasks.contrastive import EmbeddingOptions


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.tsv", text_pair="text_pair"),
            batch_size=16,
            epochs=4,
            task=EmbeddingOptions(),
            optimizer=OptimizerConfig(learning_rate=3e-4),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
