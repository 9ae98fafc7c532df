"""The tensors of a directory's safetensors files: names, shapes and types at once, the numbers when they are asked for.

Nothing else is read. A pickle (`pytorch_model.bin`) can run code of its author when it is opened, so it is refused.
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
    """The tensors of a directory by name; `shapes` says what there is before anything is read.

    Names are given as those that the family has today. A tied tensor that is there under its second name alone is given under
    its first name too.

    Raises:
        InputError: there is no safetensors file, one is missing or damaged, or a tensor is not of a floating type.
    """

    def __init__(self, directory: Path, family: Family) -> None:
        self._places: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in _files(directory):
            with _opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a dict
                    found = tensors.get_slice(name)
                    today = rename(name, family.renames)
                    if today in self._places:
                        raise InputError(f"The tensor {today} is in {self._places[today][0]} and again in {file}. Fetch the files again.")
                    self._places[today] = file, name
                    self.shapes[today] = tuple(found.get_shape())
        for tied in family.tied.values():
            for name, other in tied.items():
                if name in self._places and other not in self._places:
                    self._places[other], self.shapes[other] = self._places[name], self.shapes[name]

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        file, theirs = self._places[name]
        with _opened(file) as tensors:
            dtype = tensors.get_slice(theirs).get_dtype()
            if dtype not in _DTYPES:
                raise InputError(f"The tensor {theirs} in {file} is of type {dtype}; {', '.join(_DTYPES)} are read. Save it as float32.")
            return np.asarray(tensors.get_tensor(theirs)).astype(np.float32)


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    if not index.is_file():
        raise InputError(_nothing_there(directory))
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise InputError(f"{index} has no weight_map from tensors to files. Fetch it again.")
    names = sorted(set(parts.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{index} names the file {name!r}, which is not a .safetensors file beside it: it is refused.")
        if not (directory / name).is_file():
            raise InputError(f"{index} names the file {name}, which is missing in {directory}. Fetch it too.")
    return [directory / name for name in names]


def _nothing_there(directory: Path) -> str:
    pickles = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern))
    if pickles:
        return (
            f"{directory} holds its weights as {', '.join(pickles)} and has no {SINGLE}. Such files can run code of their author when they "
            "are opened, so they are not read. Where you trust them, convert them with transformers: "
            f"AutoModelForPreTraining.from_pretrained({str(directory)!r}).save_pretrained('converted'), which writes {SINGLE}."
        )
    found = ", ".join(sorted(file.name for file in directory.iterdir())[:10]) or "nothing"
    return f"{directory} has neither {SINGLE} nor {INDEX}; it holds {found}. Fetch the missing file."


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(str(file), framework="numpy") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is no whole safetensors file ({error}): it was cut off or damaged. Fetch it again.") from error
