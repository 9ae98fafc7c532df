"""A tag for each word, such as names or parts of speech, from your own files: a word and its tag per line, and blank lines between texts.

    python train.py --config=configs/finetune_tag.py --workdir=runs/names --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=names.conll

Tags are BIO (B-PER, I-PER, O), BIOES, types alone, or without any scheme, which is found out. In a .conllu file, words are tagged with
their part of speech. A .jsonl file has a list of words and a list of tags per line, in the columns .data.text and .task.target. Other
options as in configs/finetune_tsv.py.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.tasks.tagging.options import TaggingOptions


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.conll", text="words"),
            batch_size=8,
            epochs=6,
            task=TaggingOptions(),
            optimizer=OptimizerConfig(learning_rate=3e-4),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
