"""Sentiment accuracy by number of labels: pre-trained, from scratch, and a linear model on character n-grams.

    pip install -r benchmarks/requirements.txt
    python benchmarks/label_efficiency.py --workdir=runs/demo --output=benchmarks/results/label_efficiency

Fine-tunes the pre-trained encoder of a finished demo run on samples of its labeled reviews, with three seeds per
size; the seed determines the sample, the order and the new parameters. Writes OUTPUT.json and OUTPUT.svg.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import jax
from machine import machine

from bert_jax.config import RunConfig
from bert_jax.config.overrides import from_dict
from bert_jax.data.labelled import Labelled, load_labelled
from bert_jax.modalities.text.modality import Text
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import read_json, write_json
from bert_jax.stages.finetune import finetune
from bert_jax.tasks import choices, finetuning
from bert_jax.training.host_memory import tune_malloc

SIZES = (100, 300, 1000, 0)  # 0 means all
SEEDS = (0, 1, 2)
MODELS = ("pre-trained", "from scratch", "linear model on character n-grams")
# The total number of training examples, within limits on epochs: smaller samples get more epochs.
EXAMPLES_SEEN, FEWEST_EPOCHS, MOST_EPOCHS = 8_000, 1, 12


def main() -> None:
    """Measure, write and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="a finished demo run")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    tune_malloc()
    config = from_dict(RunConfig, read_json(flags.workdir / "config.json"), choices())
    if config.compute.cpu_devices > 1:
        jax.config.update("jax_num_cpu_devices", config.compute.cpu_devices)
    begun = time.time()
    lines = []
    for size in SIZES:
        for seed in SEEDS:
            line = measure(config, flags.workdir / "pretrain", size, seed)
            lines.append(line)
            print("  ".join(f"{name} {value if isinstance(value, int) else f'{value:.3f}'}" for name, value in line.items()), flush=True)
    result = {"machine": machine(), "seconds": round(time.time() - begun), "runs": lines}
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(flags.output.with_suffix(".json"), result)
    draw(lines, flags.output.with_suffix(".svg"))


def measure(config: RunConfig, pretrained: Path, size: int, seed: int) -> dict[str, Any]:
    """Test accuracy of the three models on one sample of `size` labels."""
    stage = config.finetune
    assert stage is not None
    labels = finetuning(stage.task).labels(stage.task)
    labelled = load_labelled(dataclasses.replace(stage.data, max_train_examples=size), labels, seed, Text.tables)
    examples = len(labelled.train)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(EXAMPLES_SEEN / examples)))
    # About five evaluations on the dev set per run; the best checkpoint is tested.
    looks = max(5, examples * epochs // (2 * stage.batch_size * 5))
    loop = dataclasses.replace(stage.loop, evaluate_every=looks, save_every=looks)
    stage = dataclasses.replace(stage, epochs=epochs, loop=loop, compare_from_scratch=False)
    run = dataclasses.replace(config, seed=seed, finetune=stage)
    return {
        "labels": examples,
        "seed": seed,
        MODELS[0]: _finetuned(run, labelled, pretrained, start=pretrained),
        MODELS[1]: _finetuned(run, labelled, pretrained, start=None),
        MODELS[2]: _linear(labelled),
    }


def _finetuned(config: RunConfig, labelled: Labelled, pretrained: Path, start: Path | None) -> float:
    encoder, tokenizer = model_directory.read(pretrained)
    with tempfile.TemporaryDirectory() as directory:
        return float(finetune(config, Path(directory) / "finetune", labelled, encoder, tokenizer, start)["accuracy"])


def _linear(labelled: Labelled) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))
    model.fit(labelled.train.texts, labelled.train.targets)
    return float(model.score(labelled.test.texts, labelled.test.targets))


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot the mean accuracy of each model over the seeds, with each run as a dot."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    sizes = sorted({line["labels"] for line in lines})
    for name, color in zip(MODELS, ("#1f6feb", "#d1702a", "#6e7781"), strict=True):
        means = [100 * statistics.mean(line[name] for line in lines if line["labels"] == size) for size in sizes]
        axes.plot(sizes, means, color=color, linewidth=2, label=name)
        axes.scatter([line["labels"] for line in lines], [100 * line[name] for line in lines], color=color, s=12)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("labelled reviews")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
