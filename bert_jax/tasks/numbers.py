"""Targets that are numbers, one per row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bert_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.labelled import Parsed


class Numbers:
    """Reads numbers from a column; see `bert_jax.data.labelled.LabelReader`.

    Args:
        column: the name of the column.
    """

    def __init__(self, column: str) -> None:
        self._column = column

    def columns(self) -> Mapping[str, str]:
        """Return the column, by the option that names it."""
        return {"finetune.task.target": self._column}

    def parse(self, values: Sequence[str], where: str) -> float:
        """Return the number of a row.

        Raises:
            InputError: it is missing, not a number, or not finite.
        """
        text = values[0].strip()
        try:
            # float() would accept digits of other scripts and underscores, which are more likely mistakes than numbers.
            value = float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or abs(value) > 1e30:
            problem = f"has {text!r}" if text else "has nothing"
            raise InputError(
                f"{where} {problem} in the column {self._column!r}, which must be a finite number: correct or remove the line."
            )
        return value

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the numbers, float32 [n], and no label names.

        Raises:
            InputError: all training examples have the same number.
        """
        import numpy as np

        train = parsed["train"]
        if len(set(train.values)) < 2:
            raise InputError(
                f"Every example of {train.source} has the number {train.values[0]:g}: there is nothing to learn. Check "
                "finetune.task.target."
            )
        return {role: np.array(part.values, np.float32) for role, part in parsed.items()}, ()

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample unchanged."""
        return kept, rest
