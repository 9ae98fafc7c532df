"""Inference throughput of bert_jax, torch and ONNX Runtime on the CPU, in texts/s, with the same weights, texts and results.

    pip install -r benchmarks/requirements.txt
    python benchmarks/inference.py --texts=reviews.tsv --column=text --sizes=tiny,mini,base --output=benchmarks/results/inference

Each library computes the [CLS] vector of every text, including tokenization, on all cores; texts are truncated to 512 tokens. Weights
are random, since speed does not depend on them. The vectors are compared before anything is timed. Runs are interleaved, and results are
medians. Prints a table and writes OUTPUT.json. The settings of the other libraries are tuned first: see `peers.py`. With ONNX Runtime,
our engine of that name is measured too, in float32 ("graph") and int8; `engines.py` measures what int8 costs in accuracy.
"""

import argparse
import statistics
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from machine import machine, versions
from peers import PACKAGES, Embed, Tensors, installed, prepare, seconds

import bert_jax
from bert_jax.config import EncoderConfig, VocabularyConfig
from bert_jax.convert.layouts import to_parameters
from bert_jax.data.tables import read_rows
from bert_jax.families.bert import BERT
from bert_jax.inference import TruncationWarning
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import ModelDescription, write_json
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.training.checkpoints.saving import Checkpoints
from bert_jax.training.state import TrainState

OURS, APPROXIMATE = "bert_jax", "bert_jax, int8"
OUR_ENGINES: dict[str, dict[str, str]] = {
    OURS: {},
    "bert_jax, graph": {"engine": "onnxruntime"},
    APPROXIMATE: {"engine": "onnxruntime", "dtype": "int8"},
}
"""What `bert_jax.load` is called with."""
TOLERANCE = 1e-4


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="a .tsv, .csv or .jsonl file")
    parser.add_argument("--column", required=True, help="the column with the texts")
    parser.add_argument("--vocab", type=Path, help="a vocab.txt or tokenizer.json; by default, one is trained on the texts")
    parser.add_argument("--sizes", default="tiny,mini,base", help="published sizes, comma-separated")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each library")
    parser.add_argument("--limit", type=int, help="number of texts to use")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    warnings.simplefilter("ignore", TruncationWarning)
    texts = [row.values[0] for row in read_rows(str(flags.texts), {"--column": flags.column}, "")][: flags.limit]
    tokenizer = Tokenizer.load(flags.vocab) if flags.vocab else Tokenizer.train(texts, VocabularyConfig(), show_progress=False)
    peers = installed()
    lines = []
    for size in flags.sizes.split(","):
        lines.append(measure(size, texts, tokenizer, peers, flags.repeats))
        print_table(lines[-1:], heading=len(lines) == 1)
    lengths = tokenizer.encode_flat(texts).lengths + 2
    result = {
        "machine": machine(),
        "versions": versions(package for needs in PACKAGES.values() for package in needs),
        "texts": {"file": flags.texts.name, "count": len(texts), "tokens": int(lengths.sum()), "longest": int(lengths.max())},
        "vocabulary": tokenizer.vocab_size,
        "repeats": flags.repeats,
        "sizes": lines,
    }
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(flags.output.with_suffix(".json"), result)


def measure(size: str, texts: list[str], tokenizer: Tokenizer, peers: list[str], repeats: int) -> dict[str, Any]:
    """Throughput of every library, in texts/s, with a model of one size.

    Raises:
        SystemExit: the libraries disagree.
    """
    encoder = EncoderConfig.preset(size)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tensors = random_tensors(encoder, tokenizer.vocab_size)
        save_model(directory, encoder, tokenizer, tensors)
        prepared = prepare(peers, directory, encoder, tensors, tokenizer, texts)
        engines = {name: options for name, options in OUR_ENGINES.items() if not options or "onnxruntime" in peers}
        ours: dict[str, Embed] = {
            name: partial(bert_jax.load(directory, **options).embed, pooling="cls") for name, options in engines.items()
        }
        embeds = ours | {peer: embed for peer, (embed, _) in prepared.items()}
        # This also warms up.
        differences = compare({name: embed(texts) for name, embed in embeds.items()})
        times = time_in_turns(embeds, texts, repeats)
    rates = {name: len(texts) / statistics.median(own) for name, own in times.items()}
    return {
        "size": size,
        "texts_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratios": {f"{name}/{peer}": round(rates[name] / rates[peer], 3) for name in ours for peer in prepared},
        "seconds": {name: [round(one, 4) for one in own] for name, own in times.items()},
        "settings": {peer: settings for peer, (_, settings) in prepared.items()},
        "largest_differences": differences,
    }


def compare(vectors: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference between each library's vectors and ours.

    Raises:
        SystemExit: it exceeds rounding, where it should not.
    """
    differences = {name: float(np.abs(found - vectors[OURS]).max()) for name, found in vectors.items() if name != OURS}
    for name, difference in differences.items():
        if not difference <= TOLERANCE and name != APPROXIMATE:
            raise SystemExit(f"{name} and {OURS} differ by {difference:.1e}, more than {TOLERANCE}, so their speeds cannot be compared.")
    return differences


def time_in_turns(embeds: dict[str, Embed], texts: list[str], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, interleaved (A B C A B C), so that a slowdown of the machine affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in embeds}
    for _ in range(repeats):
        for name, embed in embeds.items():
            times[name].append(seconds(embed, texts))
    return times


def random_tensors(encoder: EncoderConfig, vocabulary: int) -> Tensors:
    """A random `BertForPreTraining` state dict, including biases and norms, so that every tensor affects the comparison."""
    rng = np.random.default_rng(0)
    width, inner = encoder.width, encoder.feed_forward
    tables = {"word": vocabulary, "position": encoder.max_positions, "token_type": encoder.segment_types}
    linears = {"bert.pooler.dense": (width, width), "cls.predictions.transform.dense": (width, width), "cls.seq_relationship": (2, width)}
    norms = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for layer in (f"bert.encoder.layer.{index}" for index in range(encoder.layers)):
        linears |= {f"{layer}.attention.{name}": (width, width) for name in ("self.query", "self.key", "self.value", "output.dense")}
        linears |= {f"{layer}.intermediate.dense": (inner, width), f"{layer}.output.dense": (width, inner)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    shapes = {f"bert.embeddings.{name}_embeddings.weight": (rows, width) for name, rows in tables.items()}
    shapes |= {f"{name}.weight": shape for name, shape in linears.items()} | {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    shapes |= {f"{name}.{leaf}": (width,) for name in norms for leaf in ("weight", "bias")} | {"cls.predictions.bias": (vocabulary,)}
    tensors = {name: rng.normal(0, encoder.initializer_range, shape).astype(np.float32) for name, shape in shapes.items()}
    return tensors | {f"{name}.weight": 1 + tensors[f"{name}.weight"] for name in norms}


def save_model(directory: Path, encoder: EncoderConfig, tokenizer: Tokenizer, tensors: Tensors) -> None:
    """Write a model directory, with the tokenizer that the peers also use."""
    description = ModelDescription("pretraining", encoder, encoder.max_positions, "nsp")
    model_directory.write(directory, description, tokenizer)
    params = jax.tree.map(jnp.asarray, to_parameters(tensors, BERT.entries(encoder, PRETRAINING.published[0].parts)))
    checkpoints = Checkpoints(directory / "checkpoints", 1, model_directory.identity(description, tokenizer))
    checkpoints.save(1, TrainState(jnp.int32(1), params, optimizer_state=()), {"step": 1})
    checkpoints.close()


def print_table(lines: list[dict[str, Any]], heading: bool) -> None:
    """Print one line per size: the rates, and the ratios of our default engine."""
    if heading:
        columns = [f"{name}, texts/s" for name in lines[0]["texts_per_second"]] + [name for name in lines[0]["ratios"] if _of_default(name)]
        print("size    " + "".join(f"{column:>24}" for column in columns))
    for line in lines:
        ratios = [f"{ratio:.2f}" for name, ratio in line["ratios"].items() if _of_default(name)]
        cells = [f"{rate:.1f}" for rate in line["texts_per_second"].values()] + ratios
        print(f"{line['size']:<8}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def _of_default(ratio: str) -> bool:
    return ratio.startswith(f"{OURS}/")


if __name__ == "__main__":
    main()
