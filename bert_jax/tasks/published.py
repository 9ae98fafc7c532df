"""The classes of `transformers` that a model of each task can be written as, and is read from.

A class is named by its family's prefix and the suffix here: `Bert` + `ForMaskedLM`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A class of `transformers`, whatever its family.

    Attributes:
        suffix: the end of its name.
        parts: the parts of the model (top-level names of its parameters) that it holds.
        pipeline_tag: the pipeline of `transformers` that runs it; empty for none.
        labels: the path of the parameter whose last axis has a place for each label of the model; empty where there are none.
    """

    suffix: str
    parts: tuple[str, ...]
    pipeline_tag: str = ""
    labels: tuple[str, ...] = ()


ENCODER = ("embeddings", "encoder")
"""The parts that every model has."""

BARE = Published("Model", (*ENCODER, "pooler"))
"""The encoder without a head, as which a model of any task can be written. A model may lack the pooler."""
