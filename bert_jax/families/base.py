"""The interface of a model family: how other libraries name its configuration keys, tensors and classes. No Flax code."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bert_jax.config import EncoderConfig


class Layout(NamedTuple):
    """A pair of functions that convert an array from the other library's layout to ours, and back.

    Both may only use methods and slices of the array, so that they can be traced for shapes.
    """

    to_ours: Callable[[Any], Any]
    to_theirs: Callable[[Any], Any]


SAME = Layout(lambda theirs: theirs, lambda ours: ours)
TRANSPOSED = Layout(lambda theirs: theirs.T, lambda ours: ours.T)


class Entry(NamedTuple):
    """One tensor of the other library and its path in our parameter tree; `layer` is its index in an array stacked over layers."""

    name: str
    path: tuple[str, ...]
    layout: Layout
    layer: int | None = None


def linear(name: str, *path: str, layer: int | None = None) -> Iterator[Entry]:
    """Yield the entries of a linear layer, whose weight is [out, in] in PyTorch and [in, out] here."""
    yield Entry(f"{name}.weight", (*path, "kernel"), TRANSPOSED, layer)
    yield Entry(f"{name}.bias", (*path, "bias"), SAME, layer)


def norm(name: str, *path: str, layer: int | None = None) -> Iterator[Entry]:
    """Yield the entries of a layer norm."""
    yield Entry(f"{name}.weight", (*path, "scale"), SAME, layer)
    yield Entry(f"{name}.bias", (*path, "bias"), SAME, layer)


Renames = tuple[tuple[str, str], ...]
"""Regular expressions and their replacements, applied in order."""


def rename(name: str, renames: Renames) -> str:
    """Return the name after all replacements."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


@dataclass(frozen=True)
class Family:
    """How `transformers` names and lays out the configuration and tensors of our encoder.

    Attributes:
        name: `model_type` in a `config.json`.
        title: the family's name in messages.
        prefix: the prefix of its class names; a task's suffix follows (`Bert` + `ForMaskedLM`).
        base: the prefix of the encoder's tensor names, absent in the class without a head.
        covers: published models of the family that have other names, for the message that rejects unsupported models.
        fields: mapping from keys of a `config.json` to fields of `EncoderConfig`. A missing key takes our default.
        required: keys that must be present.
        fixed: keys and the values that our encoder supports; any other value is a different architecture.
        written: additional keys of an exported `config.json`.
        parts: function from a configuration to the tensors of each part of the model (a top-level name of our parameters).
        tied: for each part, mapping from the second names of tied tensors to their names in the entries of the part or the embeddings.
        ignored: tensors that are not learned.
        renames: from older tensor names, and names without `base`, to current ones.
        tensorflow: from the names in the family's original TensorFlow checkpoints to current ones.
        vocabulary_files: the files that can define the tokens; one of them must be present.
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
        """Return the entries of all tensors of the given parts.

        Raises:
            KeyError: the family has no such part.
        """
        entries = self.parts(config)
        return tuple(entry for part in parts for entry in entries[part])
