"""Google's original TensorFlow checkpoints (google-research/bert), by the names that `transformers` gives their tensors.

Reading them takes TensorFlow, an extra: pip install tensorflow-cpu.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.errors import InputError
from bert_jax.families.base import Family, rename

CONFIG = "bert_config.json"

_OPTIMIZER = re.compile(r"(^|/)(adam_m|adam_v|AdamWeightDecayOptimizer(_1)?|global_step)$")


def today(name: str, family: Family) -> str | None:
    """The name of a variable in a state dict of `transformers`; None for the optimizer's."""
    return None if _OPTIMIZER.search(name) else rename(name, family.tensorflow)


class _Checkpoint:
    """Dense kernels are [in, out] in TensorFlow; they are given as `transformers` has them, [out, in]."""

    def __init__(self, index: Path, reader: Any, family: Family) -> None:
        self._index, self._reader = index, reader
        found = {today(name, family): (name, tuple(shape)) for name, shape in reader.get_variable_to_shape_map().items()}
        self._names = {name: theirs for name, (theirs, _) in found.items() if name is not None}
        self.shapes = {name: shape[::-1] if self._names[name].endswith("kernel") else shape for name, (_, shape) in found.items() if name}

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        theirs = self._names[name]
        # TensorFlow checks each tensor against a sum when it is read, and looks for the .data file only now.
        with _told_of(self._index):
            array = np.asarray(self._reader.get_tensor(theirs), np.float32)
        return array.T if theirs.endswith("kernel") else array


def open_checkpoint(directory: Path, family: Family) -> _Checkpoint:
    """The tensors of the checkpoint in a directory.

    Raises:
        InputError: there is none or several, it is damaged, or TensorFlow is not installed.
    """
    indices = sorted(directory.glob("*.ckpt*.index"))
    if len(indices) != 1:
        found = ", ".join(file.name for file in indices) or "none"
        raise InputError(f"{directory} holds a {CONFIG} and must hold one TensorFlow checkpoint's .index file too; found: {found}.")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"{indices[0]} is a TensorFlow checkpoint, and TensorFlow, which reads it, is not installed: pip install tensorflow-cpu."
        ) from error
    with _told_of(indices[0]):
        return _Checkpoint(indices[0], tf.train.load_checkpoint(str(indices[0].with_suffix(""))), family)


@contextmanager
def _told_of(index: Path) -> Iterator[None]:
    """TensorFlow's errors as a user should read them."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{index} is damaged or its .data file is missing ({error}). Fetch both again.") from error
