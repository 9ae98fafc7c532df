"""The interface between a medium (images, audio) and what all media share: from the content of a file to a sequence of units."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bert_jax.data.nouns import Nouns
from bert_jax.data.reader import Grid, Units

Content: TypeAlias = bytes | NDArray[Any] | tuple[NDArray[Any], int]
"""The bytes of a file; pixels [H, W] or [H, W, C]; or samples [n] or [n, channels], optionally with their rate in Hz."""


__all__ = ["Content", "Extractor", "Grid", "Unreadable"]


class Unreadable(ValueError):
    """Content that cannot be turned into units. The message ends a sentence whose subject is the file: "is not an image"."""


class Extractor(ABC):
    """Turns content into units. A frozen dataclass of all settings that determine the units; it is stored with the codebook.

    Attributes:
        noun: what a file holds, such as "image".
        suffixes: lowercase suffixes of the files that are read.
        fragment: an example of a media fragment.
        halves: whether the sentence task is about the halves of one input, rather than about inputs that continue each other.
    """

    noun: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    fragment: ClassVar[str]
    halves: ClassVar[bool] = False

    @classmethod
    def nouns(cls) -> Nouns:
        """Return what the inputs and their parts are called."""
        return Nouns(cls.noun, "unit", "code", "part")

    @property
    @abstractmethod
    def units(self) -> Units:
        """The type and size U of the units."""

    @property
    def grid(self) -> Grid | None:
        """The two-dimensional arrangement of the units, or None if they are a sequence."""
        return None

    @abstractmethod
    def is_one(self, array: NDArray[Any]) -> bool:
        """Return whether an array is one input, rather than several along its first axis."""

    def extract(self, content: Content) -> NDArray[Any]:
        """Return the units [n, U] of one input, n >= 1; raises as `extract_and_measure` does."""
        return self.extract_and_measure(content)[0]

    @abstractmethod
    def extract_and_measure(self, content: Content) -> tuple[NDArray[Any], dict[str, float]]:
        """Return the units [n, U] of one input, n >= 1, and what `inspect` summarizes: width and height in pixels, or seconds.

        Raises:
            Unreadable: the content is damaged, too small, empty, or otherwise not an input.
        """

    @abstractmethod
    def word_starts(self, count: int) -> NDArray[np.bool_]:
        """Return, for an input of `count` units, which of them begin a group that may be masked together, bool [count]."""

    @abstractmethod
    def parts(self, count: int) -> NDArray[np.int32]:
        """Return the first unit of each part, int32 [s], 0 first: where an input of `count` units may be split into A and B."""

    @abstractmethod
    def region(self, content: Content, fragment: str) -> NDArray[np.bool_]:
        """Return which units [n] a media fragment covers (W3C Media Fragments 1.0: `xywh=10,10,20,20`, `t=0.5,1.2`).

        Raises:
            Unreadable: the fragment is malformed or covers no unit.
        """

    @abstractmethod
    def picture(self, units: NDArray[Any], tint: NDArray[np.floating] | None = None) -> NDArray[np.uint8]:
        """Draw units [n, U] (of any float or integer type, as `extract` scales them) as RGB pixels [H, W, 3].

        Args:
            units: the units; a row of NaN is drawn as masked, in a flat gray.
            tint: how strongly to tint each unit, from 0 (not at all) to 1, float [n].
        """

    @abstractmethod
    def tile(self, unit: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw a single unit [U] as RGB pixels [h, w, 3], as it looks in `picture`."""
