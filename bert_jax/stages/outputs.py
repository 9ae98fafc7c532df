"""A model's outputs for its test set, kept so that the outputs of several models can be scored together."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from bert_jax.tasks.base import Scorer, Tuned

FILE = "outputs.safetensors"
_HELD_OUT = ("held_out_targets", "held_out_found")


def keep(directory: Path, tested: tuple[np.ndarray, np.ndarray], held_out: tuple[np.ndarray, np.ndarray] | None) -> None:
    """Write what a scorer was given.

    Args:
        directory: the directory of the stage.
        tested: the arguments of `Scorer.add`.
        held_out: the arguments of `Tuned.tune`, if the scorer is tuned.
    """
    arrays = dict(zip(("examples", "found", *_HELD_OUT), (*tested, *(held_out or ())), strict=False))
    # Targets that are tuples have no place in the file.
    arrays = {name: array for name, array in arrays.items() if array.dtype != object}
    (directory / FILE).write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def score(directory: Path, scorer: Scorer, places: np.ndarray) -> None:
    """Give the saved outputs to a scorer of more examples, in which those of this test set (or their items) are `places`, int64 [t]."""
    saved = load((directory / FILE).read_bytes())
    if isinstance(scorer, Tuned):
        targets, found = (saved.get(name) for name in _HELD_OUT)
        assert found is not None
        scorer.tune(targets, found)
    scorer.add(places[saved["examples"]], saved["found"])
