"""A run of seconds on real reviews, from files, as a user would give it: for tests, and for benchmarks that break runs."""

from pathlib import Path

from bert_jax.modalities.text import demo

_CONFIG = """
from bert_jax.config import *

def get_config():
    return RunConfig(
        encoder=EncoderConfig(layers=1, width=32, heads=2, feed_forward=64, max_positions=32),
        vocabulary=VocabularyConfig(kind="characters", size=1500),
        corpus=CorpusConfig(source="{text}", segmenter="characters", sentence_ends="clauses", valid_fraction=0.1),
        pretrain=PretrainConfig(batch_size=8, rows=RowsConfig(length=32), {pretrain}),
        finetune=FinetuneConfig(data=LabelledConfig(train="{labelled}"), length=32, batch_size=8, epochs=1, {finetune}),
    )
"""


def write_files(folder: Path, documents: int, labelled: int, pretrain: str, finetune: str) -> Path:
    """Writes a corpus, labelled reviews and a configuration for them, with further fields of its two stages; the configuration's path."""
    texts, labels = demo.labelled_reviews()["train"]
    (folder / "text").mkdir()
    (folder / "text" / "reviews.txt").write_text("\n\n".join(texts[200 : 200 + documents]), encoding="utf-8")
    rows = [f"{'positive' if label else 'negative'}\t{text}" for text, label in zip(texts[:labelled], labels, strict=False)]
    (folder / "reviews.tsv").write_text("\n".join(["label\ttext", *rows]) + "\n", encoding="utf-8")
    config = _CONFIG.format(text=folder / "text", labelled=folder / "reviews.tsv", pretrain=pretrain, finetune=finetune)
    (folder / "config.py").write_text(config, encoding="utf-8")
    return folder / "config.py"
