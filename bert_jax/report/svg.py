"""Line charts as SVG: downsampled, with round tick values, and colored by the style sheet of the page that contains them.

`picture` returns a file of its own instead, with its colors and a legend in it.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 40
MOST_POINTS = 160

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (step, value) in order of steps.

    `run` selects the color: on a page, one of the first two. Held-out metrics are drawn with thick lines and a marker at each measurement,
    training metrics with thin lines.
    """

    name: str
    points: Sequence[Point]
    run: Literal["pretrained", "scratch", "third", "fourth"] = "pretrained"
    held_out: bool = False


@dataclass(frozen=True)
class Chart:
    """Series on the same axes, and optionally a horizontal reference line, as its name and value."""

    title: str
    series: Sequence[Series]
    percent: bool = False
    level: tuple[str, float] | None = None
    from_zero: bool = False


@dataclass(frozen=True)
class _Axis:
    """An axis, which maps values to pixels, linearly or by their logarithms, and its tick values."""

    ticks: tuple[float, ...]
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, at, high = map(math.log if self.logarithmic else float, (self.low, value, self.high))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)


def draw(chart: Chart) -> str:
    """Return a `<figure>` with title, legend and SVG, or an empty string if no series has points. All names are escaped."""
    thinned = [(series, thin(series.points)) for series in chart.series if series.points]
    if not thinned:
        return ""
    steps = [step for series, _ in thinned for step in (series.points[0][0], series.points[-1][0])]
    values = [value for _, points in thinned for _, _, low, high in points for value in (low, high)]
    values += [chart.level[1]] if chart.level else []
    values += [0.0] if chart.from_zero else []
    x = _steps_axis(min(steps), max(steps))
    y = _values_axis(min(values), max(values))
    marks = [_line(series, points, x, y) for series, points in thinned]
    data = [[series.name, series.run, [[x(step), y(mean), step, mean] for step, mean, _, _ in points]] for series, points in thinned]
    last = ", ".join(f"{series.name} {_label(points[-1][1], chart.percent)}" for series, points in thinned)
    return f"""<figure class="chart" data-percent="{str(chart.percent).lower()}" data-series="{escape(json.dumps(data))}">
<figcaption>{escape(chart.title)}</figcaption>
<div class="legend">{_legend(chart)}</div>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{chart.title}; last: {last}")}">
{_grid(x, y, chart.percent)}
{_level(chart, y)}{"".join(marks)}
<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>
</svg>
</figure>
"""


def picture(chart: Chart, x_title: str) -> str:
    """Return an SVG file with title, legend and a logarithmic x axis, whose ticks are the places of the points. All names are escaped."""
    shown = [series for series in chart.series if series.points]
    places = sorted({place for series in shown for place, _ in series.points})
    values = [value for series in shown for _, value in series.points]
    x = _Axis(tuple(places), places[0] / _MARGIN, places[-1] * _MARGIN, LEFT, WIDTH - RIGHT, logarithmic=True)
    y = _values_axis(min(values), max(values))
    lines = "".join(_line(series, thin(series.points), x, y) for series in shown)
    names, left = [], 0.0
    for series in shown:
        style = f"line {series.run} held-out"
        names.append(
            f'<line class="{style}" x1="{left}" x2="{left + 18}" y1="-4" y2="-4"/><text x="{left + 24}">{escape(series.name)}</text>'
        )
        left += 44 + _LETTER * len(series.name)
    height = HEIGHT + _HEAD
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">
<style>{_STYLE}</style>
<title>{escape(chart.title)}</title>
<text class="title" x="{LEFT}" y="16">{escape(chart.title)}</text>
<g class="names" transform="translate({LEFT} 36)">{"".join(names)}</g>
<g transform="translate(0 {_HEAD})">
{_grid(x, y, chart.percent, x_title)}
{lines}
</g>
</svg>
"""


_MARGIN, _HEAD, _LETTER = 1.2, 44, 7
"""Of a picture: the space before and after the points as a factor, the height of title and legend, and the width of a letter of it."""
_STYLE = """
svg { --ink: #1b1f27; --muted: #5b6472; --line: #dde1e8; --axis: #6b7280; font: 13px system-ui, sans-serif; }
.pretrained { --series: #2257d6; } .scratch { --series: #b8500a; } .third { --series: #0f8a4b; } .fourth { --series: #a13bd1; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e7eaf0; --muted: #9aa4b4; --line: #313845; --axis: #9aa4b4; }
  .pretrained { --series: #82aaff; } .scratch { --series: #ffa657; } .third { --series: #58d68d; } .fourth { --series: #d59bf0; }
}
text { fill: var(--muted); } .title { fill: var(--ink); font-weight: 600; } .tick { font-size: 11.5px; }
.grid { stroke: var(--line); } .axis { stroke: var(--axis); } .mark { fill: var(--series); }
.line { fill: none; stroke: var(--series); stroke-width: 2.25; stroke-linejoin: round; }
"""


def scatter(title: str, x_title: str, y_title: str, points: Sequence[Point], diagonal: bool = True) -> str:
    """Return a `<figure>` with points, on axes of the same range with the diagonal, or on axes of their own. All names are escaped."""
    xs, ys = zip(*points, strict=True)
    both = (*xs, *ys)
    y = _values_axis(min(both if diagonal else ys), max(both if diagonal else ys))
    x = dataclasses.replace(y if diagonal else _values_axis(min(xs), max(xs)), start=LEFT, end=WIDTH - RIGHT)
    line = f'<line class="level" x1="{x(x.low)}" x2="{x(x.high)}" y1="{y(y.low)}" y2="{y(y.high)}"/>'
    marks = "".join(f'<circle class="point" cx="{x(a)}" cy="{y(b)}" r="2.5"/>' for a, b in points)
    return f"""<figure class="points">
<figcaption>{escape(y_title)} against {escape(x_title)}</figcaption>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">
{_grid(x, y, False, x_title)}
{line * diagonal}{marks}
</svg>
</figure>
"""


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[tuple[float, float, float, float]]:
    """Downsample to at most `most` points (step, mean, lowest, highest), by grouping all but the first and last point equally."""
    if len(points) <= most:
        return [(step, value, value, value) for step, value in points]
    inner = points[1:-1]
    edges = [round(i * len(inner) / (most - 2)) for i in range(most - 1)]
    groups = [points[:1], *(inner[a:b] for a, b in itertools.pairwise(edges)), points[-1:]]
    thinned = []
    for group in groups:
        values = [value for _, value in group]
        thinned.append((sum(step for step, _ in group) / len(group), sum(values) / len(values), min(values), max(values)))
    return thinned


def ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    """Return at most `most` + 1 consecutive multiples of 1, 2 or 5 times a power of ten, which enclose `low` and `high`."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    # A range that begins and ends between ticks spans one more interval.
    step = next(size * power for size in (1, 2, 5, 10, 20) if math.ceil(high / (size * power)) - math.floor(low / (size * power)) <= most)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return tuple(round(i * step, digits) for i in range(math.floor(low / step), math.ceil(high / step) + 1))


def _values_axis(low: float, high: float) -> _Axis:
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        margin = abs(high) / 10 or 1.0
        low, high = low - margin, high + margin
    marks = ticks(low, high, 5)
    return _Axis(marks, marks[0], marks[-1], HEIGHT - BOTTOM, TOP)


def _steps_axis(low: float, high: float) -> _Axis:
    """Return an axis from step 0 to the last step, even if there is no tick at the last step."""
    low, high = 0.0, max(high, low, 1.0)
    return _Axis(tuple(tick for tick in ticks(low, high, 6) if tick <= high and tick == int(tick)), low, high, LEFT, WIDTH - RIGHT)


def _grid(x: _Axis, y: _Axis, percent: bool, title: str = "step") -> str:
    bottom = HEIGHT - BOTTOM
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y(tick) + 4}" text-anchor="end">{label}</text>'
        for tick, label in zip(y.ticks, _labels(y.ticks, percent), strict=True)
    ]
    places = [f"{tick:,g}" for tick in x.ticks] if x.logarithmic else _labels(x.ticks, False)
    lines += [
        f'<line class="axis" x1="{x(tick)}" x2="{x(tick)}" y1="{bottom}" y2="{bottom + 4}"/>'
        f'<text class="tick" x="{x(tick)}" y="{bottom + 17}" text-anchor="middle">{label}</text>'
        for tick, label in zip(x.ticks, places, strict=True)
    ]
    lines += [
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>',
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 33}" text-anchor="middle">{escape(title)}</text>',
    ]
    return "\n".join(lines)


def _line(series: Series, points: Sequence[tuple[float, float, float, float]], x: _Axis, y: _Axis) -> str:
    style = f"{series.run} {'held-out' if series.held_out else 'train'}"
    parts = []
    if len(points) < len(series.points):
        upper = " ".join(f"{x(step)},{y(high)}" for step, _, _, high in points)
        lower = " ".join(f"{x(step)},{y(low)}" for step, _, low, _ in reversed(points))
        parts.append(f'<polygon class="band {style}" points="{upper} {lower}"/>')
    if len(points) > 1:
        parts.append(f'<polyline class="line {style}" points="{" ".join(f"{x(step)},{y(mean)}" for step, mean, _, _ in points)}"/>')
    if len(points) <= (40 if series.held_out else 10):
        parts += [f'<circle class="mark {style}" cx="{x(step)}" cy="{y(mean)}" r="3"/>' for step, mean, _, _ in points]
    return "".join(parts)


def _level(chart: Chart, y: _Axis) -> str:
    if not chart.level:
        return ""
    height = y(chart.level[1])
    return f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>'


def _legend(chart: Chart) -> str:
    named = [(f"{one.run} {'held-out' if one.held_out else 'train'}", one.name) for one in chart.series if one.points]
    named += [("level", f"{chart.level[0]}, {_label(chart.level[1], chart.percent)}")] if chart.level else []
    return "".join(f'<span><i class="{style}"></i>{escape(name)}</span>' for style, name in named) if len(named) > 1 else ""


def _labels(values: Sequence[float], percent: bool) -> list[str]:
    """Format tick values, all with the same unit and as many decimals as their spacing needs."""
    scale, unit = (0.01, "%") if percent else _unit(max(abs(value) for value in values))
    step = min((b - a for a, b in itertools.pairwise(values)), default=1.0) / scale
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value / scale:.{decimals}f}{unit}" if value or percent else "0" for value in values]


def _unit(largest: float) -> tuple[float, str]:
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= scale * (10 if unit == "k" else 1):
            return scale, unit
    if 0 < largest < 0.01:
        power = math.floor(math.log10(largest))
        return 10.0**power, f"e{power}"
    return 1.0, ""


def _label(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:.4g}"
