"""Fine-tune a downloaded BERT on a table of labeled texts, from Python, and classify with it.

    python -m examples.finetune_downloaded downloads/bert-base-chinese reviews.tsv --workdir=runs/downloaded_sentiment

The first argument is a directory in the format of transformers, or a name on the Hugging Face Hub;
the table has the columns text and label.
"""

import argparse
from pathlib import Path

import bert_jax
from bert_jax.convert.imports import import_model
from bert_jax.stages.run import run
from bert_jax.tasks import configured

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("source", help="the directory of a BERT in the format of transformers, or its name on the Hugging Face Hub")
flags.add_argument("table", help="a .tsv, .csv or .jsonl file with the columns text and label")
flags.add_argument("--workdir", type=Path, required=True, help="the directory to keep the imported encoder and the run in")
flags.add_argument("--epochs", type=int, default=3, help="fine-tuning epochs (default: %(default)s)")

if __name__ == "__main__":
    given = flags.parse_args()
    encoder = given.workdir / "encoder"
    if not encoder.exists():
        import_model(given.source, encoder)
    # A shipped configuration, with the same overrides as on the command line. Published encoders want a lower learning rate.
    config = configured(
        "configs/finetune_tsv.py",
        [
            f"finetune.checkpoint={encoder}",
            f"finetune.data.train={given.table}",
            f"finetune.epochs={given.epochs}",
            "finetune.optimizer.learning_rate=3e-5",
            "finetune.task.pooling=cls",
        ],
    )
    run(config, given.workdir / "run")
    classifier = bert_jax.load(given.workdir / "run" / "finetune")
    for text in ("这家酒店的服务很好。", "再也不来了"):
        found = classifier.classify(text)
        print(f"{found.label} {found.probabilities[found.label]:.0%}  {text}")
