"""A task that does not come along, of public extension points alone: how long a text is, from a table to an answer and a report."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import write_files

import bert_jax
from bert_jax.config import RunConfig, TaskOptions
from bert_jax.config.overrides import from_dict
from bert_jax.model.bert import ClassificationModel
from bert_jax.report import write_report
from bert_jax.stages.run import run
from bert_jax.tasks import choices, configured
from bert_jax.tasks.base import MeasuredTask
from bert_jax.tasks.question import Question
from bert_jax.training.losses import Mean, weighted_mean


# --- The task ---
@dataclass(frozen=True)
class LengthOptions(TaskOptions):
    name: Literal["length"] = "length"
    column: str = "characters"

    def columns(self) -> Mapping[str, str]:
        return {"column": self.column}


class Lengths:
    """Reads the logarithm of a number out of a column."""

    def __init__(self, column: str) -> None:
        self._column = column

    def columns(self) -> Mapping[str, str]:
        return {"finetune.task.column": self._column}

    def parse(self, values: Sequence[str], where: str) -> float:
        return float(np.log(int(values[0])))

    def targets(self, parsed: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        return {role: np.array(part.values, np.float32) for role, part in parsed.items()}, ()

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return kept, rest


class HowLong(Question):
    name, help, examples, parts = "how_long", "say how long texts are", ("runs/demo/finetune 'text'",), ("classifier",)

    def start(self, model: Any, **options: Any) -> Callable[[Any], Any]:
        answer = jax.jit(model.forward.model.apply)
        return lambda queries: model.forward.per_example(queries, lambda batch: answer({"params": model.forward.params}, batch)[..., 0])

    def record(self, answer: float) -> dict[str, Any]:
        return {"characters": round(float(np.exp(answer)), 1)}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        return [f"{one['characters']:6.1f}  {one['text']}" for one in records]


class Errors:
    """Compares predicted with true lengths."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets, self.found = targets, np.zeros_like(targets)

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        self.found[examples] = found[:, 0]

    def result(self) -> dict[str, Any]:
        return {"correlation": float(np.corrcoef(self.targets, self.found)[0, 1])}

    def line(self, example: int) -> dict[str, Any]:
        return {"length": float(np.exp(self.targets[example])), "predicted": float(np.exp(self.found[example]))}


class LengthTask(MeasuredTask[LengthOptions]):
    name = kind = "length"
    noun, metric, scores = "a model of lengths", "loss", ("correlation",)
    options, questions = LengthOptions, (HowLong(),)

    def labels(self, options: LengthOptions) -> Lengths:
        return Lengths(options.column)

    def describe(self, options: LengthOptions, labels: Sequence[str]) -> dict[str, Any]:
        return {"pooling": "mean"}

    def model(self, description: Any, vocab_size: int, compute: Any, head_dropout: float = 0.0) -> ClassificationModel:
        return ClassificationModel(vocab_size, description.encoder, compute, 1, description.pooling, head_dropout)

    def measure(self, predictions: jax.Array, batch: Any) -> dict[str, Mean]:
        errors = jnp.square(predictions[..., 0] - batch["labels"])
        return {"loss": weighted_mean(errors, batch["example_weights"])}

    def score(self, held_out: Mapping[str, float]) -> float:
        return -held_out["loss"]

    def scorer(self, labelled: Any, options: LengthOptions) -> Errors:
        return Errors(labelled.test.targets)


TASKS = (LengthTask(),)
# --- The end of the task ---


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that fine-tunes the task."""
    folder = tmp_path_factory.mktemp("toy")
    loop = "loop=LoopConfig(log_every=5, evaluate_every=20, save_every=20)"
    finetune = f"{loop}, from_scratch=True, optimizer=OptimizerConfig(learning_rate=5e-3)"
    config = write_files(folder, 100, 200, "steps=2", finetune)
    texts = [line.split("\t")[1] for line in (folder / "reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    texts = [text[: 2 + index % 24] for index, text in enumerate(texts)]
    rows = [json.dumps({"text": text, "characters": len(text)}, ensure_ascii=False) for text in dict.fromkeys(texts)]
    (folder / "lengths.jsonl").write_text("\n".join(rows), encoding="utf-8")
    overrides = ["pretrain=none", "finetune.task=length", f"finetune.data.train={folder / 'lengths.jsonl'}"]
    overrides += ["finetune.data.dev_fraction=0.2", "finetune.epochs=12"]
    run(configured(str(config), overrides, TASKS), folder / "run", tasks=TASKS)
    return folder / "run"


def test_it_learns(workdir: Path) -> None:
    summary = json.loads((workdir / "summary.json").read_text())["finetune"]
    assert summary["correlation"] > 0.8, summary
    lines = [json.loads(line) for line in (workdir / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(len(line["text"]) == pytest.approx(line["length"], rel=1e-4) for line in lines)
    assert {line["predicted"] for line in lines} > {lines[0]["predicted"]}
    config = json.loads((workdir / "config.json").read_text())
    assert config["finetune"]["task"] == {"name": "length", "column": "characters"}


def test_it_is_loaded_and_answers_alike(workdir: Path) -> None:
    with pytest.raises(bert_jax.errors.InputError, match="no task of the kind 'length'"):
        bert_jax.load(workdir / "finetune")
    model = bert_jax.load(workdir / "finetune", tasks=TASKS)
    lines = [json.loads(line) for line in (workdir / "finetune" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    found = model.ask("how_long", [line["text"] for line in lines])
    np.testing.assert_allclose(np.exp(found), [line["predicted"] for line in lines], rtol=1e-3)
    assert set(model.questions) == {"how_long", "embed", "similar", "attention"}
    with pytest.raises(bert_jax.errors.InputError, match=r"classify requires a classifier.*This model supports how_long, embed"):
        model.classify("好")


def test_the_run_goes_on_and_its_report_shows_the_task(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = from_dict(RunConfig, json.loads((workdir / "config.json").read_text()), choices(TASKS))
    run(stored, workdir, tasks=TASKS)
    shown = capsys.readouterr().out
    assert "is done" in shown and "Test correlation" in shown and "Test texts and their predictions:" in shown
    report = write_report(workdir, TASKS).read_text(encoding="utf-8")
    assert "Test correlation" in report and "Labeled examples" in report and report.count("<svg") > 5


def test_the_task_is_short() -> None:
    own = Path(__file__).read_text(encoding="utf-8").split("# --- The task")[1].split("# --- The end")[0].splitlines()[1:]
    assert len([line for line in own if line.strip()]) <= 60
