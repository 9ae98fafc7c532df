"""Units of recordings: how many, where they may be split, which ones a stretch of time covers, and how they are drawn."""

import io
from typing import Any

import numpy as np
import pytest

from bert_jax.errors import InputError
from bert_jax.modalities.audio.slices import Slices
from bert_jax.modalities.media.extractor import Unreadable

RATE = 16_000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * 0.1


def tone(seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


@pytest.mark.parametrize("samples", [320, 479, 480, 481, 799, 800, 801, 15_999, 16_000])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_as_many_units_as_whole_slices_for_every_length(samples: int, frames: int) -> None:
    extractor = Slices(frames=frames, bands=40)
    units = extractor.extract(noise(samples))
    assert units.dtype == np.float16 and units.shape == ((1 + samples // 160) // frames, frames * 40) and np.isfinite(units).all()
    assert extractor.units == (np.float16, frames * 40, frames)
    assert len(extractor.region(noise(samples), "t=0")) == len(units)


def test_a_unit_has_one_frame_after_another() -> None:
    samples = noise(RATE)
    np.testing.assert_array_equal(Slices(frames=3).extract(samples)[:4].reshape(12, 80), Slices(frames=1).extract(samples)[:12])


def test_the_shortest_recording() -> None:
    extractor = Slices()
    assert len(extractor.extract(noise(320))) == 1
    for call in (extractor.extract, lambda content: extractor.region(content, "t=0")):
        with pytest.raises(Unreadable, match=r"is too short: it has 319 samples at 16,000 Hz, and one unit needs 320"):
            call(noise(319))


def test_loudness_does_not_matter() -> None:
    samples = tone() + 0.01 * noise(RATE)
    units = Slices().extract(samples)
    np.testing.assert_allclose(Slices().extract(samples * np.float32(0.01)), units, atol=0.01)
    together = [Slices().extract(one) for one in (samples, 0.01 * samples)]
    np.testing.assert_array_equal(together[0], units)
    quiet = Slices().extract(np.round(samples * 3_000).astype(np.int16))
    assert np.abs(quiet.astype(np.float32) - units).mean() < 0.1


def test_features_are_normalized_over_the_recording_and_clipped() -> None:
    samples = noise(RATE)
    units = Slices(frames=1).extract(samples).astype(np.float64)
    assert abs(units.mean()) < 1e-3 and abs(units.std() - 1) < 1e-3
    samples[1_000:] = 0
    samples[-3:] = 1e-4
    assert np.abs(Slices().extract(np.concatenate([noise(400), np.zeros(RATE * 60, np.float32)]))).max() == 10


@pytest.mark.parametrize("content", [np.zeros(RATE), noise(1), np.full(RATE, np.nan), b"no recording", (noise(RATE), 0)])
def test_unreadable(content: Any) -> None:
    with pytest.raises(Unreadable):
        Slices().extract(content)


def test_bytes_and_array_have_the_same_units() -> None:
    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    samples = (noise(8_000) * 20_000).astype(np.int16)
    soundfile.write(file, samples, 8_000, format="WAV")
    extractor = Slices(rate=8_000, bands=40)
    np.testing.assert_array_equal(extractor.extract(file.getvalue()), extractor.extract((samples, 8_000)))


def test_spans_and_parts() -> None:
    extractor = Slices(span=4, part_seconds=0.5)
    assert np.flatnonzero(extractor.word_starts(10)).tolist() == [0, 4, 8]
    parts = extractor.parts(60)
    assert parts.dtype == np.int32 and parts.tolist() == [0, 17, 34, 51]
    assert Slices(part_seconds=0.001).parts(3).tolist() == [0, 1, 2]
    assert extractor.parts(1).tolist() == [0]


REGIONS = [
    ("t=0.03,0.06", [1]), ("t=0.031,0.06", [1]), ("t=0.03,0.061", [1, 2]), ("t=,0.03", [0]), ("t=0,0.03", [0]), ("t=0.95", [31, 32]),
    ("t=npt:0.9,0.93", [30]), ("t=0:00.9,00:00:0.93", [30]), ("t=0.9,100", [30, 31, 32]), ("t=0", list(range(33))),
]  # fmt: skip


@pytest.mark.parametrize(("fragment", "covered"), REGIONS)
def test_regions(fragment: str, covered: list[int]) -> None:
    assert np.flatnonzero(Slices().region(noise(RATE), fragment)).tolist() == covered


@pytest.mark.parametrize(
    "fragment", ["", "t=", "t=,", "t=a,b", "t=1,2,3", "t=-1,2", "xywh=1,2,3,4", "t=nan", "t=1e3", "t=0.1,0.5&u=1", "t=٣", "t=" + "9" * 400]
)
def test_malformed_regions(fragment: str) -> None:
    with pytest.raises(Unreadable, match="write #t=start,end in seconds"):
        Slices().region(noise(RATE), fragment)


@pytest.mark.parametrize("fragment", ["t=1.5", "t=1.5,2", "t=0.5,0.5", "t=0.6,0.5", "t=,0", "t=999999999"])
def test_regions_without_units(fragment: str) -> None:
    with pytest.raises(Unreadable, match=r"has no unit in the region '.*': it lasts 0\.99 seconds"):
        Slices().region(noise(RATE), fragment)


def test_a_picture_has_time_to_the_right_and_low_frequencies_at_the_bottom() -> None:
    extractor = Slices()
    picture = extractor.picture(extractor.extract(tone()))
    assert picture.dtype == np.uint8 and picture.shape == (80, 99, 3)
    brightness = picture.sum(axis=2)[:, 40]
    assert brightness.argmax() >= 60


def test_the_colors_get_lighter_with_the_features() -> None:
    extractor = Slices(bands=1, frames=1, window_seconds=0.05)
    values = np.linspace(-4, 4, 400, dtype=np.float16)[:, None]
    picture = extractor.picture(values)[0]
    luminance = picture @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) >= -0.5).all() and luminance[0] < 5 and luminance[-1] > 240
    np.testing.assert_array_equal(extractor.picture(values.astype(np.float64))[0], picture)


def test_masked_and_tinted_units() -> None:
    extractor = Slices()
    units = extractor.extract(noise(RATE)).astype(np.float32)
    units[2] = np.nan
    plain = extractor.picture(units)
    assert (plain[:, 6:9] == 128).all() and not (plain[:, 9:12] == 128).all()
    tint = np.zeros(len(units))
    tint[1], tint[3] = 1, 0.5
    tinted = extractor.picture(units, tint).astype(np.float64)
    changed = (tinted != plain).any(axis=(0, 2))
    assert np.flatnonzero(changed).tolist() == [3, 4, 5, 9, 10, 11]
    blue = np.array([40, 90, 255])
    np.testing.assert_allclose(tinted[:, 3:6], 0.4 * plain[:, 3:6] + 0.6 * blue, atol=0.9)
    np.testing.assert_allclose(tinted[:, 9:12], 0.7 * plain[:, 9:12] + 0.3 * blue, atol=0.9)


def test_the_duration() -> None:
    assert Slices().extract_and_measure((noise(12_000), 8_000))[1] == {"seconds": 1.5}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rate": 100}, "rate"), ({"rate": 10**9}, "rate"), ({"bands": 0}, "bands"), ({"frames": -1}, "frames"), ({"span": 0}, "span"),
        ({"part_seconds": 0}, "part_seconds"), ({"hop_seconds": 1e-6}, "hop_seconds"), ({"window_seconds": 1e-6}, "window_seconds"),
        ({"bands": 400}, "bands"), ({"window_seconds": float("nan")}, "window_seconds"), ({"frames": 10**9}, "frames"),
    ],
)  # fmt: skip
def test_invalid_settings(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"The configuration value {name}="):
        Slices(**settings)
