"""The classes of labelled text: labels that are one class in two spellings, draws that keep every class, classes without examples."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from bert_jax.errors import InputError

_NAMED = 20
"""Classes that a message names at most."""
_ENOUGH = 20
"""Examples above which half as many labels are a reason to ask whether they are classes."""
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


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
                "Write one of them throughout, or name all labels in finetune.data.labels if they are two classes."
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
        found.append(f"{examples:,} training examples have {kinds:,} labels; finetune.data.label may name a column that holds no classes.")
    if missing := absent(names, counts["train"]):
        found.append(f"{_of(missing, names)} no training example, so the classifier cannot learn to answer them: {listed(missing)}.")
    if missing := absent(names, counts["test"]):
        found.append(f"{_of(missing, names)} no test example, so the figures say nothing of them: {listed(missing)}.")
    return tuple(found)


def absent(names: Sequence[str], counts: np.ndarray) -> list[str]:
    """The classes without an example."""
    return [name for name, count in zip(names, counts.tolist(), strict=True) if not count]


def _of(part: Sequence[str], whole: Sequence[str]) -> str:
    return f"{len(part):,} of the {len(whole):,} classes {'has' if len(part) == 1 else 'have'}"
