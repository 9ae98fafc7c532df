"""The results of a task as plain values, which the report renders and the terminal prints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bert_jax.data.nouns import Nouns

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A named result: its formatted value (empty if it was not measured) and a note to compare it with (`comparison`)."""

    name: str
    value: str
    comparison: str = ""


@dataclass(frozen=True)
class Curve:
    """A metric over the training steps, on training and held-out data, with an optional named baseline (`level`)."""

    title: str
    metric: str
    percent: bool = False
    level: tuple[str, float] | None = None


@dataclass(frozen=True)
class Guess:
    """An answer and its probability; `correct` is None if the true answer is not known, and `note` is an optional remark.

    `value` is what to show instead of the percentage, if the number is no probability, such as a cosine.
    """

    name: str
    probability: float
    correct: bool | None = None
    note: str = ""
    value: str = ""


class Mark(NamedTuple):
    """A labeled part of a text, from `start` to `end` (exclusive); `correct` is None if it is not a prediction."""

    start: int
    end: int
    label: str
    correct: bool | None = None


class Marked(NamedTuple):
    """A text with marks, which do not overlap and are in order, and an optional remark before it."""

    text: str
    marks: Sequence[Mark]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """One or more texts, or pictures, and the model's answers: a list of guesses for each question."""

    texts: Sequence[str | Marked]
    guesses: Sequence[Sequence[Guess]] = ()
    pictures: Sequence[str] = ()
    """Data URIs of PNG images."""
    captions: Sequence[str] = ()
    """A caption for each picture; none if there are no captions."""


@dataclass(frozen=True)
class Panel:
    """A titled group of examples of the same kind."""

    title: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Table:
    """A table of strings with column names; the first cell of each row is its name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: counts [C, C] with true classes as rows and predicted classes as columns."""

    title: str
    caption: str
    names: Sequence[str]
    counts: Sequence[Sequence[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Scatter:
    """Points (x, y) and the titles of both axes, with a diagonal on which x and y are equal, unless their units differ."""

    title: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]
    diagonal: bool = True


@dataclass(frozen=True)
class Bars:
    """Named fractions from 0 to 1."""

    title: str
    bars: Sequence[tuple[str, float]]


Shown = Table | Matrix | Scatter | Bars
"""What is shown below the curves of a stage."""


def nouns(values: Json) -> Nouns:
    """Return what the inputs are called in results or examples, which earlier versions do not say: they are texts."""
    found = values.get("nouns")
    return Nouns(**{name: str(found[name]) for name in Nouns._fields if name in found}) if isinstance(found, Mapping) else Nouns()


def number(values: Json, key: str) -> float | None:
    """Return `values[key]` as a float, or None if it is missing or not a finite number."""
    value = values.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def probability(value: Any) -> float:
    """Return a value clipped to [0, 1]; 0 if it is not a finite number."""
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def percent(value: float | None) -> str:
    """Format a fraction as `79.8%`; None becomes an empty string."""
    return "" if value is None else f"{100 * value:.1f}%"


def integer(value: float | None) -> str:
    """Format a number as `1,200`; None becomes an empty string."""
    return "" if value is None else f"{value:,.0f}"


def rates(title: str, name: str, unit: str, rows: Any) -> list[Shown]:
    """Return the F1 of classes, types or the like as bars, and a table with their precision and recall; nothing without rows.

    Args:
        title: the title of the table.
        name: what a row is about, and its key in the row.
        unit: what its precision and recall are of, in the plural, and the key of their number.
        rows: mappings with these keys and `precision`, `recall` and `f1`; anything else is left out.
    """
    rows = [row for row in rows or () if isinstance(row, Mapping)]
    if not rows:
        return []
    numbers = ("precision", "recall", "f1")
    cells = [(str(row[name]), *(percent(number(row, rate)) for rate in numbers), integer(number(row, unit))) for row in rows]
    bars = sorted(((str(row[name]), probability(row["f1"])) for row in rows), key=lambda bar: -bar[1])
    return [Bars(f"F1 of each {name}", bars), Table(title, (name, "precision", "recall", "F1", f"test {unit}"), cells)]


def shortened(text: str, length: int = 60) -> str:
    """Truncate a text to at most `length` characters, for a line of the terminal."""
    text = text.replace("\u200b", "")
    return text if len(text) <= length else text[: length - 1] + "…"
