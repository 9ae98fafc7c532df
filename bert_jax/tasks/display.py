"""What is shown of a task, as values that the report draws and the terminal prints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A number: what it is, its value (empty where it was not measured), and what to compare it with."""

    name: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Curve:
    """A metric over the steps of training, on the training batches and held out, and perhaps a level to compare it with."""

    title: str
    metric: str
    percent: bool = False
    level: tuple[str, float] | None = None


@dataclass(frozen=True)
class Guess:
    """An answer with its probability; `correct` where the truth is known, and a `note` to it."""

    name: str
    probability: float
    correct: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A text, or several, and what the model made of it: a list of guesses for each thing that was asked."""

    texts: Sequence[str]
    guesses: Sequence[Sequence[Guess]]


@dataclass(frozen=True)
class Panel:
    """Examples of one kind."""

    title: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Table:
    """Rows of text under the names of their columns; the first cell names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Matrix:
    """Counts [C, C] of what was predicted (columns) for what is true (rows)."""

    title: str
    caption: str
    names: Sequence[str]
    counts: Sequence[Sequence[float]] = field(default_factory=list)


def number(values: Json, key: str) -> float | None:
    """A finite number, if there is one."""
    value = values.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def probability(value: Any) -> float:
    """A number between 0 and 1; 0 for what is none."""
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def percent(value: float | None) -> str:
    """`79.8 %`, or nothing."""
    return "" if value is None else f"{100 * value:.1f} %"


def integer(value: float | None) -> str:
    """`1 200` with a narrow space, or nothing."""
    return "" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def shortened(text: str, length: int = 60) -> str:
    """The beginning of a text, for a line of a terminal."""
    text = text.replace("\u200b", "")
    return text if len(text) <= length else text[: length - 1] + "…"
