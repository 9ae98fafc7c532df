"""The audio modality: a recording is a sequence of slices of its log-mel spectrogram."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from bert_jax.data.tables import Table
from bert_jax.modalities.audio.demo import digits, split_of
from bert_jax.modalities.audio.slices import Slices
from bert_jax.modalities.media.modality import Media
from bert_jax.modalities.media.options import MediaOptions
from bert_jax.modalities.media.sources import Demo


@dataclass(frozen=True)
class AudioConfig(MediaOptions):
    """Recordings, as log-mel spectrograms that are cut into slices of a few frames."""

    modality: Literal["audio"] = "audio"
    rate: int = 16_000
    """Samples per second, to which recordings are resampled."""
    bands: int = 80
    """Mel bands of a frame."""
    frames: int = 3
    """Frames of a slice, which is a unit; there are 100 frames per second."""
    span: int = 4
    """Spans of so many slices are masked together (Baevski et al. 2020, section 3.1) if masking.whole_words is on."""
    part_seconds: float = 0.5
    """A recording may be divided, into A and B or into several examples, every so many seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.extractor()

    def extractor(self) -> Slices:
        """Return what turns recordings into slices."""
        return Slices(rate=self.rate, bands=self.bands, frames=self.frames, span=self.span, part_seconds=self.part_seconds)


def _examples() -> Iterator[tuple[str, Any, str, str]]:
    for name, content, label in digits():
        yield name, content, label, split_of(name)


class Audio(Media[AudioConfig]):
    """The audio modality."""

    name = "audio"
    options = AudioConfig
    extractor, nouns = Slices, Slices.nouns()
    feature = "audio"
    demo = Demo("spoken digits", "espeakng-loader", _examples)
    tables: Mapping[str, Table] = MappingProxyType({"demo": demo.rows})
