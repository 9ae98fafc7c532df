"""Answers to questions, as parts of passages, from your own files: in the layout of SQuAD (.json), or .jsonl, .tsv or .csv.

    python train.py --config=configs/finetune_answer.py --workdir=runs/answers --config.finetune.checkpoint=runs/demo/pretrain \
        --config.finetune.data.train=questions.json

SQuAD 1.1 and 2.0, CMRC 2018 and DRCD are read as they are. A table has the columns question, passage and answers; others are named with
--config.finetune.data.text, .text_pair and --config.finetune.task.answers. For an encoder with 512 positions, --config.finetune.length=384
makes fewer windows of long passages. Other options as in configs/finetune_tsv.py.
"""

from bert_jax.config import FinetuneConfig, LabelledConfig, LoopConfig, OptimizerConfig, RunConfig
from bert_jax.tasks.answering.options import AnsweringOptions


def get_config() -> RunConfig:
    return RunConfig(
        finetune=FinetuneConfig(
            data=LabelledConfig(train="train.json", text="question", text_pair="passage"),
            batch_size=16,
            epochs=3,
            task=AnsweringOptions(),
            optimizer=OptimizerConfig(learning_rate=3e-4),
            loop=LoopConfig(log_every=20, evaluate_every=200, save_every=200),
        ),
    )
