"""The image modality: an image is a sequence of patches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from bert_jax.data.tables import Table
from bert_jax.modalities.image.demo import digits, split_of
from bert_jax.modalities.image.patches import Patches
from bert_jax.modalities.media.modality import Media
from bert_jax.modalities.media.options import MediaOptions
from bert_jax.modalities.media.sources import Demo


@dataclass(frozen=True)
class ImagesConfig(MediaOptions):
    """Images, resized to `size` x `size` pixels and cut into patches (Dosovitskiy et al. 2021, section 3.1)."""

    modality: Literal["image"] = "image"
    size: int = 32
    """Width and height in pixels: the shorter side is resized to it, and the longer one cropped."""
    patch: int = 4
    """Width and height of a patch, which is a unit, in pixels."""
    color: bool = True
    """Three channels; otherwise one, of brightness."""
    block: int = 2
    """Blocks of `block` x `block` patches are masked together (Bao et al. 2022, section 2.3) if masking.whole_words is on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.extractor()

    def extractor(self) -> Patches:
        """Return what turns images into patches."""
        return Patches(self.size, self.patch, self.color, self.block)


def _examples() -> Iterator[tuple[str, Any, str, str]]:
    for index, (name, pixels, label) in enumerate(digits()):
        yield name, pixels, label, split_of(index)


class Image(Media[ImagesConfig]):
    """The image modality."""

    name = "image"
    options = ImagesConfig
    extractor, nouns = Patches, Patches.nouns()
    feature = "image"
    demo = Demo("digits", "scikit-learn", _examples)
    tables: Mapping[str, Table] = MappingProxyType({"demo": demo.rows})
