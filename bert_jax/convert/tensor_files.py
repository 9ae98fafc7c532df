"""Reads the tensors of a directory's safetensors files: names, shapes and types at once, values on demand.

No other format is read. A pickle (`pytorch_model.bin`) can execute its author's code when it is opened, so it is rejected.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from bert_jax.errors import InputError
from bert_jax.families.base import Family, rename
from bert_jax.model.directory import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.h5", "*.msgpack")
_DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class TensorFiles:
    """The tensors of a directory by name; `shapes` lists them before any values are read.

    Older tensor names are converted to the family's current ones. A tied tensor that is stored under its second name only is
    available under its first name too.

    Raises:
        InputError: there is no safetensors file, one is missing or damaged, or a tensor does not have a floating-point type.
    """

    def __init__(self, directory: Path, family: Family) -> None:
        self._locations: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in _files(directory):
            with _opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a dict
                    tensor = tensors.get_slice(name)
                    current = rename(name, family.renames)
                    if current in self._locations:
                        raise InputError(
                            f"The tensor {current} is in both {self._locations[current][0]} and {file}. Download the files again."
                        )
                    self._locations[current] = file, name
                    self.shapes[current] = tuple(tensor.get_shape())
        for tied in family.tied.values():
            for name, other in tied.items():
                if name in self._locations and other not in self._locations:
                    self._locations[other], self.shapes[other] = self._locations[name], self.shapes[name]

    def read(self, name: str) -> np.ndarray:
        """Return one tensor as float32."""
        file, stored_name = self._locations[name]
        with _opened(file) as tensors:
            dtype = tensors.get_slice(stored_name).get_dtype()
            if dtype not in _DTYPES:
                raise InputError(
                    f"The tensor {stored_name} in {file} has type {dtype}; only {', '.join(_DTYPES)} are supported. Save it as float32."
                )
            return np.asarray(tensors.get_tensor(stored_name)).astype(np.float32)


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    if not index.is_file():
        raise InputError(_missing_weights(directory))
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise InputError(f"{index} has no weight_map from tensors to files. Download it again.")
    names = sorted(set(parts.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{index} names the file {name!r}, which is not a .safetensors file next to it: the model is rejected.")
        if not (directory / name).is_file():
            raise InputError(f"{index} names the file {name}, which is missing from {directory}. Download it too.")
    return [directory / name for name in names]


def _missing_weights(directory: Path) -> str:
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        return (
            f"{directory} stores its weights as {', '.join(pickles)} and has no {SINGLE}. Such files can execute code when they are "
            "opened, so they are not read. If you trust them, convert them with transformers: "
            f"AutoModelForPreTraining.from_pretrained({str(directory)!r}).save_pretrained('converted'), which writes {SINGLE}."
        )
    found = ", ".join(sorted(file.name for file in directory.iterdir())[:10]) or "nothing"
    return f"{directory} has neither {SINGLE} nor {INDEX}; it contains {found}. Download the missing file."


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(str(file), framework="numpy") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a complete safetensors file ({error}): it is truncated or damaged. Download it again.") from error
