"""Writes `report.html`: the results of a run, as one self-contained file that opens in any browser without a network connection."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from bert_jax.config import TaskOptions
from bert_jax.errors import InputError
from bert_jax.model import directory as model_directory
from bert_jax.report import draw
from bert_jax.runtime.metrics import read_metrics
from bert_jax.storage.files import resolve_path, write_whole
from bert_jax.tasks import finetuning, spread
from bert_jax.tasks.base import FinetuningTask, Task
from bert_jax.tasks.display import Json, nouns
from bert_jax.tasks.pretraining import ADAPTATION, PRETRAINING


def write_report(workdir: str | Path, tasks: Sequence[Task] = ()) -> Path:
    """Write `workdir/report.html` from the files of a run and return its path.

    The report is based on `config.json`, `summary.json`, `examples.json`, and the `metrics.jsonl` of `pretrain`, `adapt`,
    `finetune` and `finetune_from_scratch`. Sections whose files are missing are omitted.

    Args:
        workdir: the workdir of the run.
        tasks: tasks that are not part of this package.

    Raises:
        InputError: one of the JSON files is damaged.
    """
    workdir = resolve_path(workdir)
    config, summary, examples = (_read(workdir / f"{name}.json") for name in ("config", "summary", "examples"))
    stages = (PRETRAINING, ADAPTATION, _finetuned(config, tasks))
    shown = [(task, summary.get(task.stage) or {}, read_metrics(workdir / task.stage)) for task in stages]
    scratch = read_metrics(workdir / "finetune_from_scratch")
    sections = {
        "Results": "".join(
            draw.figures(task.figures(result)) + "".join(map(draw.table, spread.tables(result))) for task, result, _ in shown
        ),
        "Examples": "".join(draw.panel(panel) for task, _, _ in shown for panel in task.panels(examples)),
    }
    for title, (task, result, lines) in zip((PRETRAINING.title, ADAPTATION.title, "Fine-tuning"), shown, strict=True):
        curves = draw.charts(task.curves(result), lines, scratch if task.stage == "finetune" else (), nouns(result))
        sections[title] = curves + "".join(draw.table(table) for table in task.tables(result))
    sections["Configuration"] = _configuration(config)
    body = "".join(f"<section>\n<h2>{title}</h2>\n{content}</section>\n" for title, content in sections.items() if content)
    body = body or "<p>This run has no results yet.</p>"
    style, script = (files("bert_jax.report").joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    # The encoder of a fine-tuned model is that of its checkpoint, whatever the configuration says.
    models = [_read(workdir / stage / model_directory.FILE).get("encoder") for stage in ("finetune", "pretrain")]
    encoder = next((encoder for encoder in models if encoder), config.get("encoder")) or {}
    subtitle = _subtitle(config, encoder)
    page = _PAGE.format(name=escape(workdir.resolve().name), subtitle=subtitle, style=style, script=script, body=body)
    path = workdir / "report.html"
    write_whole(path, page)
    return path


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · bert_jax</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{name}</h1><p>{subtitle}</p></header>
<main>
{body}</main>
<div id="readout" hidden></div>
<script>
{script}</script>
</body>
</html>
"""


def _finetuned(config: Json, tasks: Sequence[Task]) -> FinetuningTask[Any]:
    """Return the run's fine-tuning task; earlier versions do not record it and have only the default one."""
    name = ((config.get("finetune") or {}).get("task") or {}).get("name", TaskOptions.name)
    return finetuning(TaskOptions(str(name)), tasks)


def _read(path: Path) -> Json:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Delete it and run the training command again to recreate it.") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{path} contains a {type(values).__name__} instead of an object. Delete it and run the training command again to recreate it."
        )
    return values


def _subtitle(config: Json, encoder: Json) -> str:
    corpus, layers = config.get("corpus") or {}, encoder.get("layers")
    facts = [f"{layers} layer{'s' * (layers != 1)} × {encoder['width']}" if layers and "width" in encoder else ""]
    facts += [f"{corpus.get('modality', 'text')}: {corpus['source']}" if config.get("pretrain") and corpus.get("source") else ""]
    seeds = (config.get("finetune") or {}).get("seeds")
    facts += [f"seeds {', '.join(map(str, seeds))}" if seeds else f"seed {config['seed']}" if "seed" in config else ""]
    return escape(" · ".join(fact for fact in facts if fact))


def _configuration(config: Json) -> str:
    rows: list[str] = []

    def add(prefix: str, values: Json) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            else:
                rows.append(f"<tr><td>{escape(prefix + name)}</td><td>{escape(json.dumps(value, ensure_ascii=False))}</td></tr>\n")

    add("", config)
    return f"<details><summary>All {len(rows)} configuration values</summary><table>\n{''.join(rows)}</table></details>\n" if rows else ""
