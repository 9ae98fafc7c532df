"""Pre-training throughput of bert_jax and PyTorch in real (non-padding) tokens/s, on the same documents, in interleaved runs.

    pip install -r benchmarks/requirements.txt
    python benchmarks/pretraining.py --corpus=corpus.txt --vocab=vocab.txt --sizes=tiny,mini --output=benchmarks/results/pretraining

Three loops, each with AdamW, gradient clipping, dropout and next-sentence prediction, on all cores:

- bert_jax as `train.py` runs it, with its data pipeline and masking, on one CPU device or on one per core;
- a typical PyTorch loop: transformers' `BertForPreTraining`, one padded pair per row, logits at every position;
- the best PyTorch loop: bert_jax's packed and masked rows, preloaded in memory, logits at masked positions only,
  fused attention and optimizer, and torch.compile if it is faster.

The last loop does the same work as bert_jax's step on the same arrays; the two losses are compared before anything is timed, and the ratio
of their times is the ratio at equal work. For that ratio, bert_jax also takes its rows from memory. Runs are interleaved, and results are
medians. FLOPs are those of the model, derived in `bert_jax.model.flops`: real tokens, and attention within examples. MFU is relative to
the throughput of a large matmul, measured in the same run. Prints a table and writes OUTPUT.json. `benchmarks/gpu.py` measures one GPU.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import jax
from machine import CORES, machine, matrix_peak, versions
from packed_steps import MASKING, OPTIMIZER, Batch, Ours, Setting, timed
from torch_pretraining import PackedLoop, PlainLoop, torch_steps

from bert_jax.config import ComputeConfig, CorpusConfig, EncoderConfig, to_dict
from bert_jax.convert.layouts import to_tensors
from bert_jax.families.bert import BERT
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model.directory import write_json
from bert_jax.model.resolution import resolve_compute
from bert_jax.training.host_memory import tune_malloc

TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
"""Relative, between the losses."""


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="text, in any form that corpus.source accepts")
    parser.add_argument("--vocab", type=Path, required=True, help="a vocab.txt or tokenizer.json")
    parser.add_argument("--sizes", default="tiny,mini,base", help="published sizes, comma-separated")
    parser.add_argument("--lengths", default="128,512", help="row lengths")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens per step, including padding")
    parser.add_argument("--seconds", type=float, default=5, help="approximate seconds of each timed run")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each loop")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="dtype of the activations; autocast in torch")
    kernels = ["auto", "dense", "splash", "cudnn", "flash"]
    parser.add_argument("--attention", default="dense", choices=kernels, help="a value of compute.attention")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile, which takes minutes and needs a C++ compiler")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    tune_malloc()
    jax.config.update("jax_num_cpu_devices", CORES)
    peak = matrix_peak(flags.dtype)
    compute = ComputeConfig(dtype=flags.dtype, attention=flags.attention)
    kept = {} if flags.attention == "dense" else {"attention_dropout": 0.0}  # for torch too
    tokenizer = Tokenizer.load(flags.vocab)
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        prepared = Text().prepare(CorpusConfig(source=flags.corpus), tokenizer, Path(directory))
        for size in flags.sizes.split(","):
            for length in map(int, flags.lengths.split(",")):
                encoder = EncoderConfig.preset(size, **kept)
                resolved = resolve_compute(compute, encoder, [length], jax.default_backend())
                setting = Setting(size, length, flags.tokens // length, encoder, resolved, tokenizer, prepared)
                lines.append(measure(setting, peak, flags.seconds, flags.repeats, not flags.no_compile))
                print_line(lines[-1], heading=len(lines) == 1)
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "versions": versions(["torch", "transformers"]), "corpus": Path(flags.corpus).name}
    result |= {"matrix_peak_gflops": round(peak / 1e9), "compute": to_dict(compute)}
    write_json(flags.output.with_suffix(".json"), result | {"vocabulary": tokenizer.vocab_size, "lines": lines})


def measure(setting: Setting, peak: float, seconds: float, repeats: int, compiled: bool) -> dict[str, Any]:
    """Throughput of every loop in real tokens/s, and the ratio at equal work."""
    packed, padded = setting.batches(packing=True), setting.batches(packing=False)
    rows = [next(packed) for _ in range(8)]
    single = [next(padded) for _ in range(8)]
    tried = {count: Ours(setting, count, rows[0]) for count in sorted({1, jax.device_count()}) if setting.rows % count == 0}
    masked = setting.masked(rows)
    devices = fastest({count: lambda own=own: own.steps(rows, 2) for count, own in tried.items()})
    ours = tried[devices]
    best, compile_torch = best_torch(setting, tried[1], masked, compiled)
    special = setting.tokenizer
    plain = PlainLoop(setting.encoder, special.vocab_size, OPTIMIZER, setting.compute.dtype, MASKING, special.mask_id, 106)
    runs: dict[str, Callable[[int], int]] = {
        "bert_jax": lambda count: ours.steps(packed, count),
        "torch, plain": lambda count: torch_steps(plain, single, single, count),
        "torch, packed": lambda count: torch_steps(best, masked, rows, count),
        "bert_jax, rows in memory": lambda count: ours.steps([rows[index % len(rows)] for index in range(count)], count),
    }
    counts = {name: max(1, round(seconds / timed(run, 1)[1])) for name, run in runs.items()}
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name].append(timed(run, counts[name]))
    for stream in (packed, padded):
        stream.close()  # type: ignore[attr-defined]
    rates = {name: statistics.median(tokens / taken for tokens, taken in each) for name, each in found.items()}
    steps = {name: statistics.median(taken / counts[name] for _, taken in each) for name, each in found.items()}
    flops = setting.flops(rows)
    return {
        "size": setting.size,
        "length": setting.length,
        "rows": setting.rows,
        "tokens_per_second": {name: round(rate) for name, rate in rates.items()},
        "step_seconds": {name: round(step, 4) for name, step in steps.items()},
        "ratio_plain": round(rates["bert_jax"] / rates["torch, plain"], 2),
        "ratio_packed": round(rates["bert_jax"] / rates["torch, packed"], 2),
        "ratio_equal_work": round(steps["torch, packed"] / steps["bert_jax, rows in memory"], 2),
        "gflops_per_second": {name: round(flops / steps[name] / 1e9) for name in ("bert_jax", "torch, packed")},
        "mfu": {name: round(flops / steps[name] / peak, 3) for name in ("bert_jax", "torch, packed")},
        "settings": {"bert_jax": f"{devices} CPU devices", "torch, packed": "torch.compile" if compile_torch else "eager"},
        "runs": {name: [[tokens, round(taken, 4)] for tokens, taken in each] for name, each in found.items()},
    }


def best_torch(setting: Setting, ours: Ours, masked: Sequence[Batch], compiled: bool) -> tuple[PackedLoop, bool]:
    """The faster of the eager and the compiled loop, after comparing its loss with ours at the same parameters.

    Raises:
        SystemExit: the losses differ.
    """
    make = partial(PackedLoop, setting.encoder, setting.tokenizer.vocab_size, OPTIMIZER, setting.compute.dtype)
    loops = {option: make(option) for option in ((False, True) if compiled else (False,))}
    params = jax.device_get(ours.state.params)
    loops[False].load(to_tensors(params, BERT.entries(setting.encoder, params)))
    theirs, own = loops[False].loss(masked[0]), ours.loss(masked[0])
    if not abs(theirs - own) <= TOLERANCE[setting.compute.dtype] * own:
        raise SystemExit(f"The loss is {own:.6f} in bert_jax and {theirs:.6f} in torch, so their speeds cannot be compared.")
    choice = fastest({option: lambda loop=loop: torch_steps(loop, masked, masked, 2) for option, loop in loops.items()})
    return loops[choice], choice


def fastest(runs: dict[Any, Callable[[], object]]) -> Any:
    """The name of the fastest run: the better of two, after a warm-up."""
    for run in runs.values():
        run()
    times = {name: min(timed(lambda _, run=run: run(), 0)[1] for _ in range(2)) for name, run in runs.items()}
    return min(times, key=times.__getitem__)


def print_line(line: dict[str, Any], heading: bool) -> None:
    """Print one line of the table."""
    columns = [*line["tokens_per_second"], "vs. plain", "vs. packed", "equal work", "MFU"]
    widths = [max(8, len(column)) + 2 for column in columns]
    if heading:
        print("Real tokens/s, ratios of bert_jax to torch, and bert_jax's MFU relative to the matmul peak")
        print("size    L  " + "".join(f"{column:>{width}}" for column, width in zip(columns, widths, strict=True)))
    cells = [f"{rate:,}" for rate in line["tokens_per_second"].values()]
    cells += [f"{line[name]:.2f}" for name in ("ratio_plain", "ratio_packed", "ratio_equal_work")] + [f"{line['mfu']['bert_jax']:.0%}"]
    row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    print(f"{line['size']:<6}{line['length']:>5}{row}", flush=True)


if __name__ == "__main__":
    main()
