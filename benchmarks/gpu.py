"""Pre-training steps on one GPU, cell by cell: bert_jax, its kernels switched off one by one, and torch on the same rows.

    pip install -r benchmarks/requirements.txt
    python benchmarks/gpu.py --corpus=corpus.txt --vocab=vocab.txt --until=540 --output=benchmarks/results/gpu

The cells are in order of importance. Each is a process of its own, so that its peak memory is its own and a failure ends nothing else, and
adds a line to OUTPUT.jsonl as soon as it is measured. The same command goes on where it stopped: cells that have a line of this card and
of these versions are skipped. No cell is started that is expected to end more than `--until` seconds after the command; those that were
not reached are listed. Cells that failed come last.

Steps take packed rows of the corpus from memory, in bfloat16, with dropout, AdamW and gradient clipping. MFU is relative to the card's
published peak and counts useful work (`bert_jax.model.flops`); `of_peak` is relative to its product peak on random numbers. torch's loop is
the best of `benchmarks/pretraining.py`, compiled. With `--tiny`, small models on a few tokens try every cell, on a CPU too.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkout import ROOT
from lines import Lines

Result = dict[str, Any]

# Each is measured beside the defaults: `compute` values that switch off one thing, and by what the rows are divided to fit in memory.
SWITCHES: dict[str, tuple[dict[str, Any], int]] = {
    "attention=flash": ({"attention": "flash"}, 1),
    "fused=gelu,norm,qkv,scores": ({"fused": ("gelu", "norm", "qkv", "scores")}, 1),
    "flash, everything fused": ({"attention": "flash", "fused": ("gelu", "norm", "qkv", "scores")}, 1),
    "fused=gelu": ({"fused": ("gelu",)}, 1),
    "fused=norm": ({"fused": ("norm",)}, 1),
    "fused=qkv": ({"fused": ("qkv",)}, 1),
    "fused=scores": ({"fused": ("scores",)}, 1),
    "attention=dense": ({"attention": "dense"}, 2),
    "scan_layers=true": ({"scan_layers": True}, 1),
    "remat=dots": ({"remat": "dots"}, 1),
}


@dataclass(frozen=True)
class Scale:
    """How large the models, the rows and the runs are."""

    presets: Mapping[str, str]
    """Size in a cell's name -> published size."""
    tokens: Mapping[str, int]
    """Size in a cell's name -> tokens per step, including padding."""
    lengths: Mapping[int, int]
    """Length in a cell's name -> length of the rows."""
    steps: int
    repeats: int
    product: int
    """Rows of the matrices of the product peak."""
    compiled: bool
    """Whether torch compiles its step."""


FULL = Scale({"base": "base", "large": "large"}, {"base": 65_536, "large": 16_384}, {128: 128, 512: 512}, 12, 3, 8192, True)
TINY = Scale({"base": "tiny", "large": "tiny"}, {"base": 128, "large": 64}, {128: 16, 512: 32}, 2, 2, 128, False)


@dataclass(frozen=True)
class Cell:
    """One measurement: its name, about how long it takes on an H100 with everything, and the function that measures it."""

    name: str
    seconds: float
    measure: Callable[["Data"], Result]
    source: bool = True
    """Whether the result depends on this package's source."""


@dataclass(frozen=True)
class Data:
    """The rows to measure on."""

    corpus: str
    vocab: Path
    records: Path
    scale: Scale

    def setting(self, size: str, length: int, divided_by: int = 1, **compute: Any) -> Any:
        """The setting of a cell (`packed_steps.Setting`)."""
        import jax
        from packed_steps import Setting

        from bert_jax.config import ComputeConfig, CorpusConfig, EncoderConfig
        from bert_jax.modalities.text.modality import Text
        from bert_jax.modalities.text.tokenizer import Tokenizer
        from bert_jax.model.resolution import resolve_compute

        tokenizer, actual = Tokenizer.load(self.vocab), self.scale.lengths[length]
        prepared = Text().prepare(CorpusConfig(source=self.corpus), tokenizer, self.records)
        encoder = EncoderConfig.preset(self.scale.presets[size], attention_dropout=0.0)
        wanted = ComputeConfig(**({"dtype": "bfloat16"} | compute))
        resolved = resolve_compute(wanted, encoder, [actual], jax.default_backend())
        rows = self.scale.tokens[size] // actual // divided_by
        return Setting(size, actual, rows, encoder, resolved, tokenizer, prepared)


def product_peak(data: Data) -> Result:
    """The product peak of the card in bfloat16 on random numbers."""
    from machine import matrix_peak

    return {"tflops": round(matrix_peak("bfloat16", data.scale.product) / 1e12, 3)}


def step(data: Data, size: str, length: int, divided_by: int = 1, **compute: Any) -> Result:
    """bert_jax's training step."""
    import jax
    from packed_steps import Ours, timed

    setting = data.setting(size, length, divided_by, **compute)
    batches = first_rows(setting)
    ours, repeats = Ours(setting, 1, batches[0]), data.scale.repeats
    _, first = timed(lambda count: ours.steps(batches, count), 1)
    ours.steps(batches, 2)
    times = [timed(lambda count: ours.steps(cycled(batches, count), count), data.scale.steps)[1] / data.scale.steps for _ in range(repeats)]
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    seen = {"compile_s": round(first - min(times), 1), "attention": setting.compute.attention, "scan_layers": setting.compute.scan_layers}
    return figures(setting, batches, times, memory) | seen


def trace(data: Data, size: str, length: int) -> Result:
    """Where the time of bert_jax's training step goes, by class of kernel."""
    from gpu_trace import traced
    from packed_steps import Ours

    setting = data.setting(size, length)
    batches = first_rows(setting)
    ours = Ours(setting, 1, batches[0])
    ours.steps(batches, 3)
    return traced(lambda: ours.steps(batches, 3), 3)


def torch_step(data: Data, size: str, length: int) -> Result:
    """torch's best loop over the same rows, masked by bert_jax on the CPU."""
    import torch
    from packed_steps import OPTIMIZER, timed
    from torch_pretraining import DEVICE, PackedLoop, torch_steps

    setting = data.setting(size, length)
    batches = first_rows(setting)
    masked = setting.masked(batches)
    loop = PackedLoop(setting.encoder, setting.tokenizer.vocab_size, OPTIMIZER, "bfloat16", data.scale.compiled)
    _, first = timed(lambda count: torch_steps(loop, masked, batches, count), 1)
    torch_steps(loop, masked, batches, 2)
    steps = data.scale.steps
    times = [timed(lambda count: torch_steps(loop, masked, batches, count), steps)[1] / steps for _ in range(data.scale.repeats)]
    memory = torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else 0
    return figures(setting, batches, times, memory) | {"compile_s": round(first - min(times), 1)}


def first_rows(setting: Any) -> list[Any]:
    """The batches that every cell of a size and length takes."""
    stream = setting.batches(packing=True)
    batches = [next(stream) for _ in range(4)]
    stream.close()
    return batches


def cycled(batches: Sequence[Any], count: int) -> list[Any]:
    return [batches[index % len(batches)] for index in range(count)]


def figures(setting: Any, batches: Sequence[Any], times: Sequence[float], memory: int) -> Result:
    """What a timed step says."""
    from bert_jax.training.peak import peak_flops, published_flops

    seconds, flops = statistics.median(times), setting.flops(batches)
    real = statistics.fmean(int((batch["example_ids"] > 0).sum()) for batch in batches)
    peak = published_flops(card()) or peak_flops()
    return {
        "rows": setting.rows,
        "length": setting.length,
        "step_ms": round(1e3 * seconds, 3),
        "all_ms": [round(1e3 * one, 3) for one in times],
        "tokens_per_second": round(real / seconds),
        "padding": round(1 - real / setting.rows / setting.length, 4),
        "tflops": round(flops / seconds / 1e12, 4),
        "mfu": round(flops / seconds / peak, 4) if peak else None,
        "peak_gib": round(memory / 2**30, 2) if memory else None,
    }


def card() -> str:
    """The name of the device; torch's cells keep JAX on the CPU, so torch is asked first where it is loaded."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    import jax

    return str(jax.local_devices()[0].device_kind)


def who(data: Data) -> Result:
    """The card and the versions, which say whether a line still holds."""
    from machine import versions

    del data
    return {"card": card(), "versions": versions(["flax", "torch", "transformers"])}


def pair(size: str, length: int, seconds: float) -> list[Cell]:
    """bert_jax and torch at a size and a length."""
    return [
        Cell(f"{size} {length}", seconds, lambda data: step(data, size, length)),
        Cell(f"{size} {length}, torch", seconds + 30, lambda data: torch_step(data, size, length), source=False),
    ]


def switched_off(size: str, length: int, seconds: float) -> list[Cell]:
    """One cell for each entry of SWITCHES."""

    def cell(name: str, compute: dict[str, Any], divided_by: int) -> Cell:
        return Cell(f"{size} {length}, {name}", seconds, lambda data: step(data, size, length, divided_by, **compute))

    return [cell(name, *values) for name, values in SWITCHES.items()]


CELLS = [
    Cell("product peak", 25, product_peak, source=False),
    *pair("base", 512, 70),
    *pair("base", 128, 70),
    *pair("large", 512, 110),
    Cell("base 512, trace", 80, lambda data: trace(data, "base", 512)),
    *switched_off("base", 512, 70),
    *pair("large", 128, 110),
    Cell("base 128, trace", 80, lambda data: trace(data, "base", 128)),
    *switched_off("base", 128, 70),
]
_WHO = Cell("who", 0, who)


@dataclass(frozen=True)
class Identity:
    """What a line must say to be a result of this card, these versions and this source."""

    card: str
    versions: dict[str, str]
    source: str

    def key(self, cell: Cell) -> Result:
        """The values that a line of the cell has."""
        return {"cell": cell.name, "card": self.card, "versions": self.versions, "source": self.source if cell.source else ""}


def main() -> None:
    """Measure what is missing, then print a table."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="text, in any form that corpus.source accepts")
    parser.add_argument("--vocab", type=Path, required=True, help="a vocab.txt or tokenizer.json")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    parser.add_argument("--until", type=float, default=float("inf"), metavar="SECONDS", help="start no cell that would end later than this")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cells with this text in their name")
    parser.add_argument("--tiny", action="store_true", help="small models on a few tokens")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    if flags.cell:
        data = Data(flags.corpus, flags.vocab, flags.output.with_suffix(".records"), TINY if flags.tiny else FULL)
        cell = next(cell for cell in (_WHO, *CELLS) if cell.name == flags.cell)
        print(json.dumps(cell.measure(data)))
        return
    found = in_a_process(_WHO, 120)
    if "error" in found:
        raise SystemExit(found["error"])
    lines, here = Lines(flags.output.with_suffix(".jsonl")), Identity(found["card"], found["versions"], source_hash())
    cells = [cell for cell in CELLS if flags.only in cell.name]
    missing = [cell for cell in cells if not any("error" not in line for line in lines.of(here.key(cell)))]
    for cell in sorted(missing, key=lambda cell: bool(lines.of(here.key(cell)))):
        left = flags.until - (time.monotonic() - begun)
        expected = cell.seconds / 10 if flags.tiny else cell.seconds
        if expected > left:
            print(f"{cell.name}: not started, {expected:.0f} s expected and {max(left, 0):.0f} s left", flush=True)
            continue
        lines.add(here.key(cell) | in_a_process(cell, left))
        print(json.dumps(lines.found[-1]), flush=True)
    print_table(here.card, {cell.name: lines.of(here.key(cell)) for cell in cells})


def in_a_process(cell: Cell, seconds: float) -> Result:
    """Run this command for one cell: its result, or the last line of its error."""
    environment = dict(os.environ)
    if cell.name.endswith("torch"):
        environment["JAX_PLATFORMS"] = "cpu"
    begun = time.monotonic()
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], f"--cell={cell.name}"]
    try:
        limit = None if seconds == float("inf") else max(seconds, 1)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit, check=False)
        lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
        result = {"error": lines[-1][:500] if lines else f"exit status {done.returncode}"} if done.returncode else json.loads(lines[-1])
    except subprocess.TimeoutExpired:
        result = {"error": f"did not end within {seconds:.0f} s"}
    return result | {"wall_s": round(time.monotonic() - begun, 1)}


def source_hash() -> str:
    """Identifies the code that a step runs."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "bert_jax").rglob("*.py")):
        if path.parts[len(ROOT.parts) + 1] in ("model", "training"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def print_table(card: str, results: Mapping[str, Sequence[Result]]) -> None:
    """Print the newest result of each cell, and the ratio to torch where both were measured."""
    newest = {name: good[-1] for name, found in results.items() if (good := [line for line in found if "error" not in line])}
    peak = newest.get("product peak", {}).get("tflops")
    print(f"{card}: {len(newest)} of {len(results)} cells; product peak {peak or '?'} TFLOP/s")
    print(f"{'cell':<28}{'step ms':>10}{'tokens/s':>12}{'MFU':>7}{'of peak':>9}{'GiB':>7}{'compile s':>11}{'x torch':>9}")
    for name, line in newest.items():
        if "step_ms" not in line:
            continue
        torch = newest.get(f"{' '.join(name.split(',')[0].split())}, torch")
        values = [f"{line['step_ms']:.1f}", f"{line['tokens_per_second']:,}", f"{line['mfu']:.1%}" if line["mfu"] else "?"]
        values += [f"{line['tflops'] / peak:.1%}" if peak else "?", f"{line['peak_gib']:.1f}" if line["peak_gib"] else "?"]
        values += [f"{line['compile_s']:.0f}", f"{line['tokens_per_second'] / torch['tokens_per_second']:.2f}" if torch else "?"]
        print(f"{name:<28}" + "".join(f"{value:>{width}}" for value, width in zip(values, (10, 12, 7, 9, 7, 11, 9), strict=True)))
    for name in (name for name in newest if name.endswith("trace")):
        shares = ", ".join(f"{label} {milliseconds:.1f}" for label, milliseconds in newest[name]["classes"].items())
        print(f"{name}: {newest[name]['kernel_ms']:.1f} ms a step: {shares}")


if __name__ == "__main__":
    main()
