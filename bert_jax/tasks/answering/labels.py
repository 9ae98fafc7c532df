"""The answers of questions as the targets of training and scoring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bert_jax.data.tables import Row
from bert_jax.errors import InputError
from bert_jax.tasks.answering.files import NOWHERE, Asked, Columns, Faults, QuestionFiles
from bert_jax.tasks.answering.options import AnsweringOptions

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.labelled import Parsed


def read_asked(source: str, columns: Mapping[str, str], split: str, options: AnsweringOptions) -> Iterator[Row]:
    """Yield each question, its passage, and (`Asked`, `Faults`): the question with its answers, and what was wrong with the file.

    Raises:
        InputError: no column of passages is configured; see also `QuestionFiles.read`.
    """
    if len(columns) < 3:
        raise InputError(
            "The task answer needs a passage for each question: set --config.finetune.data.text_pair to their column, such as passage."
        )
    question, passage, answers = columns.values()
    faults = Faults()
    files = QuestionFiles(Columns(question, passage, answers), options.misplaced, split == "train", faults)
    for asked in files.read(source, split):
        yield Row(asked.line, (asked.question, asked.passage, (asked, faults)))


class AnswerReader:
    """Reads the answers of questions; see `bert_jax.data.labelled.LabelReader`."""

    def __init__(self, options: AnsweringOptions) -> None:
        self._options = options
        self._notes: list[str] = []

    def columns(self) -> Mapping[str, str]:
        """Return the column of the answers, by the option that names it."""
        return {"finetune.task.answers": self._options.answers}

    def parse(self, values: Sequence[Any], where: str) -> tuple[Asked, Faults]:
        """Return a question with its answers, and what was wrong with its file.

        Raises:
            InputError: the row was not read as a question.
        """
        if not isinstance(values[0], tuple):
            raise InputError(f"{where} has no question with a passage: name a file of questions in finetune.data.train.")
        asked, faults = values[0]
        return asked, faults

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return the answers of each question, an array of tuples of `TrueAnswer`, and no label names.

        Raises:
            InputError: no training question has an answer.
        """
        import numpy as np

        train = parsed["train"]
        if not any(answer.start != NOWHERE for asked, _ in train.values for answer in asked.answers):
            raise InputError(
                f"No question of {train.source} has an answer in its passage: there is nothing to learn. Check finetune.task.answers."
            )
        targets = {}
        for role, part in parsed.items():
            targets[role] = np.empty(len(part.values), object)
            for row, (asked, _) in enumerate(part.values):
                targets[role][row] = asked.answers
            self._notes += part.values[0][1].remarks(part.source)
        return targets, ()

    def learnable(self, targets: np.ndarray) -> np.ndarray:
        """Return which questions have an answer in their passage or none at all, bool [n]."""
        import numpy as np

        return np.array([not answers or any(start != NOWHERE for _, start in answers) for answers in targets], np.bool_)

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample unchanged."""
        return kept, rest

    def notes(self) -> tuple[str, ...]:
        """Report what was wrong with the answers."""
        return tuple(self._notes)
