"""A run that is killed again and again ends like one that was never killed.

    python benchmarks/kill_rounds.py --kills=100 --output=benchmarks/results/kill_rounds

Complete runs of a tiny model (vocabulary, records, pre-training, fine-tuning, predictions for a file) are killed with SIGKILL,
at random times or during selected operations, and restarted with the same command until they finish. Then everything they
left is compared bit for bit with an undisturbed run: parameters, optimizer state and data position of every checkpoint, metrics,
results, predictions, records and vocabulary.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

# All that takes long to import, so that each run is a fork of this process; nothing here may start JAX's threads.
import checkout  # noqa: F401
import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorflow_datasets  # noqa: F401
from orbax.checkpoint._src.path import deleter
from small_run import write_files

import train
from bert_jax import cli
from bert_jax.data.records import builder
from bert_jax.inference import answer_files
from bert_jax.modalities.text import tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import write_json
from bert_jax.runtime import metrics
from bert_jax.stages import (
    finetune,
    run,
    verify,
)
from bert_jax.storage import files
from bert_jax.training import loop
from bert_jax.training.checkpoints import manifest

PRETRAIN = "steps=24, evaluation_batches=2, loop=LoopConfig(log_every=3, evaluate_every=6, save_every=2, keep=1)"
FINETUNE = "loop=LoopConfig(log_every=2, evaluate_every=4, save_every=2, keep=1)"

# Operations to kill during, each with the function that starts it: the kill comes at one of its first N calls, up to T seconds later.
MOMENTS: dict[str, tuple[Any, str, int, float]] = {
    "learning the vocabulary": (tokenizer.Tokenizer, "save", 3, 0.005),
    "writing records": (builder._Shards, "write", 150, 0.02),
    "sealing a folder": (files, "seal", 5, 0.003),
    "starting a stage": (model_directory, "write", 1, 0.01),
    "a step": (loop._Training, "advance", 15, 0.02),
    "starting a save": (loop._Training, "save", 6, 0.1),
    "writing a manifest": (manifest, "write", 6, 0.02),
    "deleting a checkpoint": (deleter.StandardCheckpointDeleter, "delete_steps", 6, 0.02),
    "evaluation": (loop, "evaluate", 3, 0.05),
    "writing metrics": (metrics.MetricsWriter, "write", 8, 0.002),
    "cutting metrics": (metrics, "_keep", 1, 0.002),
    "writing test predictions": (finetune, "_write_predictions", 1, 0.002),
    "finishing a stage": (model_directory, "finish", 1, 0.01),
    "the end of the run": (run, "write_report", 1, 0.02),
}
PREDICTING = {"predicting for a file": (answer_files.AnswerFile, "_add", 2, 0.01)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no further run after this many minutes")
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_runs(Path(folder), flags.kills, flags.seed, flags.minutes)
    write_json(flags.output.with_suffix(".json"), result)
    print(json.dumps(result, indent=2))
    return 1 if result["differences"] else 0


def kill_runs(folder: Path, kills: int, seed: int, minutes: float = 1e9, moments: tuple[str, ...] = tuple(MOMENTS)) -> dict[str, Any]:
    """Kill runs until there were `kills` kills; report where they hit and what differed at the end."""
    rng, begun = random.Random(seed), time.monotonic()
    write_files(folder, 200, 150, PRETRAIN, FINETUNE)
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    def training(workdir: Path) -> int:
        return train.main([f"--config={folder / 'config.py'}", f"--workdir={workdir}"])

    def predicting(workdir: Path) -> int:
        return cli.main(["classify", str(workdir / "finetune"), str(folder / "reviews.tsv"), f"--output={workdir / 'classified.jsonl'}"])

    started = time.monotonic()
    for command in (training, predicting):
        assert forked(partial(command, folder / "undisturbed"), folder / "log.txt") == 0, (folder / "log.txt").read_text()
    seconds = 0.3 * (time.monotonic() - started)  # later runs find its programs in the compilation cache
    wanted = left_by(folder / "undisturbed", folder)
    kills_at: Counter[str] = Counter()
    differences: list[str] = []
    runs = 0
    while kills_at.total() < kills and time.monotonic() - begun < 60 * minutes and not differences:
        workdir, runs = folder / f"killed-{runs}", runs + 1
        for command in (training, predicting):
            kills_here = 0
            while True:
                # A run must finish eventually, so the number of kills per command is limited.
                own = (*PREDICTING, *PREDICTING, "anywhere") if command is predicting else (*moments, "anywhere")
                moment = rng.choice(own) if kills_at.total() < kills and kills_here < 12 else ""
                status = forked(partial(killed, partial(command, workdir), moment, rng.random(), seconds), folder / "log.txt")
                if status == -signal.SIGKILL:
                    kills_at[moment] += 1
                    kills_here += 1
                    print(f"{kills_at.total()} kills, {runs} runs, {time.monotonic() - begun:.0f} s: {moment}", file=sys.stderr, flush=True)
                elif status:
                    differences.append(f"{command.__name__} exited with status {status}: {(folder / 'log.txt').read_text()[-2000:]}")
                    break
                else:
                    break
            if differences:
                break
        if not differences:
            found = left_by(workdir, folder)
            differences += [f"{name} differs" for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
    return {
        "kills": kills_at.total(),
        "runs": runs,
        "moments": dict(sorted(kills_at.items())),
        "compared": len(wanted),
        "differences": differences,
        "seconds": round(time.monotonic() - begun),
        "seed": seed,
    }


def forked(work: Callable[[], int], log: Path) -> int:
    """Do the work in a child process; return its exit status, or minus the number of the signal that killed it."""
    child = os.fork()
    if not child:
        status = 99
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def killed(work: Callable[[], int], moment: str, chance: float, seconds: float) -> int:
    """Do the work, and kill this process group at the given moment of it."""

    def kill_after(delay: float) -> None:
        threading.Timer(delay, os.killpg, (0, signal.SIGKILL)).start()

    if moment == "anywhere":
        kill_after(chance * seconds)
    elif moment:
        owner, name, times, longest = (MOMENTS | PREDICTING)[moment]
        original = getattr(owner, name)
        calls = iter(range(1_000_000))
        at = int(chance * 997) % times
        inner = chance * 7919 % 1

        def counted(*arguments: Any, **named: Any) -> Any:
            if next(calls) == at:
                kill_after(inner * longest)
            return original(*arguments, **named)

        setattr(owner, name, counted)
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("bert_jax") and module.__dict__.get(name) is original:
                setattr(module, name, counted)
    return work()


def left_by(workdir: Path, folder: Path) -> dict[str, str]:
    """Hashes of everything that a run left, except for timestamps."""
    answer = folder / "left.json"
    answer.unlink(missing_ok=True)
    status = forked(lambda: _write_hashes(workdir, answer), folder / "log.txt")
    assert status == 0, (folder / "log.txt").read_text()
    return json.loads(answer.read_text())


def _write_hashes(workdir: Path, answer: Path) -> int:
    found: dict[str, str] = {"verified": json.dumps(verify.verify(workdir)[0])}
    for stage in ("pretrain", "finetune"):
        lines = [{k: v for k, v in line.items() if k not in metrics.TIMINGS} for line in metrics.read_metrics(workdir / stage)]
        found[f"{stage} metrics"] = json.dumps(lines)
        result = json.loads((workdir / stage / "result.json").read_text())
        found[f"{stage} result"] = json.dumps({k: v for k, v in result.items() if k not in metrics.TIMINGS})
        for step in sorted((workdir / stage / "checkpoints").iterdir()):
            for item in ("params", "optimizer"):
                with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
                    tree = checkpointer.restore(step / item)
                for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                    digest = hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
                    found[f"{stage} {step.name} {item} {jax.tree_util.keystr(path)}"] = digest
            position = json.loads((step / "position" / "metadata").read_text())
            position["metrics"].pop("sha256")  # it covers lines with timestamps
            found[f"{stage} {step.name} position"] = json.dumps(position)
    plain = ["finetune/predictions.jsonl", "classified.jsonl", "examples.json", "config.json", "pretrain/model.json", "finetune/model.json"]
    plain += [str(path.relative_to(workdir)) for pattern in ("vocabulary/*", "data/**/*array_record*") for path in workdir.glob(pattern)]
    found |= {name: hashlib.sha256((workdir / name).read_bytes()).hexdigest() for name in plain}
    elsewhere = {"tensorboard", "checkpoints"}  # their names are random or contain the time
    found |= {f"file {path.relative_to(workdir)}": "" for path in workdir.rglob("*") if not elsewhere & set(path.parts)}
    answer.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
