"""Runs the trainings of a campaign as `train.py` in processes of their own, and times their steps.

Each training has a folder, named by a digest of its whole configuration, in which it resumes like any other run. So a training that
several cells need is made once, and a cell whose definition changes is trained again.
"""

import ctypes
import dataclasses
import hashlib
import itertools
import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cells.cell import Training
from checkout import ROOT
from lines import Lines

from bert_jax.config import RunConfig, to_dict
from bert_jax.model.directory import read_json
from bert_jax.runtime.metrics import read_metrics
from bert_jax.tasks import configured

NEVER = 1_000_000_000
GRACE = 20.0
"""Seconds that a training has to save a checkpoint in."""
TINY_ENCODER = (
    "encoder.layers=1", "encoder.width=16", "encoder.heads=2", "encoder.feed_forward=32", "encoder.max_positions=64",
    "vocabulary.size=300",
)  # fmt: skip
TINY = {
    "pretrain": (
        *TINY_ENCODER, "pretrain.rows.length=32", "pretrain.batch_size=4", "pretrain.evaluation_batches=1",
    ),
    "adapt": (
        "adapt.steps=4", "adapt.rows.length=32", "adapt.batch_size=4", "adapt.evaluation_batches=1",
    ),
    "finetune": (
        "finetune.length=32", "finetune.batch_size=4", "finetune.epochs=1", "finetune.data.max_train_examples=40",
    ),
}  # fmt: skip


class OutOfTime(Exception):
    """The time is up; what was running has saved a checkpoint."""


class Failed(Exception):
    """A training ended with an error; the message is the end of its output."""


class Deadline:
    """The end of the time that a campaign has."""

    def __init__(self, seconds: float) -> None:
        self._end, self._grace = time.monotonic() + seconds, min(GRACE, seconds / 3)

    @property
    def left(self) -> float:
        """Seconds until whatever runs must be told to stop.

        Raises:
            OutOfTime: there are none.
        """
        if (left := self._end - self._grace - time.monotonic()) > 0:
            return left
        raise OutOfTime


@dataclasses.dataclass(frozen=True)
class Timing:
    """How steps are timed: rounds over all trainings of a cell, so that a change in the machine's speed concerns all of them."""

    rounds: int = 2
    seconds: float = 10.0
    windows: int = 4
    """The least number of intervals between two log lines, after the first, in which programs are compiled."""
    steps: int = 5
    """Between two log lines."""


class Trainings:
    """The trainings in a folder.

    Attributes:
        folder: for the runs and the records.
        places: the folders of the data, by the names that options have for them.
        deadline: when to stop.
        tiny: whether to train models of a few hundred parameters on a few examples.
    """

    def __init__(self, folder: Path, places: Mapping[str, Path], deadline: Deadline, tiny: bool = False) -> None:
        self.folder, self.places, self.deadline, self.tiny = folder, {**places, "records": folder / "records"}, deadline, tiny
        self.timing = Timing(1, 0.1, 2, 2) if tiny else Timing()
        self.starts = Lines(folder / "starts.jsonl")
        self._digests: dict[Training, str] = {}

    def digest(self, training: Training) -> str:
        """Identifies what is trained, whatever the paths of the data are.

        Raises:
            InputError: there is no such configuration, or it has no such value.
        """
        if training not in self._digests:
            start = self.digest(training.start) if training.start else ""
            names = {name: f"{{{name}}}" for name in self.places} | {"start": start}
            config = configured(training.config, self._options(training, names))
            content = json.dumps([to_dict(config), training.minutes], sort_keys=True)
            self._digests[training] = hashlib.sha256(content.encode()).hexdigest()[:10]
        return self._digests[training]

    def workdir(self, training: Training) -> Path:
        """The workdir of its run."""
        return self.folder / "runs" / f"{training.label.replace(' ', '_').replace(',', '')}-{self.digest(training)}"

    def summary(self, training: Training) -> dict[str, Any] | None:
        """What the finished run stored; None if it is not finished."""
        path = self.workdir(training) / "summary.json"
        return read_json(path) if path.is_file() else None

    def config(self, training: Training) -> RunConfig:
        """The configuration as it is run, but for the number of steps."""
        return configured(training.config, self._overrides(training))

    def steps(self, training: Training) -> int:
        """The steps of pre-training of a run that was started, or 0."""
        path = self.workdir(training) / "config.json"
        stage = read_json(path)["pretrain"] if path.is_file() else None
        return stage["steps"] if stage else 0

    def progress(self, training: Training) -> float:
        """The share of the steps of pre-training that are done."""
        lines = [line for line in read_metrics(self.workdir(training) / "pretrain") if line.get("split") == "train"]
        return lines[-1]["step"] / self.steps(training) if lines else 0.0

    def run(self, training: Training, steps: int = 0) -> dict[str, Any]:
        """Run or resume a training whose start is finished, and return what it stored.

        Args:
            steps: of pre-training; 0 for those of the configuration.

        Raises:
            OutOfTime: see there.
            Failed: see there.
        """
        workdir, seconds = self.workdir(training), time.monotonic()
        self.starts.add({"training": workdir.name, "label": training.label, "event": "start"})
        command = self._command(training, workdir, (f"pretrain.steps={steps}",) if steps else ())
        try:
            with child(command, workdir.with_suffix(".log")) as process:
                status = process.wait(None if math.isinf(self.deadline.left) else self.deadline.left)
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
        finally:
            self.starts.add({"training": workdir.name, "label": training.label, "event": "end", "seconds": time.monotonic() - seconds})
        found = self.summary(training)
        if status or found is None:
            raise Failed(f"{workdir}: {end_of(workdir.with_suffix('.log'))}")
        return found

    def spent(self, training: Training) -> dict[str, Any]:
        """The seconds that a training took, and in how many starts: only with a single one is that the time of an undisturbed run."""
        own = self.starts.of({"training": self.workdir(training).name})
        return {"seconds": round(sum(line.get("seconds", 0.0) for line in own)), "starts": sum(line["event"] == "start" for line in own)}

    def usual_seconds(self, training: Training) -> float | None:
        """The median seconds of the finished trainings with the same label."""
        seconds: dict[str, float] = {}
        for line in self.starts.of({"label": training.label, "event": "end"}):
            seconds[line["training"]] = seconds.get(line["training"], 0.0) + line["seconds"]
        whole = [own for name, own in seconds.items() if (self.folder / "runs" / name / "summary.json").is_file()]
        return statistics.median(whole) if whole else None

    def time_steps(self, trainings: Sequence[Training]) -> dict[Training, dict[str, float]]:
        """Time the steps of pre-trainings, in rounds over all of them; each has the median window of its best round.

        Raises:
            OutOfTime: see there; what was timed so far is lost.
            Failed: see there.
        """
        found: dict[Training, list[dict[str, float]]] = {training: [] for training in trainings}
        for _ in range(self.timing.rounds):
            for training, rounds in found.items():
                rounds.append(self._round(training))
        for training in trainings:
            shutil.rmtree(self._timed(training), ignore_errors=True)
        return {training: min(rounds, key=lambda one: one["seconds_per_step"]) for training, rounds in found.items()}

    def _timed(self, training: Training) -> Path:
        return self.folder / "timed" / self.digest(training)

    def _round(self, training: Training) -> dict[str, float]:
        workdir, begun = self._timed(training), 0.0
        # What a killed round logged; it saved no checkpoint.
        (workdir / "pretrain" / "metrics.jsonl").unlink(missing_ok=True)
        loop = (f"pretrain.loop.log_every={self.timing.steps}", f"pretrain.loop.save_every={NEVER}")
        with child(self._command(training, workdir, (*loop, f"pretrain.steps={NEVER}")), workdir.with_suffix(".log")) as process:
            while True:
                lines = [line for line in read_metrics(workdir / "pretrain") if line.get("split") == "train"]
                if len(lines) == 1 and not begun:
                    begun = time.monotonic()
                if len(lines) > self.timing.windows and time.monotonic() - begun > self.timing.seconds:
                    process.kill()
                    return windows(lines)
                if process.poll() is not None:
                    raise Failed(f"{workdir}: {end_of(workdir.with_suffix('.log'))}")
                time.sleep(min(0.05, self.deadline.left))

    def _command(self, training: Training, workdir: Path, more: Sequence[str]) -> list[str]:
        overrides = [f"--config.{option}" for option in (*self._overrides(training), *more)]
        workdir.parent.mkdir(parents=True, exist_ok=True)
        return [sys.executable, str(Path(__file__).resolve()), f"--config={training.config}", f"--workdir={workdir}", *overrides]

    def _overrides(self, training: Training) -> list[str]:
        start = {"start": str(self.workdir(training.start))} if training.start else {}
        return self._options(training, {name: str(path) for name, path in self.places.items()} | start)

    def _options(self, training: Training, names: Mapping[str, str]) -> list[str]:
        options = [option.format_map(names) for option in training.options]
        if not self.tiny:
            return options
        config = configured(training.config, options)
        steps = ["pretrain.steps=4"] if config.pretrain else []
        return [*steps, *options, *(option for stage, tiny in TINY.items() if getattr(config, stage) for option in tiny)]


@contextmanager
def child(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that never outlives this one: it is told to save a checkpoint and to end if this block is left, or this process killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def windows(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median seconds per step, tokens per second and peak FLOP/s of the intervals between log lines."""
    found: dict[str, list[float]] = {"seconds_per_step": [], "tokens_per_second": [], "peak_flops": []}
    for before, line in itertools.pairwise(lines):
        rate = line["real_tokens_per_second"]
        found["seconds_per_step"].append((line["real_tokens"] - before["real_tokens"]) / rate / (line["step"] - before["step"]))
        found["tokens_per_second"].append(rate)
        found["peak_flops"] += [line["model_flops_per_second"] / line["mfu"]] if line.get("mfu") else []
    return {name: statistics.median(values) for name, values in found.items() if values}


def end_of(log: Path) -> str:
    """The last lines of a log."""
    return " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]) if log.is_file() else "no output"


def main() -> int:
    """`train.py` with the arguments of this process, which Linux stops by SIGTERM when its parent dies."""
    import train

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    return train.main()


if __name__ == "__main__":
    sys.exit(main())
