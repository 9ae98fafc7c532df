"""The course of a run, for the page: its state, and the metrics of each stage as they grow.

A request names a stage, which is looked up among those that the run has: it never names a path.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

from fastapi import APIRouter

from bert_jax.errors import InputError
from bert_jax.modalities import find as find_modality
from bert_jax.model.directory import FILE as MODEL
from bert_jax.model.directory import RESULT, read_json
from bert_jax.runtime.metrics import FILE as METRICS
from bert_jax.runtime.metrics import read_new_metrics
from bert_jax.serving.failures import Failure
from bert_jax.storage.files import LOCK, SEAL, has_writer
from bert_jax.tasks import TASKS, find
from bert_jax.tasks.base import Task
from bert_jax.tasks.display import Curve, Example, Json, Marked, nouns
from bert_jax.tasks.pretraining import ADAPTATION, PRETRAINING

CONFIG, EXAMPLES, SKIPPED = "config.json", "examples.json", "skipped.json"


class Run:
    """A workdir in which models are trained, or were.

    Attributes:
        models: how often the models that the server has of it have changed.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self.models = 0

    @property
    def exists(self) -> bool:
        """Whether the directory is that of a run."""
        return (self._workdir / LOCK).is_file() or bool(self._stages())

    @property
    def running(self) -> bool:
        """Whether a process is training."""
        return not (self._workdir / SEAL).is_file() and has_writer(self._workdir)

    def describe(self) -> dict[str, Any]:
        """Return the state of the run, its stages with their curves, and its examples as soon as there are some."""
        config, examples = _read(self._workdir / CONFIG), _read(self._workdir / EXAMPLES)
        running = self.running
        stages = self._stages()
        tasks = dict.fromkeys(filter(None, map(_task, stages)))
        return {
            "name": self._workdir.name,
            "state": "running" if running else "finished" if (self._workdir / SEAL).is_file() else "stopped",
            "models": self.models,
            "stages": [_described(stage, config, running) for stage in stages],
            "panels": [panel for task in tasks for panel in _panels(task, examples)],
        }

    def metrics(self, name: str, after: str) -> dict[str, Any]:
        """Return what is new in the metrics of a stage; see `bert_jax.runtime.metrics.read_new_metrics`.

        Raises:
            Failure: the run has no such stage.
        """
        stages = {stage.name: stage for stage in self._stages()}
        if name not in stages:
            raise Failure(404, f"The run has no stage {name!r}: choose one of {', '.join(stages) or 'those to come'}.", "stage")
        shown = {"step", "split", *(curve.metric for curve in _curves(stages[name]))}
        found = read_new_metrics(stages[name], after)
        return found._asdict() | {"lines": [{key: line[key] for key in shown & line.keys()} for line in found.lines]}

    def _stages(self) -> list[Path]:
        """Return the directories with metrics: pre-training first, then its adaptation, then the others by name."""
        kinds = [*dict.fromkeys(task.stage for task in (PRETRAINING, ADAPTATION, *TASKS))]

        def order(stage: Path) -> tuple[int, list[str]]:
            kind = next((index for index, kind in enumerate(kinds) if stage.name.startswith(kind)), len(kinds))
            return kind, [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", stage.name)]

        return sorted((path.parent for path in self._workdir.glob(f"*/{METRICS}") if path.is_file()), key=order)


def routes(run: Run) -> APIRouter:
    """Return the routes of a run."""
    router = APIRouter(tags=["run"])

    @router.get("/run")
    def describe() -> dict[str, Any]:
        """Describe the run: its state, its stages and their curves, its examples."""
        return run.describe()

    @router.get("/run/{stage}")
    def metrics(stage: str, after: str = "") -> dict[str, Any]:
        """Return the metrics of a stage, or those after a `place` of an earlier answer."""
        return run.metrics(stage, after)

    return router


def _described(stage: Path, config: Json, running: bool) -> dict[str, Any]:
    steps = (config.get(stage.name) or {}).get("steps")
    finished = (stage / SEAL).is_file()
    failed = not running and (stage / SKIPPED).is_file()
    return {
        "name": stage.name,
        "state": "finished" if finished else "running" if running else "failed" if failed else "stopped",
        "steps": steps if isinstance(steps, int) else None,
        "curves": [asdict(curve) for curve in _curves(stage)],
    }


def _curves(stage: Path) -> list[Curve]:
    """Return the curves that the task of a stage shows, and the throughput."""
    task = _task(stage)
    result = _read(stage / RESULT)
    try:
        modality = find_modality((_read(stage / MODEL).get("input") or {}).get("modality", "text"))
        result = {"nouns": modality.nouns._asdict(), **result}
    except InputError:  # one from elsewhere
        pass
    shown = task.curves(result) if task else [Curve("Loss", "loss")]
    return [*shown, Curve(f"{nouns(result).token.capitalize()}s per second", "real_tokens_per_second")]


def _task(stage: Path) -> Task | None:
    """Return the task of a stage, unless it is from elsewhere, or the stage has just begun."""
    try:
        return find(str(_read(stage / MODEL).get("kind")))
    except InputError:
        return None


def _panels(task: Task, examples: Json) -> Iterator[dict[str, Any]]:
    for panel in task.panels(examples):
        if panel.examples:
            yield {"title": panel.title, "examples": [_example(example) for example in panel.examples]}


def _example(example: Example) -> dict[str, Any]:
    """Return an example as JSON values; where there are pictures, the texts are the paths of files, of which the names are enough."""
    texts: list[dict[str, Any]] = []
    for text in example.texts:
        if isinstance(text, Marked):
            texts.append({"text": text.text, "note": text.note, "marks": [mark._asdict() for mark in text.marks]})
        else:
            texts.append({"text": PurePath(text).name if example.pictures else text, "note": "", "marks": []})
    guesses = [[asdict(guess) for guess in group] for group in example.guesses]
    pictures = [str(picture) for picture in example.pictures if str(picture).startswith("data:image/png;base64,")]
    return {"texts": texts, "guesses": guesses, "pictures": pictures, "captions": [*example.captions]}


def _read(path: Path) -> Mapping[str, Any]:
    """Return the JSON object in a file; none if there is no such file, or it cannot be read, as while it is written."""
    try:
        return read_json(path) if path.is_file() else {}
    except (InputError, OSError):
        return {}
