"""Start-up time: the import, and from a training command to its first step, with and without a compilation cache.

    python benchmarks/start_up.py --model=runs/demo/finetune --output=benchmarks/results/start_up

The training command trains the demo with records that are already prepared; its first line of metrics shows that the first step is done.
With --model, `classify` is timed for two texts, with and without the programs that it keeps.
Each run is a separate process, and results are medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checkout import ROOT
from machine import machine, versions

from bert_jax.model.directory import write_json

IMPORT = "import sys, time; begun = time.perf_counter(); import bert_jax; print(time.perf_counter() - begun, 'jax' in sys.modules)"
COMMAND = [sys.executable, "train.py", "--config=configs/demo.py", "--config.pretrain.loop.log_every=1"]


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each case")
    parser.add_argument("--model", type=Path, help="the directory of a classifier of texts, whose `classify` is measured too")
    parser.add_argument("--output", type=Path, help="output path without the extension")
    flags = parser.parse_args()
    found: dict[str, list[float]] = {"import bert_jax": [], "first step, no cache": [], "first step, with cache": []}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        prepare = [sys.executable, "-m", "bert_jax", "prepare", "--config=configs/demo.py", f"--workdir={prepared}"]
        subprocess.run(prepare, cwd=ROOT, check=True, capture_output=True)
        for repeat in range(flags.repeats):
            found["import bert_jax"].append(import_seconds())
            programs = Path(folder) / f"programs-{repeat}"
            for name in ("first step, no cache", "first step, with cache"):
                found[name].append(first_step_seconds(prepared, Path(folder) / "run", programs))
            if flags.model:
                for name in ("classify, no cache", "classify, with cache"):
                    found.setdefault(name, []).append(classify_seconds(flags.model.absolute(), Path(folder) / f"cache-{repeat}"))
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    for name, seconds in medians.items():
        print(f"{name:<28}{seconds:8.2f} s")
    if flags.output:
        result = {"machine": machine(), "versions": versions(["flax", "orbax-checkpoint", "grain"]), "seconds": medians, "runs": found}
        write_json(flags.output.with_suffix(".json"), result)


def import_seconds() -> float:
    output = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert output[1] == "False", "importing bert_jax imported JAX"
    return float(output[0])


def classify_seconds(model: Path, cache: Path) -> float:
    """Seconds of the whole command for two texts."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "bert_jax", "classify", str(model), "a good film", "a bad film"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"XDG_CACHE_HOME": str(cache)}, check=True, capture_output=True)
    return time.perf_counter() - begun


def first_step_seconds(prepared: Path, workdir: Path, programs: Path) -> float:
    """Seconds from the command to its first line of metrics."""
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(prepared, workdir)
    keep = {"JAX_COMPILATION_CACHE_DIR": str(programs), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    begun = time.perf_counter()
    run = subprocess.Popen(
        [*COMMAND, f"--workdir={workdir}"], cwd=ROOT, env=os.environ | keep, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    metrics = workdir / "pretrain" / "metrics.jsonl"
    try:
        while not (metrics.exists() and metrics.stat().st_size):
            assert run.poll() is None, f"{' '.join(COMMAND)} exited with status {run.returncode}"
            time.sleep(0.02)
        return time.perf_counter() - begun
    finally:
        run.kill()
        run.wait()


if __name__ == "__main__":
    main()
