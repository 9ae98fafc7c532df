"""What a family of models is: how other libraries name its configuration, its tensors and its classes. Names only, no Flax."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bert_jax.config import EncoderConfig


class Layout(NamedTuple):
    """What turns their array into ours, and ours into theirs.

    Both use methods and slices of the array alone, so that they can be traced for shapes.
    """

    to_ours: Callable[[Any], Any]
    to_theirs: Callable[[Any], Any]


SAME = Layout(lambda theirs: theirs, lambda ours: ours)
TRANSPOSED = Layout(lambda theirs: theirs.T, lambda ours: ours.T)


class Entry(NamedTuple):
    """One tensor of theirs and where it is in our tree; of a stacked array it is the slice `layer`."""

    name: str
    path: tuple[str, ...]
    layout: Layout
    layer: int | None = None


def linear(name: str, *path: str, layer: int | None = None) -> Iterator[Entry]:
    """A linear layer: its weight is [out, in] in PyTorch and [in, out] here."""
    yield Entry(f"{name}.weight", (*path, "kernel"), TRANSPOSED, layer)
    yield Entry(f"{name}.bias", (*path, "bias"), SAME, layer)


def norm(name: str, *path: str, layer: int | None = None) -> Iterator[Entry]:
    """A layer norm."""
    yield Entry(f"{name}.weight", (*path, "scale"), SAME, layer)
    yield Entry(f"{name}.bias", (*path, "bias"), SAME, layer)


Renames = tuple[tuple[str, str], ...]
"""Regular expressions and their replacements, applied one after the other."""


def rename(name: str, renames: Renames) -> str:
    """The name after all replacements."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


@dataclass(frozen=True)
class Family:
    """How `transformers` names and lays out what our encoder computes.

    Attributes:
        name: `model_type` in a `config.json`.
        title: the family's name in messages.
        prefix: what the names of its classes start with; a task's suffix follows (`Bert` + `ForMaskedLM`).
        base: what the names of the encoder's tensors start with, except in the class without a head.
        covers: published models of the family that go by other names, for the message that refuses all others.
        fields: keys of a `config.json` -> fields of `EncoderConfig`. A key that is left out has our default.
        required: keys that must be there.
        fixed: keys and the values that our encoder can compute; another value is another architecture.
        written: further keys of a `config.json` that is written.
        parts: the tensors of each part of the model (a top-level name of our parameters) under a configuration.
        tied: by part, second names of tensors -> the names that the part's entries, or those of the embeddings, have.
        ignored: tensors that hold nothing learned.
        renames: from older names of tensors, and those without `base`, to today's.
        tensorflow: from names in the family's original TensorFlow checkpoints to today's.
        vocabulary_files: one of these says what the tokens are.
    """

    name: str
    title: str
    prefix: str
    base: str
    fields: Mapping[str, str]
    parts: Callable[[EncoderConfig], Mapping[str, tuple[Entry, ...]]]
    required: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    tied: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    renames: Renames = ()
    tensorflow: Renames = ()
    vocabulary_files: tuple[str, ...] = ("tokenizer.json", "vocab.txt")
    covers: str = ""

    def entries(self, config: EncoderConfig, parts: Iterable[str]) -> tuple[Entry, ...]:
        """Every tensor of some parts.

        Raises:
            KeyError: the family has no such part.
        """
        every = self.parts(config)
        return tuple(entry for part in parts for entry in every[part])
