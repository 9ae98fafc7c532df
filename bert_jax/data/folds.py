"""Cross-validation over one file of labelled text: k folds, each of which is the test set of a model trained on the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from bert_jax.config import LabelledConfig
from bert_jax.data.labelled import Labelled, LabelledExamples, LabelReader, ReadRows, divide, read_examples
from bert_jax.data.tables import Table, read_rows
from bert_jax.errors import InputError


@dataclass(frozen=True)
class Fold:
    """The examples of one model."""

    labelled: Labelled
    """Its test set is the fold; dev is held out of the other folds."""
    places: np.ndarray
    """int64 [t]: the index of each test example among all examples of the file."""


@dataclass(frozen=True)
class Folds:
    """A file divided for cross-validation."""

    examples: LabelledExamples
    """All examples of the file, in order."""
    whole: Labelled
    """The file without folds: all examples, but for those held out as dev, to train the final model."""
    parts: list[Fold]


def load_folds(
    config: LabelledConfig,
    labels: LabelReader,
    seed: int,
    tables: Mapping[str, Table] = MappingProxyType({}),
    others: ReadRows = read_rows,
) -> Folds:
    """Read the labelled text of `config.train` and divide it into `config.folds` folds; arguments as of `load_labelled`.

    Each model's training examples are cleaned, and dev is held out of them, as without folds. A fold is tested as it is in the file.

    Raises:
        InputError: as `load_labelled`, or there are fewer distinct texts than folds.
    """
    sources = {"train": config.train}
    given, names = read_examples(sources, config, labels, tables, others)
    examples = given["train"]
    fold_of = assign_folds(examples, config.folds)
    if fold_of.max() < config.folds - 1:
        raise InputError(
            f"{config.train} has {fold_of.max() + 1} distinct texts, too few for finetune.data.folds={config.folds}: add examples, or use "
            "fewer folds."
        )
    parts = []
    for fold in range(config.folds):
        places = np.flatnonzero(fold_of == fold)
        one = {"train": examples.select(np.flatnonzero(fold_of != fold)), "test": examples.select(places)}
        parts.append(Fold(divide(one, names, sources, config, labels, seed), places))
    return Folds(examples, divide(given, names, sources, config, labels, seed), parts)


def assign_folds(examples: LabelledExamples, folds: int) -> np.ndarray:
    """Return the fold of each example, int64 [n]: the same for every seed, and the same for examples with the same text.

    Of pairs, only the first text counts, such as a premise with several hypotheses: second texts are often stock phrases, which would tie
    most of a file together. Texts that differ only in whitespace are the same.

    The folds are stratified: distinct texts are dealt out in the order of their targets, so that each fold has an equal share of every
    class, of every set of labels, and of high and low numbers.
    """
    numbers: dict[str, int] = {}
    text_of = np.array([numbers.setdefault("".join(text.split()), len(numbers)) for text in examples.identities], np.int64)
    first = np.unique(text_of, return_index=True)[1]
    order = np.random.default_rng(0).permutation(len(first))
    targets = examples.targets[first]
    if targets.dtype != object:
        ranks = np.unique(targets.reshape(len(first), -1), axis=0, return_inverse=True)[1].reshape(-1)
        order = order[np.argsort(ranks[order], kind="stable")]
    fold_of_text = np.empty(len(first), np.int64)
    fold_of_text[order] = np.arange(len(first)) % folds
    return fold_of_text[text_of]
