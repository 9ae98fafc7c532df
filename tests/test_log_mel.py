"""Log-mel features: those of librosa, and the same for every loudness."""

import warnings

import numpy as np
import pytest

from bert_jax.modalities.audio.log_mel import filters, log_mel, transform_size


def speech_like(rate: int, seconds: float = 1.3) -> np.ndarray:
    """Harmonics of a falling tone, each weaker than the one below, with noise, between two pauses."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (180 - 30 * time) * time
    tones = sum(np.sin(k * phase) / k**2 for k in range(1, 15))
    envelope = np.sin(np.pi * time / seconds) ** 2 * (np.sin(9 * time) > -0.6)
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * envelope * (tones + 0.02 * noise) + 1e-4 * noise).astype(np.float32)


def tone(seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    return np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize(("rate", "bands"), [(8_000, 40), (16_000, 80), (22_050, 64), (44_100, 128)])
@pytest.mark.parametrize(("low", "high"), [(0, None), (80, 3_700)])
def test_the_features_are_those_of_librosa(rate: int, bands: int, low: float, high: float | None) -> None:
    librosa = pytest.importorskip("librosa")
    samples = speech_like(rate)
    width, hop = round(0.025 * rate), round(0.010 * rate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Empty filters")
        mel = librosa.feature.melspectrogram(
            y=samples, sr=rate, n_fft=transform_size(width), hop_length=hop, win_length=width, n_mels=bands, fmin=low, fmax=high
        )  # fmt: skip
    expected = np.log(np.maximum(mel, 1e-8 * mel.max())).T
    assert expected.min() < expected.max() - 15
    np.testing.assert_allclose(log_mel(samples, rate, bands, low=low, high=high), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seconds", [0.003, 0.02, 10.24, 10.25, 25])
def test_blocks_leave_no_seam(seconds: float) -> None:
    librosa = pytest.importorskip("librosa")
    samples = speech_like(8_000, seconds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=256 is too large")
        mel = librosa.feature.melspectrogram(y=samples, sr=8_000, n_fft=256, hop_length=80, win_length=200, n_mels=40)
    expected = np.log(np.maximum(mel, 1e-8 * mel.max())).T
    np.testing.assert_allclose(log_mel(samples, 8_000, 40), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [1, 79, 80, 81, 159, 160, 161, 799, 800, 801])
def test_one_frame_for_each_hop_that_begins(samples: int) -> None:
    assert log_mel(tone()[:samples], 16_000, 40).shape == (1 + samples // 160, 40)


@pytest.mark.parametrize("gain", [100, 0.01, 1e-12, 1e-25, 1e30])
def test_a_gain_is_a_constant(gain: float) -> None:
    """Even where the square of the gain is beyond float32."""
    samples = speech_like(16_000)
    louder = (samples * np.float64(gain)).astype(np.float32)
    difference = log_mel(louder, 16_000, 80) - log_mel(samples, 16_000, 80)
    np.testing.assert_allclose(difference, 2 * np.log(gain), atol=1e-4)


def test_the_floor_is_that_of_the_recording() -> None:
    samples = np.concatenate([tone(), np.zeros(16_000, np.float32)])
    for gain in (1, 0.01):
        features = log_mel(np.float32(gain) * samples, 16_000, 40)
        np.testing.assert_allclose(features[-50:], features.max() - np.log(1e8), atol=1e-5)


def test_silence_is_finite() -> None:
    features = log_mel(np.zeros(1_000, np.float32), 16_000, 40)
    assert np.isfinite(features).all() and np.ptp(features) == 0


def test_a_tone_is_loudest_in_its_band() -> None:
    frequencies = np.linspace(0, 8_000, 257)
    centers = frequencies[filters(16_000, 512, 40, 0.0, 8_000.0).argmax(axis=1)]
    loudest = log_mel(tone(), 16_000, 40)[50].argmax()
    assert abs(centers[loudest] - 440) < 60
