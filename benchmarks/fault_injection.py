"""Storage faults, injected one at a time into every file of a finished run.

    python benchmarks/fault_injection.py --faults=10000 --output=benchmarks/results/fault_injection

A bit is flipped, or a file is truncated, deleted, or swapped with another. Then `verify` checks the workdir, and the file is used for its
purpose: the model is loaded, training resumes from the checkpoints, the records are read, the finished run is started
again. The outcome is *exact* (the same results as without the fault), *reported* (a one-paragraph error that names the problem, or
resumption from the previous checkpoint), *silent* (other results without an error) or *traceback*. Some faults are repeated with complete
commands.
"""

import argparse
import contextlib
import io
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from checkout import ROOT
from kill_rounds import FINETUNE, PRETRAIN
from small_run import write_files

import train
from bert_jax.config.overrides import load_config
from bert_jax.errors import InputError
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.stages.verify import verify
from bert_jax.storage.files import check_seal
from bert_jax.tasks import find
from bert_jax.tasks.stored import parameter_shapes
from bert_jax.training.checkpoints import manifest
from bert_jax.training.checkpoints.loading import load_parameters
from bert_jax.training.checkpoints.saving import Checkpoints

FAULTS = ("flip", "truncate", "delete", "swap")
STAGES = ("pretrain", "finetune")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=10_000)
    parser.add_argument("--commands", type=int, default=10, help="faults to repeat with complete commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop injecting faults after this many minutes")
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = inject(Path(folder), flags.faults, flags.commands, flags.seed, flags.minutes)
    model_directory.write_json(flags.output.with_suffix(".json"), result)
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return 1 if result["bad"] else 0


def inject(folder: Path, count: int, commands: int, seed: int, minutes: float = 1e9) -> dict[str, Any]:
    """Inject faults and count outcomes by kind of file and kind of fault; `bad` lists the outcomes that must not happen."""
    write_files(folder, 200, 150, PRETRAIN, FINETUNE)
    workdir, begun = folder / "run", time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert train.main([f"--config={folder / 'config.py'}", f"--workdir={workdir}"]) == 0
    files = sorted(path for path in workdir.rglob("*") if path.is_file() and path.stat().st_size and "lock" not in path.name)
    # Round-robin over the kinds, because most files belong to checkpoints.
    groups = {name: [path for path in files if group(path, workdir) == name] for name in dict.fromkeys(group(p, workdir) for p in files)}
    shutil.copytree(workdir / "data", folder / "data")
    uses = Uses(workdir, folder)
    rng = random.Random(seed)
    outcomes: Counter[tuple[str, str, str, str]] = Counter()
    bad: list[str] = []
    repeated = 0
    for turn in itertools.count():
        if outcomes.total() >= count or time.monotonic() - begun > 60 * minutes:
            break
        if turn % 500 == 0:
            print(f"{outcomes.total()} of {count} faults, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        name = list(groups)[turn % len(groups)]
        fault, path, other = rng.choice(FAULTS), rng.choice(groups[name]), rng.choice(groups[name])
        before = {one: one.read_bytes() for one in (path, other)}
        damaged = damage(fault, path, other, rng)
        if all(one.exists() and one.read_bytes() == data for one, data in before.items()):
            continue  # two equal files were swapped
        try:
            # Verifying the whole workdir would find the same and take longer.
            part = workdir / path.relative_to(workdir).parts[0]
            verified = outcome(lambda part=part: bool(verify(part if part.is_dir() else workdir)[0]))
            used = outcome(partial(uses.of, name, path))
            verified = {"exact": "unreported"}.get(verified, verified)
            outcomes[name, fault, verified, used] += 1
            if used in ("silent", "traceback") or verified == "traceback":
                bad.append(f"{damaged}: verify {verified}, use {used}")
            if repeated < commands and turn % 53 == 7:
                repeated += 1
                bad += by_commands(workdir, folder, damaged, verified)
        finally:
            for one, data in before.items():
                one.write_bytes(data)
            if name.startswith("records"):  # they may have been prepared again
                shutil.rmtree(workdir / "data")
                shutil.copytree(folder / "data", workdir / "data")
    bad += [f"left behind: {fault}" for fault in verify(workdir)[0]]
    return {
        "faults": outcomes.total(),
        "files": len(files),
        "by_file": table(outcomes, 0),
        "by_fault": table(outcomes, 1),
        "repeated_by_commands": repeated,
        "bad": bad,
        "seconds": round(time.monotonic() - begun),
        "seed": seed,
    }


def group(path: Path, workdir: Path) -> str:
    """The kind of a file."""
    parts = path.relative_to(workdir).parts
    if "checkpoints" in parts:
        return {"params": "checkpoint: parameters", "optimizer": "checkpoint: optimizer"}.get(
            parts[3], "checkpoint: manifest" if path.name == manifest.FILE else "checkpoint: other"
        )
    if parts[0] == "data":
        return "records" if "array_record" in path.name else "records: description"
    if parts[0] == "vocabulary" or path.name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        return "vocabulary" if parts[0] == "vocabulary" else "model: vocabulary"
    return "model: description" if path.name == model_directory.FILE else "results, metrics, predictions, checksums"


def damage(fault: str, path: Path, other: Path, rng: random.Random) -> str:
    """Damage a file, and describe the damage."""
    data = bytearray(path.read_bytes())
    if fault == "flip":
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        return f"bit {bit} of {path} flipped"
    if fault == "truncate":
        size = rng.randrange(len(data))
        path.write_bytes(data[:size])
        return f"{path} truncated to {size} bytes"
    if fault == "delete":
        path.unlink()
        return f"{path} deleted"
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return f"{path} and {other} swapped"


def outcome(work: Callable[[], bool]) -> str:
    """`reported` if the work raises InputError or returns true, `exact` if it returns false."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return "reported" if work() else "exact"
    except InputError as error:
        assert str(error).count("\n") == 0
        return "reported"
    except AssertionError:
        return "silent"
    except Exception as error:
        print(f"traceback: {error!r}"[:500], file=sys.stderr)
        return "traceback"


class Uses:
    """How each kind of file is used, and the results without a fault."""

    def __init__(self, workdir: Path, folder: Path) -> None:
        self._workdir, self._scratch = workdir, folder / "scratch"
        self._config = load_config(folder / "config.py")
        self._models = {stage: model_directory.read(workdir / stage) for stage in STAGES}
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        self._shapes = {
            stage: jax.tree.map(lambda leaf: leaf.update(sharding=device), parameter_shapes(model, tokenizer.vocab_size))
            for stage, (model, tokenizer) in self._models.items()
        }
        self._parameters = {stage: self._load(stage) for stage in STAGES}
        self._tokenizer = Tokenizer.load(workdir / "vocabulary")
        self._records = self._read_records()

    def of(self, name: str, path: Path) -> bool:
        """Use a file for its purpose.

        Returns:
            Whether a fault was reported, although the work succeeded.

        Raises:
            InputError: the file was rejected.
            AssertionError: the result differs from the one without the fault.
        """
        reported = False
        stage = path.relative_to(self._workdir).parts[0]
        if name.startswith(("checkpoint", "model")):
            refused = None
            try:
                assert same(self._load(stage), self._parameters[stage])
            except InputError as error:
                refused = error
            if name.startswith("checkpoint"):
                reported = self._resume(stage)
            if refused:
                raise refused
            return reported
        if name == "vocabulary":
            check_seal(self._workdir / "vocabulary")
            assert Tokenizer.load(self._workdir / "vocabulary").fingerprint == self._tokenizer.fingerprint
        elif name.startswith("records"):
            assert self._read_records() == self._records
        else:
            # What restarting does first, both for a finished run and for one whose last stage is unfinished.
            check_seal(self._workdir)
            for one in STAGES:
                if model_directory.finished(self._workdir / one) is None:
                    return True  # resumed from its last step
        return False

    def _load(self, stage: str) -> Any:
        model, tokenizer = model_directory.read(self._workdir / stage)
        identity = model_directory.identity(model, tokenizer)
        loaded = load_parameters(self._workdir / stage, self._shapes[stage], identity, find(model.kind).best, alone=True)
        assert identity == model_directory.identity(*self._models[stage])
        return loaded

    def _resume(self, stage: str) -> bool:
        """Open a copy of the checkpoints as training does; it must resume from one of those that were written."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        shutil.copytree(self._workdir / stage / "checkpoints", self._scratch / "checkpoints")
        steps = {int(path.name) for path in self._scratch.glob("checkpoints/*")}
        model, tokenizer = self._models[stage]
        identity = model_directory.identity(model, tokenizer)
        checkpoints = Checkpoints(self._scratch / "checkpoints", 9, identity)
        try:
            newest = checkpoints.latest
            assert newest is not None
            restored = load_parameters(self._scratch, self._shapes[stage], identity, find(model.kind).best, alone=True)
        finally:
            checkpoints.close()
        if newest == max(steps) and stage == "pretrain":
            assert same(restored, self._parameters[stage])
        return newest != max(steps) or any(self._scratch.glob("checkpoints/*.damaged"))

    def _read_records(self) -> list[str]:
        prepared = Text().prepare(self._config.corpus, self._tokenizer, self._workdir / "data", show_progress=False)
        digests = []
        for source in (prepared.train, prepared.valid):
            fetched = source.fetch(range(len(source)))
            digests += [repr([array.tolist() for array in document if array is not None]) for document in fetched]
            digests.append(repr((source.tokens, source.sentences, source.single_sentence_documents)))
        return digests


def same(one: Any, other: Any) -> bool:
    leaves = [jax.tree.leaves(tree) for tree in (one, other)]
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*leaves, strict=True))


def by_commands(workdir: Path, folder: Path, damaged: str, by_verify: str) -> list[str]:
    """The same fault with complete commands: `verify`, and a restart of the run."""
    python = [sys.executable, "-m", "bert_jax", "verify", str(workdir)]
    found = subprocess.run(python, cwd=ROOT, capture_output=True, text=True, check=False)
    expected = 2 if by_verify == "reported" else 0
    wrong = [f"{damaged}: the command verify exited with {found.returncode}"] * (found.returncode != expected)
    wrong += [f"{damaged}: the command verify printed a traceback"] * ("Traceback" in found.stderr)
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workdir, copy)
    start = [sys.executable, "train.py", f"--config={folder / 'config.py'}", f"--workdir={copy}"]
    started = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, check=False)
    return wrong + [f"{damaged}: the restart exited with {started.returncode}"] * (
        started.returncode not in (0, 2) or "Traceback" in started.stderr
    )


def table(outcomes: Counter[tuple[str, str, str, str]], key: int) -> dict[str, dict[str, int]]:
    rows: dict[str, Counter[str]] = {}
    for names, number in outcomes.items():
        row = rows.setdefault(names[key], Counter())
        row["faults"] += number
        row[f"verify: {names[2]}"] += number
        row[f"use: {names[3]}"] += number
    return {name: dict(sorted(row.items())) for name, row in sorted(rows.items())}


if __name__ == "__main__":
    sys.exit(main())
