"""Classes out of the label column of a table: their names, draws that keep every class, classes without examples."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from bert_jax.data.labelled import Parsed
from bert_jax.errors import InputError

_NAMED = 20
"""Classes that a message names at most."""
_ENOUGH = 20
"""Examples above which half as many labels are a reason to ask whether they are classes."""
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class ClassLabels:
    """Reads classes out of a column; see `bert_jax.data.labelled.LabelReader`.

    Args:
        column: its name.
        names: those of the classes, in their order; empty takes the labels of the training table, sorted.
    """

    column: str
    names: tuple[str, ...] = ()

    def columns(self) -> Mapping[str, str]:
        """The one column."""
        return {"finetune.task.label": self.column}

    def parse(self, values: Sequence[str], where: str) -> str:
        """The label of a row, without the white space around it.

        Raises:
            InputError: there is none.
        """
        label = values[0].strip()
        if not label:
            raise InputError(f"{where} has no label in the column {self.column!r}: fill it in or remove the line.")
        return label

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """The class of each example, int32 [n], and the names of the classes.

        Raises:
            InputError: an unknown label, a label in two spellings, or one label alone.
        """
        train = parsed["train"]
        names = self.names or class_names(train.values, train.lines, train.source)
        if len(names) < 2:
            raise InputError(f"Every example of {train.source} has the label {names[0]!r}, so nothing to learn: check finetune.task.label.")
        return {role: self._numbers(part, names, train.source) for role, part in parsed.items()}, names

    def _numbers(self, parsed: Parsed, names: Sequence[str], train: str) -> np.ndarray:
        index = {name: i for i, name in enumerate(names)}
        for line, label in zip(parsed.lines, parsed.values, strict=True):
            if label not in index:
                origin = "finetune.task.labels" if self.names else f"the labels of {train}"
                raise InputError(
                    f"{parsed.source} line {line} has the unknown label {label!r} in the column {self.column!r}; {origin} are "
                    f"{listed(names)}. Correct the line, or name all labels in finetune.task.labels."
                )
        return np.array([index[label] for label in parsed.values], np.int32)

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A draw with one example of every class at least, where so many allow it."""
        return keep_every_class(kept, rest, targets)


def class_names(labels: Sequence[str], lines: Sequence[int], source: str) -> tuple[str, ...]:
    """The distinct labels of a file, sorted.

    Args:
        labels: the label of each example.
        lines: the line of each example.
        source: the file.

    Raises:
        InputError: two labels are the same number, or differ only in white space, in characters that nobody sees or in how Unicode
            spells them.
    """
    first: dict[str, int] = {}
    for label, line in zip(labels, lines, strict=True):
        first.setdefault(label, line)
    seen: dict[str | Decimal, str] = {}
    for label, line in first.items():
        other = seen.setdefault(_meaning(label), label)
        if other != label:
            raise InputError(
                f"{source} spells a label in two ways: {_spelled(other)} in line {first[other]:,} and {_spelled(label)} in line {line:,}. "
                "Write one of them throughout, or name all labels in finetune.task.labels if they are two classes."
            )
    return tuple(sorted(first))


def _meaning(label: str) -> str | Decimal:
    if _NUMBER.fullmatch(label):
        return Decimal(label)
    visible = "".join(character for character in unicodedata.normalize("NFC", label) if unicodedata.category(character) != "Cf")
    return " ".join(visible.split())


def _spelled(label: str) -> str:
    return repr(label) if label.isascii() else ascii(label)


def listed(names: Sequence[str]) -> str:
    """The first of some names, for a message."""
    return ", ".join(map(repr, names[:_NAMED])) + f" and {len(names) - _NAMED:,} more" * (len(names) > _NAMED)


def keep_every_class(kept: np.ndarray, rest: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A draw of examples, repaired where it leaves a class without any.

    Examples of classes that are only in `rest` change places with the last ones of `kept` whose class has others there, as long as
    there are such. A draw that has every class stays as it is.

    Args:
        kept: int64 [k], indices of the examples that were drawn.
        rest: int64 [r], those of the others.
        labels: int32 [n], the class of each example.
    """
    kept, rest = kept.copy(), rest.copy()
    counts = np.bincount(labels[kept], minlength=labels.max() + 1)
    classes, first = np.unique(labels[rest], return_index=True)
    last = len(kept) - 1
    for place in first[counts[classes] == 0].tolist():
        while last >= 0 and counts[labels[kept[last]]] < 2:
            last -= 1
        if last < 0:
            break
        counts[labels[kept[last]]] -= 1
        kept[last], rest[place] = rest[place], kept[last]
        last -= 1
    return kept, rest


def remarks(names: Sequence[str], counts: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """What a person should know of the classes, in sentences.

    Args:
        names: those of the C classes.
        counts: of `train` and `test`, int64 [C], the examples of each class.
    """
    found = []
    by_case: dict[str, list[str]] = {}
    for name in names:
        by_case.setdefault(name.casefold(), []).append(name)
    if same := next((alike for alike in by_case.values() if len(alike) > 1), None):
        found.append(f"the labels {listed(same)} differ only in case and are classes of their own.")
    examples, kinds = int(counts["train"].sum()), int(np.count_nonzero(counts["train"]))
    if examples > _ENOUGH and 2 * kinds > examples:
        found.append(f"{examples:,} training examples have {kinds:,} labels; finetune.task.label may name a column that holds no classes.")
    if missing := absent(names, counts["train"]):
        found.append(f"{_of(missing, names)} no training example, so the classifier cannot learn to answer them: {listed(missing)}.")
    if missing := absent(names, counts["test"]):
        found.append(f"{_of(missing, names)} no test example, so the figures say nothing of them: {listed(missing)}.")
    return tuple(found)


def class_counts(targets: np.ndarray, classes: int) -> np.ndarray:
    """int64 [C]: the examples of each class."""
    return np.bincount(targets, minlength=classes)


def absent(names: Sequence[str], counts: np.ndarray) -> list[str]:
    """The classes without an example, of the number of each one's examples, int [C]."""
    return [name for name, count in zip(names, counts.tolist(), strict=True) if not count]


def _of(part: Sequence[str], whole: Sequence[str]) -> str:
    return f"{len(part):,} of the {len(whole):,} classes {'has' if len(part) == 1 else 'have'}"
