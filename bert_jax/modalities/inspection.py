"""What `inspect` is asked about a corpus and what it reports, for all modalities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from bert_jax.config import RowsConfig

BAR = 40
"""Width of the longest bar of a histogram."""


@dataclass(frozen=True)
class Asked:
    """What to inspect.

    Attributes:
        source: the corpus, as for `source` in a configuration, or a table.
        vocabulary: a directory with an existing vocabulary.
        rows: the training rows, to compute the steps per epoch.
        batch_size: rows per step.
        evaluation_files: evaluation data that should not be in the corpus.
        text: the column of a table that names files; "" is `text`.
        label: the column of a table or data set whose values are counted as classes; "" counts none.
        encoding_errors: how to handle invalid UTF-8.
        show_progress: whether to show a progress bar.
    """

    source: str
    vocabulary: Path | None = None
    rows: RowsConfig = field(default_factory=RowsConfig)
    batch_size: int = 256
    evaluation_files: Sequence[Path] = ()
    text: str = ""
    label: str = ""
    encoding_errors: Literal["strict", "replace"] = "strict"
    show_progress: bool = True


class Report(Protocol):
    """The result of `inspect`; `str()` formats it for people."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""


def share(part: int, whole: int) -> str:
    """Return a count with its share of the whole."""
    return f"{part:,} ({part / whole:.2%})" if part else "none"


def bars(counts: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Draw counts with their labels, one per line."""
    largest = max((count for _, count in counts), default=1)
    for label, count in counts:
        yield f"{label}  {count:>11,}  {'#' * round(BAR * count / largest)}".rstrip()
