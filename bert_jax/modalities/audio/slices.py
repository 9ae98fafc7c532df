"""The units of a recording: slices of its log-mel features."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bert_jax.config.checks import at_most, positive, require
from bert_jax.data.reader import Units
from bert_jax.modalities.audio.log_mel import filters, log_mel, transform_size
from bert_jax.modalities.audio.recordings import read_recording
from bert_jax.modalities.media.extractor import Content, Extractor, Unreadable

_LARGEST = 10.0
"""Normalized features are clipped to this many deviations from the mean."""
_SHOWN = (-2.5, 3.0)
"""The normalized features from the darkest color to the lightest, the same in all pictures."""
_COLORS = np.array([(0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191)])
"""Evenly spaced colors of matplotlib's magma, whose lightness rises in even steps."""
_MASKED, _TINT, _STRONGEST_TINT = 128, np.array([40, 90, 255]), 0.6
_TIME = r"(?:(?:(\d{1,9}):)?([0-5]?\d):)?(\d{1,9}(?:\.\d*)?)"
_FRAGMENT = re.compile(rf"t=(?:npt:)?(?:{_TIME})?(?:,{_TIME})?", re.ASCII)


@dataclass(frozen=True)
class Slices(Extractor):
    """Turns recordings into slices of `frames` log-mel frames, [frames x bands] in this order.

    The features are normalized per recording to mean 0 and deviation 1 over all frames and bands, so loudness does not matter, but the
    shape of the spectrum stays. Frames that do not fill a slice are dropped.

    Attributes:
        rate: the rate in Hz to which recordings are resampled.
        bands: mel bands per frame.
        frames: frames per unit.
        span: consecutive units that may be masked together.
        part_seconds: about how far apart the places are where a recording may be split into A and B.
        window_seconds: the length of the window of a frame.
        hop_seconds: the time from one frame to the next.
    """

    noun: ClassVar[str] = "recording"
    suffixes: ClassVar[tuple[str, ...]] = (".wav", ".flac", ".ogg", ".mp3")
    fragment: ClassVar[str] = "t=0.5,1.2"

    rate: int = 16_000
    bands: int = 80
    frames: int = 3
    span: int = 4
    part_seconds: float = 0.5
    window_seconds: float = 0.025
    hop_seconds: float = 0.010

    def __post_init__(self) -> None:
        positive(self, "rate", "bands", "frames", "span", "part_seconds", "window_seconds", "hop_seconds")
        require(1_000 <= self.rate <= 768_000, "rate", self.rate, "it must be between 1,000 and 768,000 Hz.")
        at_most(self, bands=1_000, frames=1_000, span=10_000, window_seconds=1, hop_seconds=1, part_seconds=3_600)
        require(round(self.hop_seconds * self.rate) >= 1, "hop_seconds", self.hop_seconds, "it must be at least one sample.")
        width = round(self.window_seconds * self.rate)
        require(width >= 2, "window_seconds", self.window_seconds, "it must be at least two samples.")
        empty = ~filters(self.rate, transform_size(width), self.bands, 0, self.rate / 2).any(axis=1)
        remedy = "some bands would contain no frequency of the Fourier transform; use fewer bands or a longer window."
        require(not empty.any(), "bands", self.bands, remedy)

    @property
    def units(self) -> Units:
        """The type and size of the units: float16, `frames` x `bands`."""
        return Units(np.float16, self.frames * self.bands, self.frames)

    @property
    def _unit_samples(self) -> int:
        """How many samples a unit lasts."""
        return self.frames * round(self.hop_seconds * self.rate)

    def is_one(self, array: NDArray[Any]) -> bool:
        """Return whether an array is [n] or [n, channels]."""
        return array.ndim < 3

    def extract_and_measure(self, content: Content) -> tuple[NDArray[np.float16], dict[str, float]]:
        """Return the units of a recording, float16 [n, frames x bands], clipped to ten deviations, and its duration in `seconds`.

        Raises:
            Unreadable: the recording is damaged, shorter than one unit, silent, or has samples that are not finite.
        """
        samples = self._read(content)
        features = log_mel(samples, self.rate, self.bands, self.window_seconds, self.hop_seconds)
        features -= features.mean(dtype=np.float64)
        deviation = np.sqrt(np.mean(features**2, dtype=np.float64))
        if not deviation:
            raise Unreadable("is silent (all its log-mel features are equal)")
        features /= deviation
        count = self._count(samples)
        np.clip(features, -_LARGEST, _LARGEST, out=features)
        units: NDArray[np.float16] = features[: count * self.frames].reshape(count, -1).astype(np.float16)
        return units, {"seconds": len(samples) / self.rate}

    def word_starts(self, count: int) -> NDArray[np.bool_]:
        """Return which units begin a span, bool [count]: one in `span`."""
        return np.arange(count) % self.span == 0

    def parts(self, count: int) -> NDArray[np.int32]:
        """Return the first unit of each part of about `part_seconds`, int32 [s], 0 first."""
        step = max(round(self.part_seconds * self.rate / self._unit_samples), 1)
        return np.arange(0, max(count, 1), step, dtype=np.int32)

    def region(self, content: Content, fragment: str) -> NDArray[np.bool_]:
        """Return which units [n] overlap a stretch of time: `t=a,b` from a up to b, `t=a` or `t=,b`, in seconds or as [h:]mm:ss.

        Unit i lasts from i x `frames` hops to (i + 1) x `frames` hops.

        Raises:
            Unreadable: the recording is unreadable, or the fragment is malformed or covers no unit.
        """
        found = _FRAGMENT.fullmatch(fragment)
        if not found or found[3] is found[6] is None:
            raise Unreadable(f"has no region {fragment!r}: write #t=start,end in seconds, such as #t=0.5,1.2")
        starts = np.arange(self._count(self._read(content))) * self._unit_samples
        begin, end = (_seconds(found.groups()[index : index + 3]) * self.rate for index in (0, 3))
        covered = starts + self._unit_samples > round(begin)
        if found[6] is not None:
            covered &= starts < round(end)
            covered &= end > begin
        if not covered.any():
            raise Unreadable(f"has no unit in the region {fragment!r}: it lasts {len(starts) * self._unit_samples / self.rate:.2f} seconds")
        return covered

    def picture(self, units: NDArray[Any], tint: NDArray[np.floating] | None = None) -> NDArray[np.uint8]:
        """Draw units [n, U] as a spectrogram, RGB [bands, n x frames, 3]: time to the right, low frequencies at the bottom.

        The color scale is the same in all pictures: magma from -2.5 to 3 deviations.

        Args:
            units: the units; a row of NaN is drawn in a flat gray.
            tint: how far to blend each unit with blue, from 0 to 1 for 60%, float [n].
        """
        features = np.asarray(units, np.float32).reshape(len(units) * self.frames, self.bands).T[::-1]
        lowest, highest = _SHOWN
        places = np.clip((np.nan_to_num(features) - lowest) / (highest - lowest), 0, 1) * (len(_COLORS) - 1)
        pixels = np.stack([np.interp(places, np.arange(len(_COLORS)), channel) for channel in _COLORS.T], axis=-1)
        pixels[np.isnan(features)] = _MASKED
        if tint is not None:
            share = np.repeat(_STRONGEST_TINT * np.clip(np.nan_to_num(tint), 0, 1), self.frames)[:, None]
            pixels = (1 - share) * pixels + share * _TINT
        return np.round(pixels).astype(np.uint8)

    def tile(self, unit: NDArray[Any]) -> NDArray[np.uint8]:
        """Draw a single unit as in `picture`, RGB [bands, frames, 3]."""
        return self.picture(unit[None])

    def _read(self, content: Content) -> NDArray[np.float32]:
        """Return the samples of a recording that has at least one unit."""
        samples = read_recording(content, self.rate)
        if not self._count(samples):
            shortest = (self.frames - 1) * self._unit_samples // self.frames
            problem = f"is too short: it has {len(samples):,} samples at {self.rate:,} Hz, and one unit needs {shortest:,}"
            raise Unreadable(problem)
        return samples

    def _count(self, samples: NDArray[np.float32]) -> int:
        """Return the number of whole units: there is one frame per hop, the first one centered on the first sample."""
        return (1 + len(samples) // (self._unit_samples // self.frames)) // self.frames


def _seconds(groups: tuple[str | None, ...]) -> float:
    """Return the hours, minutes and seconds of a normal play time in seconds."""
    hours, minutes, seconds = (float(group or 0) for group in groups)
    return hours * 3600 + minutes * 60 + seconds
