"""Options of question answering."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config import TaskOptions
from bert_jax.config.checks import positive


@dataclass(frozen=True)
class AnsweringOptions(TaskOptions):
    """Options of extractive question answering: the answer to a question is a part of a passage, or there is none."""

    name: Literal["answering"] = field(default="answering", init=False)
    answers: str = "answers"
    """Name of the column of the answers, in a table; files in the layout of SQuAD have no columns."""
    misplaced: Literal["search", "refuse"] = "search"
    """What to do about an answer that is not at its offset: search for it nearby, or raise an error."""
    scoring: Literal["auto", "english", "chinese"] = "auto"
    """How answers are compared: by words as in SQuAD, or by characters as in CMRC 2018; `auto` decides by the letters of the passages."""
    max_answer_tokens: int = 30
    """The maximum number of tokens in an answer that the model gives."""

    def __post_init__(self) -> None:
        positive(self, "max_answer_tokens")

    def columns(self) -> Mapping[str, str]:
        """Return the column of the answers."""
        return {"answers": self.answers}
