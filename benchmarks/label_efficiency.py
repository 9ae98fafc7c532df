"""Sentiment accuracy by number of labels: pre-trained, from scratch, and a linear model on character n-grams.

    python benchmarks/campaign.py --only='labels/demo/*' ...
    python benchmarks/label_efficiency.py --campaign=benchmarks/results/campaign.jsonl --encoder=demo \
        --output=benchmarks/results/label_efficiency

Prints a table of the means over three seeds and draws OUTPUT.svg. The encoders, the samples and their trainings are in
benchmarks/cells/labels.py.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import checkout  # noqa: F401
from cells.labels import ENCODERS
from lines import Line, Lines

from bert_jax.report.svg import Chart, Series, picture

MODELS = {
    "pre-trained": "accuracy",
    "from scratch": "from_scratch_accuracy",
    "linear model on character n-grams": "linear_accuracy",
}
COLORS = ("pretrained", "scratch", "third")


def main() -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaign", type=Path, required=True, help="the results of campaign.py")
    parser.add_argument("--encoder", choices=ENCODERS, default="demo", help="whose pre-training (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    found = by_labels(Lines(flags.campaign), flags.encoder)
    if not found:
        parser.error(f"{flags.campaign} has no cell labels/{flags.encoder}/*")
    print("\n".join(table(found)))
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.with_suffix(".svg").write_text(draw(found), encoding="utf-8")


def by_labels(lines: Lines, encoder: str) -> dict[int, list[Line]]:
    """The results of all seeds by the number of training examples, those of the newest line of each cell."""
    cells = {line["cell"]: line for line in lines.found if line["cell"].startswith(f"labels/{encoder}/")}
    found = [[result["finetune"] for result in line["results"].values()] for line in cells.values()]
    return {results[0]["train_examples"]: results for results in sorted(found, key=lambda results: results[0]["train_examples"])}


def mean(results: Sequence[Line], score: str) -> float:
    """The mean of a score over the seeds."""
    return statistics.mean(result[score] for result in results)


def table(found: Mapping[int, Sequence[Line]]) -> list[str]:
    """A table of mean accuracies."""
    rows = ["| labels | " + " | ".join(MODELS) + " |", "| --- " * (len(MODELS) + 1) + "|"]
    for labels, results in found.items():
        rows.append(f"| {labels:,} | " + " | ".join(f"{100 * mean(results, score):.1f}%" for score in MODELS.values()) + " |")
    error = statistics.mean(result["accuracy_error"] for results in found.values() for result in results)
    return [*rows, f"standard error of the test set: {100 * error:.1f} points"]


def draw(found: Mapping[int, Sequence[Line]]) -> str:
    """The picture of the table."""
    series = [
        Series(name, [(labels, mean(results, score)) for labels, results in found.items()], color, held_out=True)  # type: ignore[arg-type]
        for (name, score), color in zip(MODELS.items(), COLORS, strict=True)
    ]
    return picture(Chart("Test accuracy, mean of three seeds", series, percent=True), "labeled texts")


if __name__ == "__main__":
    main()
