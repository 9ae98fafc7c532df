"""Reads Google's original TensorFlow checkpoints (google-research/bert), with tensors named as in `transformers`.

This needs TensorFlow, an optional dependency: pip install tensorflow-cpu.
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
    """Return the name of a variable in a `transformers` state dict, or None if the variable belongs to the optimizer."""
    return None if _OPTIMIZER.search(name) else rename(name, family.tensorflow)


class _Checkpoint:
    """The tensors of a checkpoint. Dense kernels, [in, out] in TensorFlow, are returned as in `transformers`, [out, in]."""

    def __init__(self, index: Path, reader: Any, family: Family) -> None:
        self._index, self._reader = index, reader
        variables = {today(name, family): (name, tuple(shape)) for name, shape in reader.get_variable_to_shape_map().items()}
        self._names = {name: variable for name, (variable, _) in variables.items() if name is not None}
        self.shapes = {
            name: shape[::-1] if self._names[name].endswith("kernel") else shape for name, (_, shape) in variables.items() if name
        }

    def read(self, name: str) -> np.ndarray:
        """Return one tensor as float32."""
        variable = self._names[name]
        # Only here does TensorFlow open the .data file and verify the tensor's checksum.
        with _input_errors(self._index):
            array = np.asarray(self._reader.get_tensor(variable), np.float32)
        return array.T if variable.endswith("kernel") else array


def open_checkpoint(directory: Path, family: Family) -> _Checkpoint:
    """Open the TensorFlow checkpoint in a directory.

    Raises:
        InputError: there is no checkpoint or more than one, it is damaged, or TensorFlow is not installed.
    """
    indices = sorted(directory.glob("*.ckpt*.index"))
    if len(indices) != 1:
        found = ", ".join(file.name for file in indices) or "none"
        raise InputError(f"{directory} has a {CONFIG} and must also have exactly one TensorFlow .ckpt.index file; found: {found}.")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"{indices[0]} is a TensorFlow checkpoint, and reading it needs TensorFlow, which is not installed: pip install tensorflow-cpu."
        ) from error
    with _input_errors(indices[0]):
        return _Checkpoint(indices[0], tf.train.load_checkpoint(str(indices[0].with_suffix(""))), family)


@contextmanager
def _input_errors(index: Path) -> Iterator[None]:
    """Convert TensorFlow's errors to an `InputError` that names the file."""
    import tensorflow as tf

    try:
        yield
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{index} is damaged or its .data file is missing ({error}). Download both again.") from error
