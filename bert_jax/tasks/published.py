"""The `transformers` classes that the models of each task can be exported to and imported from.

A class name is a family's prefix followed by the suffix defined here: `Bert` + `ForMaskedLM`.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A `transformers` class, independent of the family.

    Attributes:
        suffix: the end of the class name.
        parts: the parts of the model (top-level names of its parameters) that the class has.
        pipeline_tag: the `transformers` pipeline that runs the class; empty if there is none.
        outputs: the path of the parameter whose last axis has one entry per output; empty if their number is fixed.
        labeled: whether the outputs have names, the labels of the model.
        problem_type: the value in the configuration that distinguishes tasks with the same class; empty if no other task has it.
        arguments: the kind of a vocabulary -> keyword arguments with which the pipeline gives the answers of the model, as code.
    """

    suffix: str
    parts: tuple[str, ...]
    pipeline_tag: str = ""
    outputs: tuple[str, ...] = ()
    labeled: bool = False
    problem_type: str = ""
    arguments: Callable[[str], str] = lambda kind: ""


ENCODER = ("embeddings", "encoder")
"""The parts that every model has."""

BARE = Published("Model", (*ENCODER, "pooler"))
"""The encoder without a head, a class that a model of any task can be exported to. The pooler may be absent."""

REFUSED = {"ForMultipleChoice": "scores several choices by one output, which no task here does"}
"""Classes that are not read, by the end of their names, and why: their heads would be taken for others."""
