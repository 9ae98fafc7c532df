"""The demo's synthetic recordings: the same every time, with no voice in two splits, and not too easy."""

import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from bert_jax.errors import InputError
from bert_jax.modalities.audio import demo
from bert_jax.modalities.audio.slices import Slices


@pytest.fixture(scope="module")
def recordings() -> list[tuple[str, tuple[np.ndarray, int], str]]:
    pytest.importorskip("espeakng_loader")
    return list(demo.digits())


def test_two_thousand_recordings_with_ten_labels(recordings: list) -> None:
    names = [name for name, _, _ in recordings]
    assert len(set(names)) == len(names) == 2_000
    assert Counter(label for _, _, label in recordings) == {str(digit): 200 for digit in range(10)}
    assert all(name.split("/")[1] == label for name, _, label in recordings)
    seconds = [len(samples) / rate for _, (samples, rate), _ in recordings]
    assert min(seconds) > 0.2 and max(seconds) < 2
    assert all(samples.dtype == np.int16 and rate == 22_050 for _, (samples, rate), _ in recordings)


def test_no_voice_is_in_two_splits(recordings: list) -> None:
    splits: dict[str, set[str]] = {}
    for name, _, _ in recordings:
        splits.setdefault(name.partition("/")[0].partition("+")[2], set()).add(demo.split_of(name))
    assert len(splits) == 50 and all(len(names) == 1 for names in splits.values())
    assert Counter(demo.split_of(name) for name, _, _ in recordings) == {"train": 1_400, "dev": 200, "test": 400}


def test_the_recordings_are_the_same_every_time(recordings: list) -> None:
    for first, second in zip(recordings, islice(demo.digits(), 200), strict=False):
        assert first[0] == second[0] and first[2] == second[2]
        np.testing.assert_array_equal(first[1][0], second[1][0])


def test_the_recordings_differ(recordings: list) -> None:
    assert len({samples.tobytes() for _, (samples, _), _ in recordings}) == 2_000
    zeros = [(samples, rate) for _, (samples, rate), label in recordings if label == "0"]
    assert np.std([len(samples) / rate for samples, rate in zeros]) > 0.08


def test_a_linear_model_learns_something_but_not_all(recordings: list) -> None:
    pytest.importorskip("soxr")
    from sklearn.linear_model import LogisticRegression

    extractor = Slices()
    means = np.stack([extractor.extract(content).astype(np.float32).reshape(-1, 80).mean(axis=0) for _, content, _ in recordings])
    labels = np.array([label for _, _, label in recordings])
    splits = np.array([demo.split_of(name) for name, _, _ in recordings])
    model = LogisticRegression(C=0.1, max_iter=1_000).fit(means[splits == "train"], labels[splits == "train"])
    assert 0.6 < model.score(means[splits == "test"], labels[splits == "test"]) < 0.9


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="pip install espeakng-loader"):
        next(demo.digits())


def test_a_synthesizer_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_synthesizer", lambda: ("/nowhere/libespeak-ng.so", "/nowhere"))
    with pytest.raises(InputError, match=r"does not run here: .*/nowhere/libespeak-ng\.so"):
        next(demo.digits())
