"""Accuracy on images and recordings by number of labels: pre-trained, from scratch, and a linear model on the same units.

    pip install -r benchmarks/requirements.txt
    python benchmarks/linear_baselines.py --images=cifar10 --audio=fsdd/recordings --output=benchmarks/results/linear_baselines
    python benchmarks/media_labels.py --images=cifar10 --audio=fsdd/recordings --workdir=runs/media \
        --linear=benchmarks/results/linear_baselines.json --output=benchmarks/results/media_labels

Pre-trains an encoder on each data set without its labels, then fine-tunes it on samples of labels with three seeds per size; the seed
determines the sample, the order and the new parameters. The same encoder from scratch is trained alike. Recordings are measured again
with one speaker held out: neither the labels of that speaker's recordings nor any other speaker's test recordings are used; each of the
six speakers is held out once, with a seed of its own.

An interrupted benchmark goes on where it was: finished measurements are in WORKDIR/measured.jsonl. Writes OUTPUT.json and OUTPUT.svg.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import checkout  # noqa: F401
import media
from linear_baselines import SEEDS
from lines import Line, Lines
from machine import machine, versions

from bert_jax.model.directory import read_json, write_json
from bert_jax.stages.run import run

STEPS = {"images": 2000, "recordings": 1500}
PRETRAINING = ("steps", "real_tokens", "mlm_accuracy", "mlm_accuracy_floor")
MODELS = ("pre-trained", "from scratch", "linear model on the same units")
HELD_OUT = "recordings, one speaker held out"
LINEAR_NAMES = {"images": "images", "recordings": "audio", HELD_OUT: "audio, one speaker held out"}


class Cell(NamedTuple):
    """One measurement; `speaker` is the one that is held out, if any."""

    data: str
    labels: int
    seed: int
    speaker: str
    model: str


def main() -> None:
    """Measure, write and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder with the folders train and test")
    parser.add_argument("--audio", type=Path, help="a folder of recordings")
    parser.add_argument("--linear", type=Path, required=True, help="the results of linear_baselines.py")
    parser.add_argument("--workdir", type=Path, required=True, help="for the pre-trained models and finished measurements")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    media.start(flags.workdir / "programs")
    lines = [line for data in media.data_sets(flags.images, flags.audio, flags.workdir) for line in measured(data, flags.workdir)]
    lines += list(linear_lines(read_json(flags.linear), lines))
    for (data, labels), models in by_size(lines).items():
        print(f"{data}, {labels} labels: " + ", ".join(f"{name} {media.spread(values)}" for name, values in models.items()))
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    runs = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    summaries = {data: flags.workdir / data / "summary.json" for data in STEPS}
    found = {data: read_json(path)["pretrain"] for data, path in summaries.items() if path.is_file()}
    results = {data: {name: own[name] for name in PRETRAINING} for data, own in found.items()}
    write_json(flags.output.with_suffix(".json"), {"machine": machine(), "versions": versions([]), "pretraining": results, "runs": runs})
    draw(lines, flags.output.with_suffix(".svg"))


def measured(data: media.DataSet, workdir: Path) -> Iterator[Line]:
    """Pre-train if that is not done, and yield every measurement, new or found."""
    steps = STEPS[data.name]
    run(media.with_steps(data.pretraining, steps), workdir / data.name)
    model = workdir / data.name / "pretrain"
    lines = Lines(workdir / "measured.jsonl")
    for cell in cells(data):
        if not lines.of(cell._asdict()):
            train, test = data.sample(cell.labels, cell.seed), data.test
            if cell.speaker:
                train = [example for example in train if example.group[1] != cell.speaker]
                test = [example for example in test if example.group[1] == cell.speaker]
            begun = time.time()
            accuracy = media.fine_tuned(data, model, cell.labels, train, test, cell.seed, cell.model == MODELS[0])
            lines.add(cell._asdict() | {"accuracy": accuracy, "seconds": round(time.time() - begun)})
        line = lines.of(cell._asdict())[-1]
        print(f"{cell.data}{cell.speaker and ' without '}{cell.speaker}, {cell.labels} labels, seed {cell.seed}, {cell.model}: "
              f"{line['accuracy']:.1%} in {line['seconds']} s", flush=True)  # fmt: skip
        yield line


def cells(data: media.DataSet) -> Iterator[Cell]:
    """All measurements; those of the first seed come first, so that a part of them is a table already."""
    for seed in SEEDS:
        for labels in data.fits:
            for model in MODELS[:2]:
                yield Cell(data.name, labels, seed, "", model)
    speakers = sorted({example.group[1] for example in data.train if isinstance(example.group, tuple)})
    for position, speaker in enumerate(speakers):
        for labels in data.fits:
            for model in MODELS[:2]:
                yield Cell(HELD_OUT, labels, SEEDS[position % len(SEEDS)], speaker, model)


def linear_lines(found: Any, lines: Sequence[Line]) -> Iterator[Line]:
    """The measurements of linear models on the same samples."""
    by_name = {(line["data"], line["labels"], line["seed"]): line for line in found["runs"]}
    for line in [line for line in lines if line["model"] == MODELS[0]]:
        linear = by_name[LINEAR_NAMES[line["data"]], line["labels"], line["seed"]]
        accuracy = (linear["speakers"][line["speaker"]] if line["speaker"] else linear)["accuracy"]
        yield {name: line[name] for name in Cell._fields} | {"model": MODELS[2], "accuracy": accuracy}


def by_size(lines: Sequence[Line]) -> dict[tuple[str, int], dict[str, list[float]]]:
    """The accuracies by data and number of labels, then by model."""
    groups: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        groups[line["data"], line["labels"]][line["model"]].append(line["accuracy"])
    return groups


def draw(lines: Sequence[Line], path: Path) -> None:
    """Plot the mean accuracy of each model over the seeds, with each run as a dot."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(line["data"] for line in lines))
    figure, panels = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), layout="constrained", squeeze=False)
    for axes, data in zip(panels[0], names, strict=True):
        own = [line for line in lines if line["data"] == data]
        sizes = sorted({line["labels"] for line in own})
        for name, color in zip(MODELS, ("#1f6feb", "#d1702a", "#6e7781"), strict=True):
            chosen = [(line["labels"], 100 * line["accuracy"]) for line in own if line["model"] == name]
            means = [statistics.mean(accuracy for labels, accuracy in chosen if labels == size) for size in sizes]
            axes.plot(sizes, means, color=color, linewidth=2, label=name)
            axes.scatter(*zip(*chosen, strict=True), color=color, s=12)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_title(data, fontsize=10)
        axes.set_xlabel("labels per class" if data == "images" else "labels per digit and speaker")
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].legend(frameon=False, loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
