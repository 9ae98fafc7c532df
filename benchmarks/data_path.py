"""Text to batches on the CPU: preparation compared with the tokenizer alone and `datasets.map`, and the loader in rows/s.

    pip install -r benchmarks/requirements.txt
    python benchmarks/data_path.py --corpus=corpus.txt --vocab=vocab.txt --output=benchmarks/results/data_path

- `tokenizers`: Hugging Face's tokenizer over batches of lines on all cores, with its ids counted and discarded;
- `datasets`: the same tokenizer in `datasets.map`, one process per core, with its ids written to Arrow files;
- bert_jax: all of `prepare` (sentences, words, tokens, records, hashes), with Chinese words from jieba, and without.

Each runs in its own process, in interleaved runs; results are the median time and the largest peak memory (including child processes,
added up as if all peaked at once). The loader produces packed pre-training batches for one process that does nothing else.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkout  # noqa: F401

from bert_jax.config import CorpusConfig, RowsConfig
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import Tokenizer

# Worker processes of `prepare` import this file again, as they would import a user's program. So slow imports that
# `python -m bert_jax prepare` does not need (JAX, Grain) are inside the functions that use them.

LENGTHS = (128, 512)
ROWS, SECONDS = 64, 10


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a text file with a blank line between documents")
    parser.add_argument("--vocab", type=Path, required=True, help="a vocab.txt or tokenizer.json")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each method")
    parser.add_argument("--output", type=Path, help="output path without the extension")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(WORK[flags.one](flags.corpus, flags.vocab)))
        return
    from machine import machine, versions

    from bert_jax.model.directory import write_json

    names = [name for name in WORK if name != "datasets" or importlib.util.find_spec("datasets")]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(flags.repeats):
        for name in names:
            runs[name].append(in_a_process(name, flags.corpus, flags.vocab))
    table = {name: {field: middle(field, found) for field in found[0]} for name, found in runs.items()}
    for name, line in table.items():
        print(f"{name:<24}" + "  ".join(f"{field} {value:,.2f}" for field, value in line.items()))
    result = {"machine": machine(), "versions": versions(["datasets", "grain", "jieba", "array_record"])}
    if flags.output:
        result |= {"corpus": flags.corpus.name, "bytes": flags.corpus.stat().st_size, "medians": table, "runs": runs}
        write_json(flags.output.with_suffix(".json"), result)


def middle(field: str, runs: list[dict[str, float]]) -> float:
    values = [run[field] for run in runs]
    return max(values) if field.startswith("peak") else statistics.median(values)


def in_a_process(name: str, corpus: Path, vocab: Path) -> dict[str, float]:
    command = [sys.executable, __file__, f"--corpus={corpus}", f"--vocab={vocab}", f"--one={name}"]
    environment = os.environ | {"HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def lines(corpus: Path, size: int = 1000) -> Iterator[list[str]]:
    with corpus.open(encoding="utf-8") as file:
        part: list[str] = []
        for line in file:
            part.append(line)
            if len(part) == size:
                yield part
                part = []
        yield part


def throughput(corpus: Path, begun: float) -> dict[str, float]:
    seconds = time.perf_counter() - begun
    own, children = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"MB_per_second": corpus.stat().st_size / 1e6 / seconds, "peak_MiB": own + children}


def raw_tokenizer(corpus: Path, vocab: Path) -> dict[str, float]:
    tokenizer = saved_tokenizer(vocab)
    begun, count = time.perf_counter(), 0
    for part in lines(corpus):
        count += sum(len(encoding.ids) for encoding in tokenizer.encode_batch(part, add_special_tokens=False))
    return throughput(corpus, begun) | {"tokens": count}


def mapped(corpus: Path, vocab: Path) -> dict[str, float]:
    import datasets
    from machine import CORES

    tokenizer = saved_tokenizer(vocab)
    with tempfile.TemporaryDirectory() as directory:
        begun = time.perf_counter()
        loaded = datasets.load_dataset("text", data_files=str(corpus), split="train", cache_dir=directory)

        def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
            return {"ids": [encoding.ids for encoding in tokenizer.encode_batch(batch["text"], add_special_tokens=False)]}

        loaded.map(encode, batched=True, num_proc=CORES, remove_columns=["text"])
        return throughput(corpus, begun)


def saved_tokenizer(vocab: Path) -> Any:
    import tokenizers

    with tempfile.TemporaryDirectory() as directory:
        Tokenizer.load(vocab).save(Path(directory))
        return tokenizers.Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))


def prepared(corpus: Path, vocab: Path, segmenter: str) -> dict[str, float]:
    tokenizer = Tokenizer.load(vocab)
    with tempfile.TemporaryDirectory() as directory:
        begun = time.perf_counter()
        Text().prepare(CorpusConfig(source=str(corpus), segmenter=segmenter), tokenizer, Path(directory), show_progress=False)  # type: ignore[arg-type]
        return throughput(corpus, begun)


def loaded_rows(corpus: Path, vocab: Path) -> dict[str, float]:
    from bert_jax.data.pipeline import pretraining_batches

    tokenizer, found = Tokenizer.load(vocab), {}
    with tempfile.TemporaryDirectory() as directory:
        config = CorpusConfig(source=str(corpus), segmenter="characters")
        source = Text().prepare(config, tokenizer, Path(directory), show_progress=False).train
        for length in LENGTHS:
            batches = pretraining_batches(source, tokenizer, RowsConfig(length=length), ROWS, seed=0)
            next(batches)
            begun, rows = time.perf_counter(), 0
            while time.perf_counter() < begun + SECONDS:
                rows += len(next(batches)["tokens"])
            found[f"rows_{length}_per_second"] = rows / (time.perf_counter() - begun)
            batches.close()
        return found | {"peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


WORK = {
    "tokenizers": raw_tokenizer,
    "datasets": mapped,
    "bert_jax, jieba": lambda corpus, vocab: prepared(corpus, vocab, "jieba"),
    "bert_jax, no jieba": lambda corpus, vocab: prepared(corpus, vocab, "characters"),
    "loader": loaded_rows,
}


if __name__ == "__main__":
    main()
