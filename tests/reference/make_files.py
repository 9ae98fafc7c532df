"""Writes files.tar.xz: what version 0.1.0, before its modules were rearranged, left on a disk. Later versions must go on reading it.

    cd AN_EMPTY_DIRECTORY && PYTHONPATH=CHECKOUT python CHECKOUT/tests/reference/make_files.py

It was run once, at commit 4faf273; running it again would test a later version against itself.
"""

import contextlib
import json
import os
import shutil
import signal
import tarfile
from pathlib import Path
from typing import Any

import bert_jax
from bert_jax.cli import main
from bert_jax.data import demo
from bert_jax.training import loop

CONFIG = """
from bert_jax.config import *

def get_config():
    return RunConfig(
        encoder=EncoderConfig(layers=1, width=16, heads=2, feed_forward=32, max_positions=32, initializer_range=0.1),
        vocabulary=VocabularyConfig(kind="characters", size=200),
        corpus=CorpusConfig(source="text", segmenter="characters", sentence_ends="clauses", valid_fraction=0.1),
        pretrain=PretrainConfig(
            steps=8, batch_size=8, evaluation_batches=2, rows=RowsConfig(length=32),
            loop=LoopConfig(log_every=2, evaluate_every=4, save_every=4, keep=1),
        ),
        finetune=FinetuneConfig(
            data=LabelledConfig(train="reviews.tsv"), length=32, batch_size=8, epochs=1, pooling="mean", compare_from_scratch=True,
            loop=LoopConfig(log_every=2, evaluate_every=5, save_every=5, keep=1),
        ),
    )
"""


def write_inputs() -> None:
    texts, labels = demo.labelled_reviews()["train"]
    Path("text").mkdir()
    Path("text/reviews.txt").write_text("\n\n".join(texts[200:290]), encoding="utf-8")
    rows = [f"{'positive' if label else 'negative'}\t{text}" for text, label in zip(texts[:60], labels, strict=False)]
    Path("reviews.tsv").write_text("\n".join(["label\ttext", *rows]) + "\n", encoding="utf-8")
    Path("config.py").write_text(CONFIG, encoding="utf-8")


@contextlib.contextmanager
def interrupted_at(step: int) -> Any:
    """Ctrl-C comes while this training step runs."""
    advance = loop._Training.advance

    def struck(self: Any) -> None:
        advance(self)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    loop._Training.advance = struck
    try:
        yield
    finally:
        loop._Training.advance = advance


def answers() -> dict[str, Any]:
    """What the models of the finished run answer."""
    pretrained, classifier = bert_jax.load("finished/pretrain"), bert_jax.load("finished/finetune")
    texts = ["房间很干净。", "再也不来了", "不错"]
    return {
        "texts": texts,
        "fill_mask": [[(p.token, p.id, p.probability) for p in mask] for mask in pretrained.fill_mask("房间很[MASK]。", top_k=3)],
        "next_sentence": pretrained.next_sentence("他打开门。", "屋里没有人。"),
        "score": pretrained.score(texts),
        "embed": pretrained.embed(texts).tolist(),
        "classify": [{"label": c.label, "probabilities": c.probabilities} for c in classifier.classify(texts)],
    }


if __name__ == "__main__":
    write_inputs()
    with interrupted_at(5):
        assert main(["train", "--config=config.py", "--workdir=interrupted"]) == 130
    shutil.rmtree("interrupted/pretrain/tensorboard")
    assert main(["train", "--config=config.py", "--workdir=finished"]) == 0
    other = ["pretrain=none", "finetune.checkpoint=finished/pretrain", "finetune.pooling=cls", "finetune.compare_from_scratch=false"]
    assert main(["train", "--config=config.py", "--workdir=of_cls", *(f"--config.{value}" for value in other)]) == 0
    assert main(["export", "finished/pretrain", "exported-pretrain"]) == main(["export", "of_cls/finetune", "exported-classifier"]) == 0
    Path("answers.json").write_text(json.dumps(answers(), ensure_ascii=False, indent=1), encoding="utf-8")
    with tarfile.open("files.tar.xz", "w:xz") as archive:
        names = "config.py text reviews.tsv finished interrupted of_cls exported-pretrain exported-classifier answers.json".split()
        for name in names:
            archive.add(name)
