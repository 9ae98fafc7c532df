"""Pairs, triples and scored pairs: reading them, and the texts that they are made of as examples of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bert_jax.data.labelled import LabelledExamples
from bert_jax.errors import InputError
from bert_jax.tasks.numbers import Numbers

if TYPE_CHECKING:
    from bert_jax.data.labelled import Parsed

EqualSides = Literal["refuse", "leave_out"]
ANCHOR, POSITIVE, NEGATIVE = range(3)
"""The roles of a text: the columns `text`, `text_pair` and `finetune.task.negative`."""


def same(text: str) -> str:
    """Return what texts that differ in whitespace only have in common."""
    return "".join(text.split())


class _Rows:
    """What a row must have; see `bert_jax.data.labelled.RowReader`."""

    _equal_sides: EqualSides
    _left_out = 0

    def accepts(self, texts: Sequence[str], value: Any, where: str) -> bool:
        """Return whether to use the row.

        Raises:
            InputError: there is one text only, or two texts are equal and rows with equal sides are refused.
        """
        if len(texts) < 2:
            raise InputError("Embeddings are trained on pairs: set finetune.data.text_pair to the column with the second text of each.")
        sides = [same(text) for text in (*texts, value) if isinstance(text, str)]
        if len(set(sides)) == len(sides):
            return True
        if self._equal_sides == "leave_out":
            self._left_out += 1
            return False
        raise InputError(
            f"{where} has the same text on two sides ({texts[0][:40]!r}), from which nothing can be learned. Remove the line, or set "
            "finetune.task.equal_sides=leave_out."
        )

    def notes(self) -> tuple[str, ...]:
        """Report rows that were left out."""
        count = self._left_out
        were = "rows with the same text on two sides were" if count > 1 else "row with the same text on two sides was"
        return (f"{count:,} {were} left out.",) if count else ()


class Pairs(_Rows):
    """Reads pairs, with a hard negative each if a column has them.

    Args:
        negative: the name of that column, or an empty string.
        equal_sides: what to do about pairs with equal sides.
    """

    several_targets = True
    """A pair may have several negatives."""

    def __init__(self, negative: str, equal_sides: EqualSides) -> None:
        self._negative, self._equal_sides = negative, equal_sides

    def columns(self) -> Mapping[str, str]:
        """Return the column of the negatives, if there is one, by the option that names it."""
        return {"finetune.task.negative": self._negative} if self._negative else {}

    def parse(self, values: Sequence[str], where: str) -> str | None:
        """Return the negative of a row, if there is a column.

        Raises:
            InputError: it is empty.
        """
        if values and not values[0].strip():
            raise InputError(f"{where} has empty text in column {self._negative!r}: fill it in or remove the line.")
        return values[0] if values else None

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the negatives of each split, str [n], or zeros, int8 [n]; and no label names.

        Raises:
            InputError: there is one pair.
        """
        for part in parsed.values():
            if len(part.values) < 2:
                raise InputError(
                    f"{part.source} has {len(part.values)} pair{'s' * (len(part.values) != 1)}, but each text is compared with those of "
                    "other pairs. Add pairs."
                )
        if self._negative:
            return {role: np.array(part.values, object) for role, part in parsed.items()}, ()
        return {role: np.zeros(len(part.values), np.int8) for role, part in parsed.items()}, ()

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample unchanged."""
        return kept, rest


class ScoredPairs(_Rows, Numbers):
    """Reads pairs with a number each: how similar the texts are.

    Args:
        column: the name of the column with the number.
        equal_sides: what to do about pairs with equal sides.
    """

    several_targets = False

    def __init__(self, column: str, equal_sides: EqualSides) -> None:
        super().__init__(column)
        self._equal_sides = equal_sides


def single_texts(examples: LabelledExamples) -> tuple[LabelledExamples, int]:
    """Return every text of n pairs as an example of its own, k consecutive ones per pair, and k: 2, or 3 if there are negatives.

    Their targets are int32 [n * k, 4]: the number of the pair; the role of the text; the identity of the text, equal for equal texts; and
    the identity of the pair's positive or, for a scored pair, the rank of its score.

    Raises:
        InputError: there are negatives, which are read as texts, but the pairs are of another modality.
    """
    assert examples.pairs is not None and examples.pair_identities is not None
    columns, identities = [examples.texts, examples.pairs], [examples.identities, examples.pair_identities]
    if examples.targets.dtype == object:
        if not isinstance(examples.texts[0], str):
            raise InputError("Negatives are supported only for text, and these pairs are not text: leave finetune.task.negative empty.")
        columns.append(examples.targets.tolist())
        identities.append(examples.targets.tolist())
    known: dict[str, int] = {}
    texts = np.array([[known.setdefault(same(text), len(known)) for text in column] for column in identities], np.int32).T
    count, together = texts.shape
    of_pair = np.unique(examples.targets, return_inverse=True)[1] if examples.targets.dtype == np.float32 else texts[:, POSITIVE]
    pairs, roles = np.indices((count, together), np.int32)
    targets = np.stack([pairs, roles, texts, np.broadcast_to(of_pair[:, None], texts.shape)], -1).astype(np.int32)
    rows = [text for row in zip(*columns, strict=True) for text in row]
    return LabelledExamples(rows, None, targets.reshape(-1, 4), examples.lines.repeat(together)), together
