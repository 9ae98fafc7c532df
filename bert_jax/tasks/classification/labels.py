"""Reads classes from the label column of a table, keeps every class when sampling, and reports classes without examples."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from bert_jax.data.labelled import Parsed
from bert_jax.errors import InputError

_MAX_LISTED = 20
"""Maximum number of classes that a message lists."""
_MIN_EXAMPLES = 20
"""With more examples than this, warn if the number of labels exceeds half the number of examples."""
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True)
class ClassLabels:
    """Reads classes from a column; see `bert_jax.data.labelled.LabelReader`.

    Args:
        column: the name of the column.
        names: the class names, in order; if empty, the labels of the training table, sorted.
    """

    column: str
    names: tuple[str, ...] = ()

    def columns(self) -> Mapping[str, str]:
        """Return the label column, by the option that names it."""
        return {"finetune.task.label": self.column}

    def parse(self, values: Sequence[str], where: str) -> str:
        """Return the label of a row, without surrounding whitespace.

        Raises:
            InputError: the label is empty.
        """
        label = values[0].strip()
        if not label:
            raise InputError(f"{where} has no label in the column {self.column!r}: fill it in or remove the line.")
        return label

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the class of each example, int32 [n], and the class names.

        Raises:
            InputError: a label is unknown, a label has two spellings, or all examples have the same label.
        """
        train = parsed["train"]
        names = self.names or class_names(train.values, train.lines, train.source)
        if len(names) < 2:
            raise InputError(
                f"Every example of {train.source} has the label {names[0]!r}: there is nothing to learn. Check finetune.task.label."
            )
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
        """Adjust a sample so that it has at least one example of every class, if its size allows it."""
        return keep_every_class(kept, rest, targets)


def class_names(labels: Sequence[str], lines: Sequence[int], source: str) -> tuple[str, ...]:
    """Return the distinct labels of a file, sorted.

    Args:
        labels: the label of each example.
        lines: the line number of each example.
        source: the name of the file.

    Raises:
        InputError: two labels are the same number, or differ only in whitespace, invisible characters or Unicode normalization.
    """
    first: dict[str, int] = {}
    for label, line in zip(labels, lines, strict=True):
        first.setdefault(label, line)
    seen: dict[str | Decimal, str] = {}
    for label, line in first.items():
        other = seen.setdefault(_normalized(label), label)
        if other != label:
            raise InputError(
                f"{source} spells a label in two ways: {_quoted(other)} in line {first[other]:,} and {_quoted(label)} in line {line:,}. "
                "Write one of them throughout, or name all labels in finetune.task.labels if they are two classes."
            )
    return tuple(sorted(first))


def _normalized(label: str) -> str | Decimal:
    if _NUMBER.fullmatch(label):
        return Decimal(label)
    visible = "".join(character for character in unicodedata.normalize("NFC", label) if unicodedata.category(character) != "Cf")
    return " ".join(visible.split())


def _quoted(label: str) -> str:
    return repr(label) if label.isascii() else ascii(label)


def listed(names: Sequence[str]) -> str:
    """Format names for a message, abbreviating long lists."""
    return ", ".join(map(repr, names[:_MAX_LISTED])) + f" and {len(names) - _MAX_LISTED:,} more" * (len(names) > _MAX_LISTED)


def keep_every_class(kept: np.ndarray, rest: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adjust a sample of examples so that it includes every class.

    Each class that occurs only in `rest` gets one example in `kept`, swapped with the last example of `kept` whose class has others
    there, as long as there is one. A sample that already includes every class is returned unchanged.

    Args:
        kept: int64 [k], indices of the sampled examples.
        rest: int64 [r], indices of the other examples.
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
    """Return remarks about the classes, as sentences.

    Args:
        names: the names of the C classes.
        counts: for `train` and `test`, the number of examples of each class, int64 [C].
    """
    sentences = []
    by_case: dict[str, list[str]] = {}
    for name in names:
        by_case.setdefault(name.casefold(), []).append(name)
    if same := next((alike for alike in by_case.values() if len(alike) > 1), None):
        sentences.append(f"the labels {listed(same)} differ only in case but are treated as different classes.")
    examples, kinds = int(counts["train"].sum()), int(np.count_nonzero(counts["train"]))
    if examples > _MIN_EXAMPLES and 2 * kinds > examples:
        sentences.append(
            f"{examples:,} training examples have {kinds:,} labels; finetune.task.label may name a column that does not contain classes."
        )
    if missing := absent(names, counts["train"]):
        sentences.append(
            f"{_share(missing, names)} no training example, so the classifier cannot learn to predict them: {listed(missing)}."
        )
    if missing := absent(names, counts["test"]):
        sentences.append(f"{_share(missing, names)} no test example, so the scores say nothing about them: {listed(missing)}.")
    return tuple(sentences)


def class_counts(targets: np.ndarray, classes: int) -> np.ndarray:
    """Return the number of examples of each class, int64 [C]."""
    return np.bincount(targets, minlength=classes)


def absent(names: Sequence[str], counts: np.ndarray) -> list[str]:
    """Return the classes without an example; `counts`, int [C], is the number of examples of each class."""
    return [name for name, count in zip(names, counts.tolist(), strict=True) if not count]


def _share(part: Sequence[str], all_names: Sequence[str]) -> str:
    return f"{len(part):,} of the {len(all_names):,} classes {'has' if len(part) == 1 else 'have'}"
