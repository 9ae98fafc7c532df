"""Renders what tasks display (`bert_jax.tasks.display`) as HTML."""

import itertools
from collections.abc import Mapping, Sequence
from html import escape

from bert_jax.data.nouns import Nouns
from bert_jax.report import svg
from bert_jax.report.svg import Chart, Series
from bert_jax.tasks.display import Bars, Curve, Example, Figure, Guess, Json, Marked, Matrix, Panel, Scatter, Shown, Table, integer

Lines = Sequence[Json]

_COLORS = 6
"""Colors of marks in the style sheet."""


def figures(shown: Sequence[Figure]) -> str:
    """Return a card for each figure that has a value."""
    cards = [
        f'<div class="figure"><dt>{escape(figure.name)}</dt><dd>{escape(figure.value)}</dd><p>{escape(figure.comparison)}</p></div>\n'
        for figure in shown
        if figure.value
    ]
    return f'<dl class="figures">\n{"".join(cards)}</dl>\n' if cards else ""


def panel(shown: Panel) -> str:
    """Return the examples of a panel under its title. Marks with the same label have the same color."""
    texts = [text for example in shown.examples for text in example.texts if isinstance(text, Marked)]
    labels = sorted({mark.label for text in texts for mark in text.marks})
    colors = {label: f"color{index % _COLORS}" for index, label in enumerate(labels)}
    articles = "".join(_article(example, colors) for example in shown.examples)
    return f'<h3>{escape(shown.title)}</h3>\n<div class="examples">\n{articles}</div>\n' if articles else ""


def _article(example: Example, colors: Mapping[str, str]) -> str:
    text = "<br>".join(
        _marked(text, colors) if isinstance(text, Marked) else escape(text).replace("[MASK]", "<mark>[MASK]</mark>")
        for text in example.texts
    )
    lists = "".join(f"<ol>{''.join(_guess(guess) for guess in guesses)}</ol>" for guesses in example.guesses)
    return f"<article><p>{text}</p>{_pictures(example)}{lists}</article>\n"


def _marked(shown: Marked, colors: Mapping[str, str]) -> str:
    parts, place = [f"<small>{escape(shown.note)}:</small> "] if shown.note else [], 0
    for mark in shown.marks:
        inside = escape(shown.text[mark.start : mark.end])
        label = f"<small>{escape(mark.label)}</small>" if mark.label else ""
        parts += [escape(shown.text[place : mark.start]), f'<mark class="{colors[mark.label]}">{inside}{label}</mark>']
        parts += [_verdict(False)] if mark.correct is False else []
        place = mark.end
    return "".join(parts) + escape(shown.text[place:])


def _pictures(example: Example) -> str:
    shown = itertools.zip_longest(example.pictures, example.captions, fillvalue="")
    figures = "".join(
        f'<figure><img src="{escape(source)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for source, caption in shown
        if source.startswith("data:image/png;base64,")
    )
    return f'<div class="pictures">{figures}</div>' if figures else ""


def _guess(guess: Guess) -> str:
    share = f"{100 * guess.probability:.1f}"
    name = escape(guess.name + guess.note) + _verdict(guess.correct)
    value = escape(guess.value) or f"{share}%"
    return f'<li><b>{name}</b><span class="bar"><i style="width:{share}%"></i></span><span class="share">{value}</span></li>'


def _verdict(correct: bool | None) -> str:
    if correct is None:
        return ""
    return ' <span class="right" title="as expected">✓</span>' if correct else ' <span class="wrong" title="not as expected">✗</span>'


def charts(curves: Sequence[Curve], lines: Lines, scratch: Lines = (), nouns: Nouns = Nouns()) -> str:  # noqa: B008  # immutable
    """Return the charts of a stage: its curves, compared with training from scratch if available, and the course of training."""
    shown = [Chart(curve.title, _series(lines, scratch, curve.metric), curve.percent, curve.level) for curve in curves]
    shown += [
        _training_chart(lines, "learning_rate", "Learning rate"),
        _training_chart(lines, "gradient_norm", "Gradient norm"),
        _training_chart(lines, "real_tokens_per_second", f"Real {nouns.token}s/s"),
        _training_chart(lines, "padding", "Padding", percent=True),
        _training_chart(lines, "data_wait", "Time spent waiting for data", percent=True),
    ]
    drawn = "".join(map(svg.draw, shown))
    return f'<div class="charts">\n{drawn}</div>\n' if drawn else ""


def _series(lines: Lines, scratch: Lines, metric: str) -> list[Series]:
    if not scratch:
        return [Series("training", _points(lines, "train", metric)), Series("held out", _points(lines, "valid", metric), held_out=True)]
    return [
        Series("pre-trained, training", _points(lines, "train", metric)),
        Series("pre-trained, held out", _points(lines, "valid", metric), held_out=True),
        Series("from scratch, training", _points(scratch, "train", metric), "scratch"),
        Series("from scratch, held out", _points(scratch, "valid", metric), "scratch", held_out=True),
    ]


def _points(lines: Lines, split: str, metric: str) -> list[tuple[float, float]]:
    found = {line["step"]: line[metric] for line in lines if line.get("split") == split and isinstance(line.get(metric), int | float)}
    return sorted((float(step), float(value)) for step, value in found.items())


def _training_chart(lines: Lines, metric: str, title: str, percent: bool = False) -> Chart:
    return Chart(title, [Series("training", _points(lines, "train", metric))], percent, from_zero=True)


def table(shown: Shown) -> str:
    """Return a table, a matrix whose cells also show their percentage of the row, a chart of points, or bars."""
    if isinstance(shown, Scatter):
        chart = svg.scatter(shown.title, shown.x, shown.y, shown.points, shown.diagonal)
        return f'<h3>{escape(shown.title)}</h3>\n<div class="charts">{chart}</div>\n'
    if isinstance(shown, Bars):
        rows = "".join(_guess(Guess(name, share)) for name, share in shown.bars)
        return f'<h3>{escape(shown.title)}</h3>\n<div class="examples"><article><ol>{rows}</ol></article></div>\n'
    return _matrix(shown) if isinstance(shown, Matrix) else _table(shown)


def _matrix(shown: Matrix) -> str:
    def cell(value: float, total: float, diagonal: bool) -> str:
        share = value / total if total else 0.0
        kind = "hit" if diagonal else "miss"
        return f'<td class="{kind}" style="--share:{100 * share:.1f}%">{integer(value)}<small>{100 * share:.1f}%</small></td>'

    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in shown.names)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(cell(value, sum(row), i == j) for j, value in enumerate(row))}</tr>\n"
        for i, (name, row) in enumerate(zip(shown.names, shown.counts, strict=False))
    )
    return (
        f'<h3>{escape(shown.title)}</h3>\n<div class="wide"><table class="confusion">'
        f"<caption>{escape(shown.caption)}</caption>"
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _table(shown: Table) -> str:
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in shown.columns)
    rows = (
        f"<tr><th scope='row'>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>\n"
        for first, *rest in shown.rows
    )
    return (
        f'<h3>{escape(shown.title)}</h3>\n<div class="wide"><table class="confusion">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>\n"
    )
