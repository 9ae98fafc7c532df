"""Accuracy by number of labels: pre-trained, from scratch and a linear model on n-grams, of which label_efficiency.py draws a picture.

The encoders are those of the demo and of the hours. The seed determines the sample, the order and the new parameters.
"""

from collections.abc import Iterator

from cells.cell import CORES, Cell, Training
from cells.hours import hour

SIZES = (100, 300, 1000, 3000, 0)
"""Of the samples; 0 is all."""
EXAMPLES_SEEN, FEWEST_EPOCHS, MOST_EPOCHS = 8_000, 1, 12
"""The total number of training examples, within limits on epochs: smaller samples get more epochs."""
ALL = {"demo": 14_379, "sst2": 60_000}
BATCH, LOOKS = 8, 5
"""Rows per step, and about how often a run is evaluated on the dev set; the best checkpoint is tested."""

DEMO = Training("demo", "demo", ("finetune=none",), seconds=600)
ENCODERS = {"demo": (DEMO, "demo"), "zh": (hour("zh"), "demo"), "en": (hour("en"), "sst2")}
"""An encoder's name -> the training that makes it, and the labeled set."""


def cells() -> Iterator[Cell]:
    """One cell per encoder and number of labels."""
    for name in ENCODERS:
        for size in SIZES:
            yield Cell(f"labels/{name}/{size or 'all'}", {f"seed {seed}": training(name, size, seed) for seed in range(3)})


def training(name: str, size: int, seed: int) -> Training:
    """Fine-tuning of an encoder on a sample, with the task of its own configuration."""
    start, labeled = ENCODERS[name]
    examples = size or ALL[labeled]
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(EXAMPLES_SEEN / examples)))
    looks = max(5, examples * epochs // (2 * BATCH * LOOKS))
    files = ("demo", "") if labeled == "demo" else tuple(f"{{sets}}/{labeled}/{split}.tsv" for split in ("train", "test"))
    options = (
        "pretrain=none",
        "finetune.checkpoint={start}/pretrain",
        f"finetune.data.train={files[0]}",
        f"finetune.data.test={files[1]}",
        "finetune.data.text=text",
        f"finetune.data.max_train_examples={size}",
        f"finetune.epochs={epochs}",
        f"finetune.batch_size={BATCH}",
        f"finetune.loop.evaluate_every={looks}",
        f"finetune.loop.save_every={looks}",
        "finetune.seeds=",
        "finetune.compare_from_scratch=true",
        "finetune.compare_linear=true",
        CORES,
        f"seed={seed}",
    )
    return Training(f"{size or 'all'} labels", start.config, options, start, seconds=120)
