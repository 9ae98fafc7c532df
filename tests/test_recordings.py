"""Recordings in every form: what is read, what it is scaled and resampled to, and what is refused."""

import io
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.errors import InputError
from bert_jax.modalities.audio.recordings import read_recording
from bert_jax.modalities.media.extractor import Unreadable

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

RATE = 16_000


def sweep(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)


def encoded(samples: np.ndarray, format: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


FORMATS = [
    ("WAV", "PCM_U8", 0.01), ("WAV", "PCM_16", 4e-5), ("WAV", "PCM_24", 2e-7), ("WAV", "PCM_32", 1e-7), ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0), ("WAV", "ULAW", 0.02), ("WAVEX", "PCM_24", 2e-7), ("RF64", "PCM_16", 4e-5), ("FLAC", "PCM_S8", 0.01),
    ("FLAC", "PCM_16", 4e-5), ("FLAC", "PCM_24", 2e-7), ("OGG", "VORBIS", 0.05), ("MP3", "MPEG_LAYER_III", 0.05),
]  # fmt: skip


@pytest.mark.parametrize(("format", "subtype", "error"), FORMATS)
def test_formats(format: str, subtype: str, error: float) -> None:
    samples = sweep()
    read = read_recording(encoded(samples, format, subtype), RATE)
    assert read.dtype == np.float32 and read.shape == samples.shape
    assert np.abs(read - samples).max() <= error


def test_an_mp3_read_in_blocks_is_the_same_as_in_one_go() -> None:
    """A decoder that seeks to each block loses the frames which the next ones build on."""
    content = encoded(sweep(40), "MP3")
    whole, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    assert len(whole) > 2 * 2**18
    np.testing.assert_allclose(read_recording(content, RATE), whole, atol=1e-6)


def test_channels_are_averaged() -> None:
    samples = sweep()
    channels = np.stack([samples, 0.5 * samples, np.zeros_like(samples)], 1)
    for content in (encoded(channels, subtype="FLOAT"), channels, (channels, RATE)):
        np.testing.assert_allclose(read_recording(content, RATE), 0.5 * samples, atol=1e-6)


@pytest.mark.parametrize("order", [1, -1])
def test_each_file_is_resampled_from_its_own_rate(order: int) -> None:
    for rate in (32_000, 16_000, 8_000, 44_100, 11_025, 48_000)[::order]:
        for seconds in (0.05, 0.731, 1.0):
            content = encoded(sweep(seconds, rate), subtype="FLOAT", rate=rate)
            read = read_recording(content, 48_000)
            assert len(read) == round(round(seconds * rate) / rate * 48_000)
            middle = slice(500, -500)
            expected = sweep(seconds, 48_000)[: len(read)]
            np.testing.assert_allclose(read[: len(expected)][middle], expected[middle], atol=2e-3)


def test_resampling_in_blocks_leaves_no_seam() -> None:
    import soxr

    samples = sweep(20, 44_100)
    assert len(samples) > 2**18
    expected = soxr.resample(samples, 44_100, RATE, quality="HQ")
    read = read_recording((samples, 44_100), RATE)
    assert len(read) == 20 * RATE
    np.testing.assert_allclose(read[: len(expected)], expected[: len(read)], atol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16"])
def test_integers_are_scaled_by_their_full_scale(dtype: str) -> None:
    limits = np.iinfo(dtype)
    middle = (limits.max + limits.min + 1) // 2
    quarter = limits.max // 2 + 1 if limits.min else limits.max // 4 + 1
    samples = np.array([limits.min, middle, middle + quarter], dtype)
    np.testing.assert_allclose(read_recording(samples, RATE), [-1, 0, 0.5], atol=1e-6)


def test_floating_point_arrays_stay_as_they_are() -> None:
    for dtype in ("float16", "float32", "float64"):
        np.testing.assert_allclose(read_recording(np.array([0.5, -1.5, 0], dtype), RATE), [0.5, -1.5, 0])


def test_an_array_without_a_rate_has_the_wanted_one() -> None:
    samples = sweep()
    np.testing.assert_array_equal(read_recording(samples, 8_000), samples)
    assert len(read_recording((samples, RATE), 8_000)) == len(samples) // 2


def test_a_wav_file_written_to_a_pipe() -> None:
    """It states the largest length that its header can."""
    content = bytearray(encoded(sweep(), subtype="PCM_16"))
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff" * 4
    assert len(read_recording(bytes(content), RATE)) == RATE


def with_value(value: float) -> np.ndarray:
    samples = sweep()
    samples[77] = value
    return samples


WAV, FLAC, OGG, MP3 = encoded(sweep()), encoded(sweep(), "FLAC"), encoded(sweep(), "OGG"), encoded(sweep(), "MP3")
UNREADABLE: list[tuple[Any, str]] = [
    (b"", "is empty"),
    (b"A text is not a recording.\n" * 40, "is not a recording that libsndfile can read"),
    (WAV[:-2], r"is truncated \(2 bytes"),
    (WAV[: len(WAV) // 2], "is truncated"),
    (WAV[:30], "is not a recording|no samples"),
    (FLAC[: len(FLAC) // 2], "is not a recording that libsndfile can read"),
    (OGG[: len(OGG) // 2], "it is empty or damaged|is not a recording"),
    (MP3[: len(MP3) // 2], "is truncated or damaged"),
    (encoded(np.zeros(0, np.float32)), "has no samples"),
    (encoded(np.zeros(RATE, np.float32)), "is silent"),
    (encoded(np.full(RATE, 0.25, np.float32)), "is silent"),
    (encoded(sweep()[1:2]), "has only one sample"),
    (encoded(with_value(np.nan), subtype="FLOAT"), "not finite"),
    (encoded(with_value(np.inf), subtype="FLOAT"), "not finite"),
    (with_value(-np.inf), "not finite"),
    (np.array([1e300, 0.0]), "not finite"),
    (np.zeros(0), "has no samples"),
    (np.zeros((0, 2)), "has no samples"),
    (np.ones(1), "has only one sample"),
    (np.zeros(RATE, np.int16), "is silent"),
    (np.stack([sweep(), -sweep()], 1), "is silent"),
    (np.zeros((2, 16_000)), "16,000 channels; an array must be"),
    (np.float32(1), "is an array of float32"),
    (np.zeros((4, 4, 4)), "is an array of float64"),
    (np.array(["a", "b"]), "is an array of <U1"),
    (np.array([1j, 2j]), "is an array of complex128"),
    ((sweep(), 0), "sample rate of 0 Hz"),
    ((sweep(), -8_000), "sample rate of -8,000 Hz"),
    ((sweep(), 10**9), "sample rate of 1,000,000,000 Hz"),
    ((sweep(), "fast"), "sample rate 'fast'"),
]


@pytest.mark.parametrize(("content", "problem"), UNREADABLE)
def test_unreadable(content: Any, problem: str) -> None:
    with pytest.raises(Unreadable, match=problem):
        read_recording(content, RATE)


def test_a_lying_header_is_refused() -> None:
    content = bytearray(WAV)
    struct.pack_into("<I", content, content.index(b"fmt ") + 12, 2_000_000_000)
    with pytest.raises(Unreadable, match="sample rate"):
        read_recording(bytes(content), RATE)


def test_long_recordings_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_recording(WAV, RATE, most_seconds=1.0)) == RATE

    def decode(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", decode)
    for content in (WAV, FLAC, sweep()):
        with pytest.raises(Unreadable, match="lasts longer than"):
            read_recording(content, RATE, most_seconds=0.9)


def test_a_damaged_mp3_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(MP3)
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(range(100)) * 3
    for damaged in (bytes(content), MP3[: len(MP3) // 2], MP3[:150]):
        with pytest.raises(Unreadable):
            read_recording(damaged, RATE)
    print("Python's own standard error stays.", file=sys.stderr)
    assert capfd.readouterr() == ("", "Python's own standard error stays.\n")


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"package {package}: pip install {package}"):
        read_recording(WAV, 8_000)


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = "import sys, bert_jax.modalities.audio.slices; sys.exit(bool({'soundfile', 'soxr', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([encoded(sweep(0.1), *format[:2]) for format in FORMATS]),
    st.lists(st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=8)), max_size=4),
    st.integers(0, 2**16),
)
def test_damaged_files_are_read_or_refused(content: bytes, damages: list[tuple[int, bytes]], length: int) -> None:
    damaged = bytearray(content)
    for place, patch in damages:
        place %= len(damaged)
        damaged[place : place + len(patch)] = patch
    try:
        read = read_recording(bytes(damaged[: max(length, 1)]), RATE)
    except Unreadable as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(read).all() and len(read) > 1
