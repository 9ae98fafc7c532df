"""The inference engines beside each other, on a fine-tuned classifier: texts/s and accuracy, on the CPU.

    pip install onnx onnxruntime
    python benchmarks/engines.py runs/mine/finetune --texts=dev.tsv --text=text --label=label --output=benchmarks/results/engines

All engines classify all texts, including tokenization, on all cores. Runs are interleaved, and the ratios are of medians. Prints a table,
and whether the CPU has instructions for int8 dot products (VNNI), and writes OUTPUT.json.
"""

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np
from machine import machine, versions

import bert_jax
from bert_jax.data.tables import read_rows
from bert_jax.inference import TruncationWarning
from bert_jax.model.directory import write_json
from bert_jax.runtime.cache import cpu_features

ENGINES = (("jax", "float32"), ("onnxruntime", "float32"), ("onnxruntime", "int8"))


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the directory of a classifier")
    parser.add_argument("--texts", type=Path, required=True, help="a .tsv, .csv or .jsonl file")
    parser.add_argument("--text", default="text", help="the column with the texts")
    parser.add_argument("--label", default="label", help="the column with the labels")
    parser.add_argument("--limit", type=int, help="number of texts to use")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each engine")
    parser.add_argument("--output", type=Path, help="output path without the extension")
    flags = parser.parse_args()
    warnings.simplefilter("ignore", TruncationWarning)
    rows = [row.values for row in read_rows(str(flags.texts), {"--text": flags.text, "--label": flags.label}, "")][: flags.limit]
    texts, labels = [row[0] for row in rows], [row[1] for row in rows]
    lines = measure(flags.model, texts, labels, flags.repeats)
    vnni = sorted(feature for feature in cpu_features() if "vnni" in feature)
    print(f"{len(texts):,} texts; VNNI: {', '.join(vnni) or 'no'}")
    print(f"{'engine':<24}{'texts/s':>10}{'ratio':>8}{'accuracy':>10}{'same class':>12}{'largest difference':>20}")
    for line in lines:
        shares = f"{line['accuracy']:>10.4f}{line['same_class']:>12.4f}{line['largest_difference']:>20.1e}"
        print(f"{line['engine']:<24}{line['texts_per_second']:>10.1f}{line['ratio']:>8.2f}{shares}")
    if flags.output:
        flags.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "versions": versions(["onnx", "onnxruntime"]), "vnni": vnni, "texts": len(texts), "engines": lines}
        write_json(flags.output.with_suffix(".json"), result)


def measure(directory: Path, texts: list[str], labels: list[str], repeats: int) -> list[dict[str, Any]]:
    """A line for each engine; ratios, differences and agreement are relative to the first."""
    berts = {f"{engine} {dtype}": bert_jax.load(directory, engine=engine, dtype=dtype) for engine, dtype in ENGINES}
    # This also warms up.
    answers = {name: bert.classify(texts) for name, bert in berts.items()}
    probabilities = {name: np.array([list(one.probabilities.values()) for one in found]) for name, found in answers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in berts}
    for _ in range(repeats):
        for name, bert in berts.items():
            begun = time.perf_counter()
            bert.classify(texts)
            seconds[name].append(time.perf_counter() - begun)
    first, *_ = berts
    medians = {name: statistics.median(own) for name, own in seconds.items()}
    return [
        {
            "engine": name,
            "texts_per_second": round(len(texts) / medians[name], 2),
            "ratio": round(medians[first] / medians[name], 3),
            "accuracy": float(np.mean([one.label == label for one, label in zip(answers[name], labels, strict=True)])),
            "same_class": float((probabilities[name].argmax(1) == probabilities[first].argmax(1)).mean()),
            "largest_difference": float(np.abs(probabilities[name] - probabilities[first]).max()),
            "seconds": [round(one, 4) for one in seconds[name]],
        }
        for name in berts
    ]


if __name__ == "__main__":
    main()
