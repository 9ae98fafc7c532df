"""Linear models on images and recordings: accuracy by number of labels, on the units that the encoder reads.

    pip install -r benchmarks/requirements.txt
    python benchmarks/linear_baselines.py --images=cifar10 --audio=fsdd/recordings --output=benchmarks/results/linear_baselines

Logistic regression on standardized inputs, with three seeds, each of which determines the sample of labels. C is chosen on held-out parts
of the sample; then the model is fitted to all of it. Images: all pixels of an image, from IMAGES/train and IMAGES/test with a folder per
class. Audio: recordings named DIGIT_SPEAKER_INDEX.wav, with a number of labels per digit and speaker; indices 0 to 4 are the test set. Two
inputs are tried: the log-mel frames of a recording resampled to a fixed number, and the mean and deviation of each band; the better one
on the held-out parts counts. With one speaker held out, the model is trained on the other speakers and tested on that speaker's part of the
test set; the accuracy is the mean over all speakers. Writes OUTPUT.json.
"""

import argparse
import importlib.metadata
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import checkout  # noqa: F401
import numpy as np
from machine import machine, versions

from bert_jax.model.directory import write_json

SEEDS = (0, 1, 2)
IMAGE_LABELS = (10, 100, 1000)
"""Per class."""
AUDIO_LABELS = (1, 5, 45)
"""Per digit and speaker."""
TEST_INDICES = range(5)
RATE, BANDS, FRAMES = 8000, 40, 32
"""Samples per second, the log-mel bands of a frame, and the number of frames to which recordings are resampled."""
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The values tried for C, the inverse of the regularization."""
Inputs = dict[str, np.ndarray]
"""Kinds of input, each [n, features], of the same n examples."""


class Recording(NamedTuple):
    """What the name of a recording says."""

    path: Path
    digit: str
    speaker: str
    index: int


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder with the folders train and test")
    parser.add_argument("--audio", type=Path, help="a folder of recordings")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    begun = time.time()
    lines = []
    for line in chain(image_lines(flags.images) if flags.images else (), audio_lines(flags.audio) if flags.audio else ()):
        lines.append(line)
        print(f"{line['data']}, {line['labels']} labels, seed {line['seed']}: {line['accuracy']:.1%}", flush=True)
    summary = summarized(lines)
    for line in summary:
        print(f"{line['data']:<28}{line['labels']:>6} labels  {line['accuracy']:.1%} ({line['lowest']:.1%} to {line['highest']:.1%})")
    packages = versions([]) | {"scikit-learn": importlib.metadata.version("scikit-learn")}
    result = {"machine": machine(), "versions": packages, "seconds": round(time.time() - begun)}
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(flags.output.with_suffix(".json"), result | {"summary": summary, "runs": lines})


def image_lines(folder: Path) -> Iterable[dict[str, Any]]:
    """The accuracy for each number of labels and seed."""
    train, test = (image_paths(folder / split) for split in ("train", "test"))
    inputs, targets = pixels(path for path, _ in test), [label for _, label in test]
    for labels in IMAGE_LABELS:
        for seed in SEEDS:
            chosen = sample(train, [label for _, label in train], labels, seed)
            own = pixels(path for path, _ in chosen)
            yield {"data": "images", "labels": labels, "seed": seed, **fit(own, [label for _, label in chosen], inputs, targets, seed)}


def audio_lines(folder: Path) -> Iterable[dict[str, Any]]:
    """The same, with all speakers, and with each one held out."""
    recordings = [Recording(path, digit, speaker, int(index)) for path, (digit, speaker, index) in recording_names(folder)]
    train = [recording for recording in recordings if recording.index not in TEST_INDICES]
    test = [recording for recording in recordings if recording.index in TEST_INDICES]
    known = {recording: frames(recording.path) for recording in recordings}

    def measured(train: Sequence[Recording], test: Sequence[Recording], seed: int) -> dict[str, Any]:
        inputs = [stacked([known[recording] for recording in part]) for part in (train, test)]
        return fit(inputs[0], [each.digit for each in train], inputs[1], [each.digit for each in test], seed)

    for labels in AUDIO_LABELS:
        for seed in SEEDS:
            chosen = sample(train, [(each.digit, each.speaker) for each in train], labels, seed)
            yield {"data": "audio", "labels": labels, "seed": seed, **measured(chosen, test, seed)}
            parts = {
                speaker: measured(
                    [each for each in chosen if each.speaker != speaker], [each for each in test if each.speaker == speaker], seed
                )
                for speaker in sorted({each.speaker for each in recordings})
            }
            mean = statistics.mean(part["accuracy"] for part in parts.values())
            yield {"data": "audio, one speaker held out", "labels": labels, "seed": seed, "accuracy": mean, "speakers": parts}


def image_paths(folder: Path) -> list[tuple[Path, str]]:
    """The images of a folder per class, each with its class."""
    return [(path, path.parent.name) for path in sorted(folder.glob("*/*"))]


def recording_names(folder: Path) -> Iterable[tuple[Path, Sequence[str]]]:
    return ((path, path.stem.split("_")) for path in sorted(folder.glob("*_*_*.wav")))


def sample(items: Sequence[Any], groups: Sequence[Any], count: int, seed: int) -> list[Any]:
    """`count` items of each group at random, in the order of `items`. A larger sample contains the smaller ones of the same seed."""
    members = defaultdict(list)
    for position, group in enumerate(groups):
        members[group].append(position)
    rng = np.random.default_rng(seed)
    chosen = [position for group in sorted(members) for position in rng.permutation(members[group])[:count].tolist()]
    return [items[position] for position in sorted(chosen)]


def pixels(paths: Iterable[Path]) -> Inputs:
    """All patches of each image in one vector."""
    from bert_jax.modalities.image.patches import Patches

    patches = Patches()
    return {"pixels": np.stack([patches.extract(path.read_bytes()).ravel() for path in paths]).astype(np.float32)}


def frames(path: Path) -> np.ndarray:
    """The log-mel frames of a recording, float32 [n, BANDS]."""
    from bert_jax.modalities.audio.slices import Slices

    return Slices(rate=RATE, bands=BANDS).extract(path.read_bytes()).astype(np.float32).reshape(-1, BANDS)


def stacked(recordings: Sequence[np.ndarray]) -> Inputs:
    """Both kinds of input."""
    return {
        "resampled frames": np.stack([resampled(frames).ravel() for frames in recordings]),
        "mean and deviation": np.stack([np.concatenate([frames.mean(0), frames.std(0)]) for frames in recordings]),
    }


def resampled(frames: np.ndarray) -> np.ndarray:
    """A fixed number of frames, by linear interpolation over time."""
    at, known = np.linspace(0, len(frames) - 1, FRAMES), np.arange(len(frames))
    return np.stack([np.interp(at, known, band) for band in frames.T], 1)


def fit(inputs: Inputs, targets: Sequence[str], test: Inputs, test_targets: Sequence[str], seed: int) -> dict[str, Any]:
    """The test accuracy of the kind of input and the C that are best on held-out parts of the training examples."""
    tried = {kind: strongest(features, targets, seed) for kind, features in inputs.items()}
    accuracies = {kind: float(model.score(test[kind], test_targets)) for kind, (model, _) in tried.items()}
    best = max(tried, key=lambda kind: tried[kind][1])
    details: Mapping[str, Any] = {
        kind: {"accuracy": accuracies[kind], "held_out": held_out, "C": model.best_params_["logisticregression__C"]}
        for kind, (model, held_out) in tried.items()
    }
    return {"accuracy": accuracies[best], "inputs": best, "tried": details}


def strongest(features: np.ndarray, targets: Sequence[str], seed: int) -> tuple[Any, float]:
    """A model with the best C, fitted to all examples, and its accuracy on held-out fifths: five of them, or one if there are many."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parts = StratifiedShuffleSplit(5 if len(targets) <= 500 else 1, test_size=0.2, random_state=seed)
    # 200 iterations are enough: fitting longer changes the accuracy less than the choice of the sample does.
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=parts)
    search.fit(features, list(targets))
    return search, float(search.best_score_)


def summarized(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean and the range over the seeds."""
    groups = defaultdict(list)
    for line in lines:
        groups[line["data"], line["labels"]].append(line["accuracy"])
    return [
        {"data": data, "labels": labels, "accuracy": statistics.mean(each), "lowest": min(each), "highest": max(each)}
        for (data, labels), each in groups.items()
    ]


if __name__ == "__main__":
    main()
