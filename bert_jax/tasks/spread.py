"""The scores of several fine-tuned models: their mean and standard deviation, and how they are displayed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax.tasks.display import Json, Table, number


def spread(scores: Sequence[str], results: Sequence[Json]) -> dict[str, Any]:
    """Return `mean`, `std` and `values` of each score over the results of two or more models, as JSON values.

    The standard deviation is that of a sample, with n - 1. Mean and standard deviation are None if a model lacks the score.
    """
    found = {}
    for score in scores:
        values = [number(result, score) for result in results]
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        mean, std = (statistics.fmean(known), statistics.stdev(known)) if whole else (None, None)
        found[score] = {"mean": mean, "std": std, "values": values}
    return found


def lines(result: Json) -> list[str]:
    """Return each score of a stage with its standard deviation, as lines for the terminal; none if there was one model."""
    known = [(name, one) for name, one in _scores(result) if one["mean"] is not None]
    column = max([18, *(len(name) for name, _ in known)]) + 2
    return [f"{name:{column}}{_number(one, 'mean')} ± {_number(one, 'std')} ({_count(result)})" for name, one in known]


def tables(result: Json) -> list[Table]:
    """Return a table of each score with its mean, its standard deviation, and its value of each model; none if there was one model."""
    if not (rows := _scores(result)):
        return []
    repeats = result["repeats"]
    columns = ("score", "mean", "standard deviation", *(f"{repeats['over'][:-1]} {name}" for name in repeats["names"]))
    cells = [
        (name, _number(one, "mean"), _number(one, "std"), *(_number({"value": value}, "value") for value in one["values"]))
        for name, one in rows
    ]
    return [Table(f"Scores of {_count(result)}", columns, cells)]


def _scores(result: Json) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name.replace("_", " "), one) for name, one in result.get("repeats", {}).get("scores", {}).items()]


def _count(result: Json) -> str:
    return f"{len(result['repeats']['names'])} {result['repeats']['over']}"


def _number(values: Json, name: str) -> str:
    value = number(values, name)
    return "" if value is None else f"{value:.3f}"
