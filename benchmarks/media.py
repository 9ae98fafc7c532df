"""CIFAR-10 and spoken digits for the benchmarks of images and recordings: the data, and a fine-tuning run on a sample of its labels.

The encoders, masking and optimizers are those of the shipped configurations for a user's own files.
"""

import dataclasses
import shutil
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import checkout  # noqa: F401
import jax
import numpy as np
from linear_baselines import TEST_INDICES, image_paths, recording_names, sample
from machine import CORES

from bert_jax.config import RunConfig
from bert_jax.data.labelled import Labelled, LabelledExamples
from bert_jax.modalities.media.items import Item
from bert_jax.model import directory as model_directory
from bert_jax.stages.finetune import finetune
from bert_jax.tasks import configured
from bert_jax.training.host_memory import tune_malloc


class Example(NamedTuple):
    """A labeled file; `group` is what labels are counted per."""

    path: Path
    label: str
    group: Any


class Fit(NamedTuple):
    """How a sample of labels is trained on, for all models alike."""

    epochs: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set, split into examples for training and for testing, and the configurations for it.

    Attributes:
        pretraining: the shipped configuration, for the unlabeled training files.
        finetuning: the shipped configuration.
        fits: by the number of labels per group.
    """

    name: str
    train: Sequence[Example]
    test: Sequence[Example]
    pretraining: RunConfig
    finetuning: RunConfig
    fits: Mapping[int, Fit]

    def sample(self, labels: int, seed: int) -> list[Example]:
        """`labels` training examples of each group, the same as for the linear models."""
        return sample(self.train, [example.group for example in self.train], labels, seed)


def data_sets(images_folder: Path | None, audio_folder: Path | None, workdir: Path) -> list[DataSet]:
    """The data sets whose folders are given; their records are prepared once, in `workdir`."""
    overrides = [f"corpus.data_dir={workdir / 'records'}"]
    audio = [speech(audio_folder, workdir / "speech", overrides)] if audio_folder else []
    return [*audio, *([images(images_folder, overrides)] if images_folder else [])]


def images(folder: Path, overrides: Sequence[str]) -> DataSet:
    """A folder with the folders train and test, each with a folder per class."""
    train, test = ([Example(path, label, label) for path, label in image_paths(folder / split)] for split in ("train", "test"))
    return DataSet(
        "images",
        train,
        test,
        _configured("configs/pretrain_images.py", f"corpus.source={folder / 'train'}", *overrides),
        _configured("configs/finetune_images.py"),
        {10: Fit(60, 32), 100: Fit(30, 32), 1000: Fit(8, 64)},
    )


def speech(folder: Path, workdir: Path, overrides: Sequence[str]) -> DataSet:
    """Recordings DIGIT_SPEAKER_INDEX.wav; those for training are copied into a folder of their own in `workdir`."""
    parts: dict[bool, list[Example]] = {True: [], False: []}
    for path, (digit, speaker, index) in recording_names(folder):
        parts[int(index) in TEST_INDICES].append(Example(path, digit, (digit, speaker)))
    unlabeled = workdir / "unlabeled"
    if not unlabeled.is_dir():
        unlabeled.mkdir(parents=True)
        for example in parts[False]:
            shutil.copy(example.path, unlabeled)
    source = (f"corpus.source={unlabeled}", "corpus.rate=8000")
    return DataSet(
        "recordings",
        parts[False],
        parts[True],
        _configured("configs/pretrain_audio.py", *source, *overrides),
        # A word is shorter than what the configuration's augmentation hides; without it, all models do better.
        _configured("configs/finetune_audio.py", "finetune.augmentation.time_mask=0", "finetune.augmentation.band_mask=0"),
        {1: Fit(60, 2), 5: Fit(40, 4), 45: Fit(10, 8)},
    )


def start(programs: Path) -> None:
    """Use all cores, and keep compiled programs in a folder; call it before anything else."""
    tune_malloc()
    jax.config.update("jax_num_cpu_devices", CORES)
    jax.config.update("jax_compilation_cache_dir", str(programs))


def fine_tuned(
    data: DataSet, model: Path, labels: int, train: Sequence[Example], test: Sequence[Example], seed: int, pretrained: bool
) -> float:
    """The test accuracy of a classifier after its last epoch. `seed` also determines the new parameters and the order.

    Args:
        model: the directory of the pre-trained model, whose encoder and codebook are used.
        labels: the number of labels per group, which determines the epochs.
        pretrained: start from the parameters of the model, not at random.
    """
    fit, stage = data.fits[labels], data.finetuning.finetune
    assert stage is not None
    names = tuple(sorted({example.label for example in data.train}))
    parts = [_labelled(examples, names) for examples in (train, test)]
    # The dev set would choose among checkpoints; there is only one, so that every label is trained on.
    labelled = Labelled(parts[0], parts[0].select(np.arange(min(32, len(train)))), parts[1], names, 0, {})
    forever = dataclasses.replace(stage.loop, evaluate_every=1 << 30, save_every=1 << 30)
    stage = dataclasses.replace(stage, epochs=fit.epochs, batch_size=fit.batch_size, loop=forever)
    config = dataclasses.replace(data.finetuning, corpus=data.pretraining.corpus, seed=seed, finetune=stage)
    encoder, codebook = model_directory.read(model)
    with tempfile.TemporaryDirectory() as directory:
        result = finetune(config, Path(directory) / "finetune", labelled, encoder, codebook, model if pretrained else None)
    return float(result["accuracy"])


def _labelled(examples: Sequence[Example], names: tuple[str, ...]) -> LabelledExamples:
    targets = np.array([names.index(example.label) for example in examples], np.int32)
    return LabelledExamples([Item(str(example.path), example.path) for example in examples], None, targets, np.arange(len(examples)))


def _configured(path: str, *overrides: str) -> RunConfig:
    return configured(path, [f"compute.cpu_devices={CORES}", *overrides])


def spread(values: Iterable[float]) -> str:
    """A mean with the lowest and the highest value, in percent."""
    found = list(values)
    return f"{statistics.mean(found):.1%} ({min(found):.1%} to {max(found):.1%})"


def with_steps(config: RunConfig, steps: int) -> RunConfig:
    """A configuration of pre-training alone, with another number of steps."""
    assert config.pretrain is not None
    return dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, steps=steps))
