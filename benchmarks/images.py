"""Pre-training throughput on images of bert_jax and PyTorch in patches/s, on the same images, in interleaved runs.

    pip install -r benchmarks/requirements.txt
    python benchmarks/images.py --images=cifar10/train --output=benchmarks/results/images

Every run is a process of its own, on all cores, with the same size of encoder, share of masked patches, images per step, dropout and dtype:

- bert_jax: `train.py` with configs/pretrain_images.py, including its data pipeline; its records are prepared beforehand;
- torch, plain: a typical loop over transformers' `ViTForMaskedImageModeling`, images decoded beforehand;
- torch, codes: bert_jax's work on batches that lie in memory, as fast as PyTorch can, with torch.compile if it is faster.

`torch_images.py` says what equal work is. bert_jax pays for its data pipeline and for its [SEP] tokens here, and the last loop does not, so
the ratio at equal work is a lower bound. A run's rate is the median over its windows of `--log-every` steps without the first, in which
programs are compiled; results are medians over runs. Run it on an idle machine: where other processes want the cores, torch's threads wait
for each other and lose far more than their share. Prints a table and writes OUTPUT.json.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from checkout import ROOT
from machine import CORES, machine, versions

from bert_jax.model.directory import read_json, write_json
from bert_jax.runtime.metrics import read_metrics

CONFIG = "configs/pretrain_images.py"
SPECIALS = {"none": 2, "nsp": 3, "sop": 3}
"""Tokens per image that are not patches: [CLS] and [SEP], and a second [SEP] between two halves."""
Run = dict[str, Any]


class Ours:
    """`train.py` on one folder of images; its vocabulary and records are made once, and copied for each run."""

    def __init__(self, flags: argparse.Namespace, folder: Path) -> None:
        self.prepared, self.workdir = folder / "prepared", folder / "run"
        steps, every = flags.steps + flags.log_every, flags.log_every
        self.overrides = [
            f"--config={CONFIG}",
            f"--config.corpus.source={flags.images.resolve()}",
            f"--config.corpus.size={flags.size}",
            f"--config.corpus.patch={flags.patch}",
            f"--config.pretrain.steps={steps}",
            f"--config.pretrain.loop.log_every={every}",
            f"--config.pretrain.loop.evaluate_every={steps}",
            f"--config.pretrain.loop.save_every={steps}",
            "--config.pretrain.evaluation_batches=1",
            *flags.overrides,
        ]
        command("-m", "bert_jax", "prepare", *self.overrides, f"--workdir={self.prepared}")
        self.patches = (flags.size // flags.patch) ** 2

    def run(self) -> Run:
        """Train; return the rate and the share of time spent waiting for data, of each window without the first."""
        shutil.rmtree(self.workdir, ignore_errors=True)
        shutil.copytree(self.prepared, self.workdir)
        command("train.py", *self.overrides, f"--workdir={self.workdir}")
        self.config: Any = read_json(self.workdir / "config.json")
        windows = [line for line in read_metrics(self.workdir / "pretrain") if line["split"] == "train"]
        self.tokens_per_step = windows[-1]["real_tokens"] / windows[-1]["step"]
        share = self.patches / self.tokens_per_image
        return {
            "patches_per_second": [line["real_tokens_per_second"] * share for line in windows[1:]],
            "data_wait": [line["data_wait"] for line in windows[1:]],
        }

    @property
    def tokens_per_image(self) -> int:
        return self.patches + SPECIALS[self.config["pretrain"]["rows"]["next_sentence"]]

    def settings(self, flags: argparse.Namespace) -> list[str]:
        """The flags of `torch_images.py` for the same work, known after the first run."""
        encoder, pretrain = self.config["encoder"], self.config["pretrain"]
        same = {
            "images": flags.images,
            "size": flags.size,
            "patch": flags.patch,
            "layers": encoder["layers"],
            "width": encoder["width"],
            "heads": encoder["heads"],
            "feed-forward": encoder["feed_forward"],
            "dropout": encoder["dropout"],
            "mask-share": pretrain["masking"]["rate"],
            "codes": self.config["vocabulary"]["size"],
            "learning-rate": pretrain["optimizer"]["learning_rate"],
            "batch-size": round(self.tokens_per_step / self.tokens_per_image),
            "dtype": self.config["compute"]["dtype"],
            "steps": flags.steps,
            "log-every": flags.log_every,
        }
        return [f"--{name}={value}" for name, value in same.items()]


def torch_run(*settings: str) -> Run:
    return json.loads(command("benchmarks/torch_images.py", *settings))


def command(*arguments: str) -> str:
    """Run Python; return its output.

    Raises:
        SystemExit: it failed; the message ends with the end of its error output.
    """
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} exited with status {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side of an image")
    parser.add_argument("--patch", type=int, default=4, help="pixels of a side of a patch")
    parser.add_argument("--steps", type=int, default=200, help="timed steps of each run")
    parser.add_argument("--log-every", type=int, default=20, help="steps of a window")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each loop")
    parser.add_argument("--workers", type=int, default=0, help="processes of the plain loop's DataLoader")
    parser.add_argument("--no-compile", action="store_true", help="do not try torch.compile, which needs a C++ compiler")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    parser.add_argument("overrides", nargs="*", help="after --: overrides of the configuration, such as --config.encoder.width=160")
    flags = parser.parse_args()
    flags.images = flags.images.resolve()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(flags, Ours(flags, Path(folder)))
    for name, rate in result["patches_per_second"].items():
        print(f"{name:<14}{rate:>10,} patches/s   {result['settings'][name]}")
    print(f"bert_jax to torch: {result['ratio_plain']:.2f} (plain), {result['ratio_equal_work']:.2f} (equal work)")
    print(f"bert_jax waits for data {result['data_wait']:.2%} of the time")
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(flags.output.with_suffix(".json"), result)


def measure(flags: argparse.Namespace, ours: Ours) -> dict[str, Any]:
    """Patches/s of every loop, and the ratios."""
    ours.run()  # also fills the caches of files, which torch's first run does for its own
    same = ours.settings(flags)
    plain, codes = [*same, "--loop=plain", f"--workers={flags.workers}"], [*same, "--loop=codes"]
    tried = {option: rate(torch_run(*codes, *option)) for option in ((), ("--compile",))[: 1 if flags.no_compile else 2]}
    best = max(tried, key=tried.__getitem__)
    runs = {"bert_jax": ours.run, "torch, plain": lambda: torch_run(*plain), "torch, codes": lambda: torch_run(*codes, *best)}
    found: dict[str, list[Run]] = {name: [] for name in runs}
    for _ in range(flags.repeats):
        for name, run in runs.items():
            found[name].append(run())
            print(f"{name}: {rate(found[name][-1]):,.0f} patches/s", flush=True)
    rates = {name: statistics.median(map(rate, each)) for name, each in found.items()}
    threads = {name: f"{found[name][0]['threads']} threads" for name in ("torch, plain", "torch, codes")}
    return {
        "machine": machine(),
        "versions": versions(["torch", "transformers"]),
        "images": flags.images.name,
        "patches_per_second": {name: round(value) for name, value in rates.items()},
        "ratio_plain": round(rates["bert_jax"] / rates["torch, plain"], 2),
        "ratio_equal_work": round(rates["bert_jax"] / rates["torch, codes"], 2),
        "data_wait": statistics.median(wait for run in found["bert_jax"] for wait in run["data_wait"]),
        "settings": {
            "bert_jax": f"{ours.config['compute']['cpu_devices']} CPU devices on {CORES} cores",
            "torch, plain": f"{threads['torch, plain']}, {flags.workers} workers",
            "torch, codes": f"{threads['torch, codes']}, {'torch.compile' if best else 'eager'}",
        },
        "same": [setting for setting in same if not setting.startswith("--images")],
        "runs": found,
    }


def rate(run: Run) -> float:
    return statistics.median(run["patches_per_second"])


if __name__ == "__main__":
    main()
