"""How a sentence-embedding model of `sentence-transformers` makes a vector of hidden states: its modules -> `EmbeddingConfig`, and back."""

import json
from pathlib import Path
from typing import Any, Literal

from bert_jax import small_files
from bert_jax.errors import InputError
from bert_jax.model_directory import EmbeddingConfig, read_json, write_json

MODULES = "modules.json"
_LIMITS = "sentence_bert_config.json"
_POOLINGS: dict[str, Literal["cls", "mean", "max"]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}


def embedding_config(directory: Path) -> EmbeddingConfig | None:
    """What the modules of the directory do after the encoder; None where it is not of `sentence-transformers`.

    Raises:
        InputError: a module, or a way of pooling, that is not supported, by its name.
    """
    file = directory / MODULES
    if not file.is_file():
        return None
    modules = _modules(file)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{file} lists the modules {', '.join(kinds)}: supported are Transformer and Pooling, and Normalize behind them. Take another "
            "model."
        )
    if modules[0]["path"] not in ("", "."):
        raise InputError(f"{file} keeps the encoder in {modules[0]['path']!r}: name that directory to import the encoder alone.")
    pooling = directory / "1_Pooling" / "config.json"
    if not pooling.is_file():
        raise InputError(f"{file} lists a Pooling module and {pooling} is missing. Fetch it too.")
    values = read_json(pooling)
    chosen = sorted(name for name, value in values.items() if name.startswith("pooling_mode_") and value is True)
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise InputError(
            f"{pooling} pools by {', '.join(chosen) or 'nothing'}: supported is one of {', '.join(_POOLINGS)}. Take another model."
        )
    return EmbeddingConfig(_POOLINGS[chosen[0]], "Normalize" in kinds, _longest(directory / _LIMITS))


def write_modules(directory: Path, embedding: EmbeddingConfig, width: int) -> None:
    """The files that make an exported encoder a model of `sentence-transformers`."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if embedding.normalize else [])]
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}" if index else "", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    (directory / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    (directory / "1_Pooling").mkdir()
    modes = {name: pooling == embedding.pooling for name, pooling in _POOLINGS.items()}
    write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if embedding.normalize:
        (directory / "2_Normalize").mkdir()
    if embedding.max_length:
        write_json(directory / _LIMITS, {"max_seq_length": embedding.max_length, "do_lower_case": False})


def _modules(file: Path) -> list[dict[str, Any]]:
    modules = small_files.read_json(file, "Fetch it again.")
    whole = isinstance(modules, list) and all(isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules)
    if not whole or not modules:
        raise InputError(f"{file} is not a list of modules with a type and a path. Fetch it again.")
    return list(modules)


def _longest(file: Path) -> int:
    longest = read_json(file).get("max_seq_length") if file.is_file() else None
    if longest is None:
        return 0
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 3:
        raise InputError(f"{file} has max_seq_length={longest!r}: it must be a whole number of at least 3. Fetch it again.")
    return longest
