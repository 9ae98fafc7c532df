"""`report.html`: what a run learned, as one file that opens anywhere and needs no network."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.errors import InputError
from bert_jax.report.charts import Chart, Series, draw
from bert_jax.runtime.metrics import read_metrics
from bert_jax.runtime.progress import count
from bert_jax.storage.files import resolve_path, write_whole
from bert_jax.tasks.scores import FEW_CLASSES, confusions_of_matrix

Json = Mapping[str, Any]
Lines = Sequence[Json]


def write_report(workdir: str | Path) -> Path:
    """Write `workdir/report.html` from the files of a run and return its path. What is missing is left out.

    Read: `config.json`, `summary.json`, `examples.json`, and the `metrics.jsonl` of `pretrain`, `finetune` and
    `finetune_from_scratch`.

    Raises:
        InputError: one of the JSON files is damaged.
    """
    workdir = resolve_path(workdir)
    config, summary, examples = (_read(workdir / f"{name}.json") for name in ("config", "summary", "examples"))
    pretrain, finetune = summary.get("pretrain") or {}, summary.get("finetune") or {}
    panels = {"fill_mask": _fill_mask, "next_sentence": _next_sentence, "classify": _classify}
    stages = {name: read_metrics(workdir / name) for name in ("pretrain", "finetune", "finetune_from_scratch")}
    sections = {
        "Results": _figures(_pretrain_figures(pretrain)) + _figures(_finetune_figures(finetune)),
        "Examples": "".join(panel(examples.get(name) or []) for name, panel in panels.items()),
        "Pre-training": _pretrain_charts(stages["pretrain"], pretrain),
        "Fine-tuning": _finetune_charts(stages["finetune"], stages["finetune_from_scratch"]) + _confusion(finetune),
        "Configuration": _configuration(config),
    }
    body = "".join(f"<section>\n<h2>{title}</h2>\n{content}</section>\n" for title, content in sections.items() if content)
    body = body or "<p>Nothing has been measured in this run yet.</p>"
    style, script = (files("bert_jax.report").joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    page = _PAGE.format(name=escape(workdir.resolve().name), subtitle=_subtitle(config), style=style, script=script, body=body)
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


def _read(path: Path) -> Json:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Delete it and run the training command again, which writes it anew.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__} instead of an object. Delete it and run the training command again.")
    return values


def _subtitle(config: Json) -> str:
    encoder, corpus = config.get("encoder") or {}, config.get("corpus") or {}
    facts = [f"{encoder['layers']} layers × {encoder['width']}" if "layers" in encoder and "width" in encoder else ""]
    facts += [f"text: {corpus['source']}" if config.get("pretrain") and corpus.get("source") else ""]
    facts += [f"seed {config['seed']}" if "seed" in config else ""]
    return escape(" · ".join(fact for fact in facts if fact))


# --- Figures ---

Figure = tuple[str, str, str]
"""What it is, its value, what to hold it against."""


def _number(values: Json, key: str) -> float | None:
    value = values.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _short(value: float | None) -> str:
    return "" if value is None else count(value)


def _pretrain_figures(values: Json) -> list[Figure]:
    floor, loss, tokens = _number(values, "mlm_accuracy_floor"), _number(values, "mlm_loss"), _number(values, "real_tokens")
    baseline = "" if floor is None else f"{_percent(floor)} by always guessing the commonest token"
    return [
        ("Masked tokens found", _percent(_number(values, "mlm_accuracy")), baseline),
        ("Next sentences recognised", _percent(_number(values, "nsp_accuracy")), "50 % by chance"),
        ("Masked-token loss", "" if loss is None else f"{loss:.3f}", "" if loss is None else f"perplexity {math.exp(min(loss, 700)):.4g}"),
        ("Tokens read", _short(tokens), f"in {_whole(_number(values, 'steps'))} steps"),
        ("Speed", _short(_number(values, "real_tokens_per_second")), "real tokens per second"),
    ]


def _finetune_figures(values: Json) -> list[Figure]:
    accuracy, scratch = _number(values, "accuracy"), _number(values, "from_scratch_accuracy")
    gain = "" if accuracy is None or scratch is None else f"{100 * (accuracy - scratch):+.1f} points by pre-training"
    return [
        ("Test accuracy", _percent(accuracy), gain),
        ("Test accuracy from scratch", _percent(scratch), "the same training from random parameters"),
        ("Macro F1", _percent(_number(values, "macro_f1")), "mean over the classes that occur"),
        ("Labelled examples", _whole(_number(values, "train_examples")), f"tested on {_whole(_number(values, 'test_examples'))}"),
    ]


def _figures(figures: Sequence[Figure]) -> str:
    cards = [
        f'<div class="figure"><dt>{name}</dt><dd>{value}</dd><p>{escape(beside)}</p></div>\n' for name, value, beside in figures if value
    ]
    return f'<dl class="figures">\n{"".join(cards)}</dl>\n' if cards else ""


# --- Examples ---


def _probability(value: Any) -> float:
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _guess(name: str, probability: Any) -> str:
    percent = f"{100 * _probability(probability):.1f}"
    return f'<li><b>{name}</b><span class="bar"><i style="width:{percent}%"></i></span><span class="share">{percent} %</span></li>'


def _verdict(right: bool | None) -> str:
    if right is None:
        return ""
    return ' <span class="right" title="as expected">✓</span>' if right else ' <span class="wrong" title="not as expected">✗</span>'


def _article(text: str, *lists: str) -> str:
    return f"<article><p>{text}</p>{''.join(f'<ol>{guesses}</ol>' for guesses in lists)}</article>\n"


def _panel(title: str, articles: Sequence[str]) -> str:
    return f'<h3>{title}</h3>\n<div class="examples">\n{"".join(articles)}</div>\n' if articles else ""


def _text(example: Json, key: str) -> str:
    return escape(str(example.get(key, "")))


def _fill_mask(examples: Lines) -> str:
    def article(values: Json) -> str:
        text = _text(values, "text").replace("[MASK]", "<mark>[MASK]</mark>")
        masks = values.get("masks") or []
        return _article(text, *("".join(_guess(_text(guess, "token"), guess.get("probability")) for guess in mask) for mask in masks))

    return _panel("Blanks filled in", [article(values) for values in examples])


def _next_sentence(examples: Lines) -> str:
    def article(values: Json) -> str:
        probability, expected = _probability(values.get("probability")), values.get("expected")
        follows = probability >= 0.5
        verdict = _verdict(None if expected is None else bool(expected) == follows)
        name, share = ("follows", probability) if follows else ("does not follow", 1 - probability)
        return _article(f"{_text(values, 'a')}<br>{_text(values, 'b')}", _guess(name + verdict, share))

    return _panel("Does the second sentence follow?", [article(values) for values in examples])


def _classify(examples: Lines) -> str:
    def article(values: Json) -> str:
        expected = values.get("expected")
        right = None if expected is None else str(expected) == str(values.get("label"))
        beside = f" (is {escape(str(expected))})" if right is False else ""
        return _article(_text(values, "text"), _guess(_text(values, "label") + beside + _verdict(right), values.get("probability")))

    return _panel("Texts classified", [article(values) for values in examples])


# --- Curves ---


def _points(lines: Lines, split: str, metric: str) -> list[tuple[float, float]]:
    found = {line["step"]: line[metric] for line in lines if line.get("split") == split and isinstance(line.get(metric), int | float)}
    return sorted((float(step), float(value)) for step, value in found.items())


def _splits(lines: Lines, metric: str) -> list[Series]:
    return [Series("training", _points(lines, "train", metric)), Series("held out", _points(lines, "valid", metric), held_out=True)]


def _running(lines: Lines, metric: str, title: str, percent: bool = False) -> Chart:
    return Chart(title, [Series("training", _points(lines, "train", metric))], percent, from_zero=True)


def _how_it_ran(lines: Lines) -> list[Chart]:
    return [
        _running(lines, "learning_rate", "Learning rate"),
        _running(lines, "gradient_norm", "Norm of the gradient"),
        _running(lines, "real_tokens_per_second", "Real tokens per second"),
        _running(lines, "padding", "Share of padding", percent=True),
        _running(lines, "data_wait", "Share of time spent waiting for data", percent=True),
    ]


def _charts(charts: Sequence[Chart]) -> str:
    drawn = "".join(map(draw, charts))
    return f'<div class="charts">\n{drawn}</div>\n' if drawn else ""


def _pretrain_charts(lines: Lines, summary: Json) -> str:
    floor = _number(summary, "mlm_accuracy_floor")
    return _charts(
        [
            Chart("Loss", _splits(lines, "loss")),
            Chart("Masked-token loss", _splits(lines, "mlm_loss")),
            Chart("Masked tokens found", _splits(lines, "mlm_accuracy"), True, None if floor is None else ("always the commonest", floor)),
            Chart("Next sentences recognised", _splits(lines, "nsp_accuracy"), True, ("chance", 0.5)),
            *_how_it_ran(lines),
        ]
    )


def _finetune_charts(pretrained: Lines, scratch: Lines) -> str:
    def both(metric: str) -> list[Series]:
        if not scratch:
            return _splits(pretrained, metric)
        return [
            Series("pre-trained, training", _points(pretrained, "train", metric)),
            Series("pre-trained, held out", _points(pretrained, "valid", metric), held_out=True),
            Series("from scratch, training", _points(scratch, "train", metric), "scratch"),
            Series("from scratch, held out", _points(scratch, "valid", metric), "scratch", held_out=True),
        ]

    return _charts([Chart("Accuracy", both("accuracy"), True), Chart("Loss", both("loss")), *_how_it_ran(pretrained)])


# --- Tables ---


def _confusion(summary: Json) -> str:
    rows = summary.get("confusion") or []
    labels = [str(label) for label in summary.get("labels") or range(len(rows))]
    if len(rows) > FEW_CLASSES:  # as earlier versions stored it
        return _largest_confusions(confusions_of_matrix(np.array(rows, np.int64), labels), len(labels))
    if not rows:
        return _largest_confusions(summary.get("largest_confusions") or [], len(labels))

    def cell(value: float, total: float, diagonal: bool) -> str:
        share = value / total if total else 0.0
        kind = "hit" if diagonal else "miss"
        return f'<td class="{kind}" style="--share:{100 * share:.1f}%">{_whole(value)}<small>{100 * share:.1f} %</small></td>'

    head = "".join(f"<th scope='col'>{escape(label)}</th>" for label in labels)
    body = "".join(
        f"<tr><th scope='row'>{escape(label)}</th>{''.join(cell(value, sum(row), i == j) for j, value in enumerate(row))}</tr>\n"
        for i, (label, row) in enumerate(zip(labels, rows, strict=False))
    )
    return (
        '<h3>Confusion matrix</h3>\n<div class="wide"><table class="confusion">'
        "<caption>Rows: the true class. Columns: the predicted one.</caption>"
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _largest_confusions(confusions: Lines, classes: int) -> str:
    if not confusions:
        return ""

    def row(confusion: Json) -> str:
        count, of = _number(confusion, "count"), _number(confusion, "of")
        share = _percent(count / of if count is not None and of else None)
        return (
            f"<tr><th scope='row'>{_text(confusion, 'label')}</th><td>{_text(confusion, 'predicted')}</td>"
            f"<td>{_whole(count)}</td><td>{share}</td></tr>\n"
        )

    head = "".join(f"<th scope='col'>{name}</th>" for name in ("true class", "predicted", "texts", "share of the class"))
    return (
        f'<h3>Largest confusions of {_whole(classes)} classes</h3>\n<div class="wide"><table class="confusion">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(map(row, confusions))}</tbody></table></div>\n"
    )


def _configuration(config: Json) -> str:
    rows: list[str] = []

    def add(prefix: str, values: Json) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value)
            else:
                rows.append(f"<tr><td>{escape(prefix + name)}</td><td>{escape(json.dumps(value, ensure_ascii=False))}</td></tr>\n")

    add("", config)
    return f"<details><summary>All {len(rows)} values</summary><table>\n{''.join(rows)}</table></details>\n" if rows else ""
