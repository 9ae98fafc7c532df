"""Options of tagging."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bert_jax.config import TaskOptions
from bert_jax.config.checks import require


@dataclass(frozen=True)
class TaggingOptions(TaskOptions):
    """Options of tagging: each word has a tag, such as B-PER or NOUN."""

    name: Literal["tagging"] = field(default="tagging", init=False)
    target: str = "tags"
    """Name of the column that contains the list of tags, in a file in which finetune.data.text is the column of the list of words."""
    conll_columns: tuple[int, ...] = ()
    """In a file with a word per line, the columns of the word and of its tag, counted from 1; by default the first and the last, or FORM
    and UPOS in a .conllu file."""
    scheme: Literal["auto", "bio", "bioes", "io", "plain"] = "auto"
    """How tags mark entities: BIO, BIOES or BILOU, the type alone (or I-TYPE), or not at all, as for parts of speech; `auto` finds out."""
    impossible: Literal["refuse", "repair"] = "refuse"
    """What to do about a tag that cannot follow the one before it, such as I-LOC after O: raise an error, or begin an entity there."""

    def __post_init__(self) -> None:
        valid = not self.conll_columns or (len(self.conll_columns) == 2 and min(self.conll_columns) >= 1)
        require(valid, "conll_columns", self.conll_columns, "give two numbers from 1, such as 1,4.")

    def columns(self) -> Mapping[str, str]:
        """Return the column of the tags."""
        return {"target": self.target}
