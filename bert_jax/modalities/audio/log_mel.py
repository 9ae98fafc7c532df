"""Log-mel features: how much energy each short window of a recording has in each band of the mel scale."""

import functools

import numpy as np
from numpy.typing import NDArray

_FLOOR = 1e-8
"""Values are at most 80 dB below the largest of the same recording, as in Whisper (Radford et al. 2022)."""
_BLOCK = 1024
"""Frames transformed at once, which bounds the memory used."""

# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
_HZ_PER_MEL, _KNEE_HZ, _LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def log_mel(
    samples: NDArray[np.floating],
    rate: int,
    bands: int,
    window_seconds: float = 0.025,
    hop_seconds: float = 0.010,
    low: float = 0.0,
    high: float | None = None,
) -> NDArray[np.float32]:
    """Return the log-mel features of a recording, float32 [1 + n // hop, bands], with a hop of `hop_seconds` x `rate` samples.

    The conventions are those of `librosa.feature.melspectrogram`: frame j is centered on sample j x hop, the recording is padded with
    zeros, the window is a periodic Hann window, the transform has the next power of two points, the spectrum is one of power, and the
    triangular filters follow Slaney's mel scale with equal areas. The result is the natural logarithm of max(mel, floor), where the
    floor is 80 dB below the largest value of this recording, so it depends on no other. A louder recording differs by a constant.

    Args:
        samples: mono samples [n].
        rate: their rate in Hz.
        bands: the number of mel bands.
        window_seconds: the length of the window.
        hop_seconds: the distance between the centers of two windows.
        low: the lower end of the lowest band in Hz.
        high: the upper end of the highest band in Hz; None for half the rate.
    """
    width, hop = round(window_seconds * rate), round(hop_seconds * rate)
    points = transform_size(width)
    # In float64: the rounding errors of a float32 transform are as large as 1e-4 in a band 80 dB below the loudest.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    weights = filters(rate, points, bands, low, rate / 2 if high is None else high).T
    count = 1 + len(samples) // hop
    # Only the phase of the spectrum depends on where within the transform the window lies.
    left = points // 2 - (points - width) // 2
    features = np.empty((count, bands), np.float32)
    peak = np.abs(samples).max(initial=0) or np.float32(1)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        first = start * hop - left
        last = first + (size - 1) * hop + width
        inside = np.divide(samples[max(first, 0) : last], peak, dtype=np.float64)
        padded = np.pad(inside, (max(-first, 0), last - first - max(-first, 0) - len(inside)))
        frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::hop]
        spectrum = np.fft.rfft(frames * window, points)
        features[start : start + size] = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ weights
    # Subtract in the logarithm: the square of a quiet recording's peak may be smaller than any float32.
    floor = max(features.max() * _FLOOR, np.finfo(np.float32).tiny)
    np.log(np.maximum(features, floor, out=features), out=features)
    features += 2 * np.log(np.float32(peak))
    return features


def transform_size(width: int) -> int:
    """Return the number of points of the Fourier transform of windows of `width` samples: the next power of two."""
    return 1 << max(width - 1, 1).bit_length()


@functools.lru_cache(maxsize=8)
def filters(rate: int, points: int, bands: int, low: float, high: float) -> NDArray[np.float32]:
    """Return the weights of the frequencies in each mel band, float32 [bands, points // 2 + 1]: triangles of equal area."""
    edges = _hz(np.linspace(_mel(low), _mel(high), bands + 2))
    frequencies = np.linspace(0, rate / 2, points // 2 + 1)
    rise = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rise, fall))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _mel(hz: float) -> float:
    """Return a frequency on the mel scale."""
    knee = _KNEE_HZ / _HZ_PER_MEL
    return hz / _HZ_PER_MEL if hz < _KNEE_HZ else float(knee + np.log(hz / _KNEE_HZ) / _LOG_STEP)


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the frequencies of points on the mel scale."""
    knee = _KNEE_HZ / _HZ_PER_MEL
    return np.where(mel < knee, mel * _HZ_PER_MEL, _KNEE_HZ * np.exp(_LOG_STEP * (mel - knee)))
