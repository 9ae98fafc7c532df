"""Continue the pre-training of an encoder on your own text, and measure what that gains on labeled texts of the same kind.

    python -m examples.domain_adaptation runs/demo/pretrain corpus/ reviews.tsv --workdir=runs/adaptation

Gururangan et al. (2020) call this domain-adaptive pre-training. To adapt an encoder to the texts of the table itself (task-adaptive
pre-training), train.py needs only one more value, such as --config.adapt.steps=1000; see docs/own_labels.md.
"""

import argparse
import json
from pathlib import Path

from bert_jax.stages.run import run
from bert_jax.tasks import configured

flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
flags.add_argument("encoder", help="the directory of a pre-trained model")
flags.add_argument("corpus", help="a folder of .txt files")
flags.add_argument("table", help="a table with the columns text and label")
flags.add_argument("--workdir", type=Path, required=True, help="the directory to keep all runs in")
flags.add_argument("--steps", type=int, default=1000, help="pre-training steps (default: %(default)s)")
flags.add_argument("--epochs", type=int, default=3, help="fine-tuning epochs (default: %(default)s)")

if __name__ == "__main__":
    given = flags.parse_args()
    adapting = [
        f"pretrain.checkpoint={given.encoder}",
        f"corpus.source={given.corpus}",
        f"pretrain.steps={given.steps}",
        "pretrain.optimizer.learning_rate=1e-4",
    ]
    run(configured("configs/pretrain_folder.py", adapting), given.workdir / "own_text")
    accuracies = {}
    for name, encoder in (("as it was", given.encoder), ("adapted", given.workdir / "own_text" / "pretrain")):
        workdir = given.workdir / name.replace(" ", "_")
        tuning = [f"finetune.checkpoint={encoder}", f"finetune.data.train={given.table}", f"finetune.epochs={given.epochs}"]
        run(configured("configs/finetune_tsv.py", tuning), workdir)
        accuracies[name] = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))["finetune"]["accuracy"]
    for name, accuracy in accuracies.items():
        print(f"test accuracy of the encoder {name}: {accuracy:.1%}")
