"""Converts the modules of a `sentence-transformers` model (pooling, normalization, prompts) to `EmbeddingConfig` and back."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bert_jax.config import EncoderConfig
from bert_jax.errors import InputError
from bert_jax.model.directory import EmbeddingConfig, read_json, write_json
from bert_jax.model.pooling import MODES
from bert_jax.storage import small_files

MODULES = "modules.json"
_MODEL = "config_sentence_transformers.json"
_LIMITS = "sentence_bert_config.json"
# Older versions named the file after the encoder's architecture; the first one found is used.
_OLD_LIMITS = tuple(f"sentence_{kind}_config.json" for kind in "roberta distilbert camembert albert xlm-roberta xlnet".split())
# In the order in which their vectors are concatenated.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Prompts that every model has; empty unless the model defines them.
_DEFAULT_PROMPTS = ("query", "document")


def encoder_directory(directory: Path) -> Path:
    """Return the directory of the encoder and its tokenizer: `directory` itself unless it is a `sentence-transformers` model.

    Raises:
        InputError: modules.json is damaged, or points outside the directory.
    """
    return directory / _modules(directory)[0]["path"] if (directory / MODULES).is_file() else directory


def embedding_config(directory: Path) -> EmbeddingConfig | None:
    """Return the configuration of the modules after the encoder, or None if the directory is not a `sentence-transformers` model.

    Raises:
        InputError: a module or pooling mode is not supported; the message names it.
    """
    file = directory / MODULES
    if not file.is_file():
        return None
    modules = _modules(directory)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{file} lists the modules {', '.join(kinds)}; only Transformer and Pooling, optionally followed by Normalize, are supported. "
            "Use another model."
        )
    pooling = directory / modules[1]["path"] / "config.json"
    if not pooling.is_file():
        raise InputError(f"{file} lists a Pooling module, but {pooling} is missing. Download it too.")
    values = read_json(pooling)
    saved = read_json(directory / _MODEL) if (directory / _MODEL).is_file() else {}
    prompts = _prompts(saved, directory / _MODEL)
    return EmbeddingConfig(
        "+".join(_pooling_modes(values, pooling)),
        "Normalize" in kinds,
        _max_length(encoder_directory(directory)),
        prompts,
        _default_prompt(saved, prompts, directory / _MODEL),
        include_prompt=values.get("include_prompt", True) is not False,
        dimensions=_integer(saved, "truncate_dim", directory / _MODEL, least=1),
    )


def lowers_case(directory: Path) -> bool:
    """Return whether the model converts text to lowercase before tokenizing it."""
    _, values = _limits(directory)
    return bool(values.get("do_lower_case"))


def write_modules(directory: Path, embedding: EmbeddingConfig, encoder: EncoderConfig) -> None:
    """Write the files that make an exported encoder a `sentence-transformers` model, for versions 2 to 6."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if embedding.normalize else [])]
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}" if index else "", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    (directory / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    (directory / "1_Pooling").mkdir()
    write_json(directory / "1_Pooling" / "config.json", _pooling_values(embedding, encoder.width))
    if embedding.normalize:
        (directory / "2_Normalize").mkdir()
    if embedding.max_length:
        write_json(directory / _LIMITS, {"max_seq_length": min(embedding.max_length, encoder.max_positions), "do_lower_case": False})
    if embedding.prompts or embedding.dimensions:
        saved: dict[str, Any] = {"prompts": embedding.prompts, "default_prompt_name": embedding.default_prompt or None}
        write_json(directory / _MODEL, saved | ({"truncate_dim": embedding.dimensions} if embedding.dimensions else {}))


def _pooling_values(embedding: EmbeddingConfig, width: int) -> dict[str, Any]:
    modes = embedding.pooling.split("+")
    include = {} if embedding.include_prompt else {"include_prompt": False}
    if modes != [mode for mode in _POOLING_FLAGS.values() if mode in modes]:
        # Only version 5.4 and later can express this concatenation order.
        return {"embedding_dimension": width, "pooling_mode": modes, **include}
    return {"word_embedding_dimension": width, **{name: mode in modes for name, mode in _POOLING_FLAGS.items()}, **include}


def _modules(directory: Path) -> list[dict[str, Any]]:
    """Return the modules of a directory; the first one is the encoder."""
    file = directory / MODULES
    modules = small_files.read_json(file, "Download it again.")
    valid = isinstance(modules, list) and all(isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules)
    if not valid or not modules:
        raise InputError(f"{file} is not a list of modules with a type and a path. Download it again.")
    for module in modules:
        path = PurePosixPath(str(module["path"]))
        if not isinstance(module["path"], str) or path.is_absolute() or ".." in path.parts or "\0" in module["path"]:
            raise InputError(f"{file} names the folder {module['path']!r}, which is outside its directory: the model is rejected.")
        if not str(module["type"]).startswith("sentence_transformers."):
            raise InputError(f"{file} lists the module {module['type']}, which is custom code and is not executed. Use another model.")
    return list(modules)


def _pooling_modes(values: Mapping[str, Any], file: Path) -> list[str]:
    """Return the pooling modes of a Pooling module, in the order in which their vectors are concatenated."""
    if "pooling_mode" in values:
        modes = values["pooling_mode"]
        modes = modes if isinstance(modes, list) else [modes]
    else:
        modes = [name for name, value in values.items() if name.startswith("pooling_mode_") and value]
        modes = [mode for name, mode in _POOLING_FLAGS.items() if name in modes] + [name for name in modes if name not in _POOLING_FLAGS]
    unknown = [str(mode) for mode in modes if mode not in MODES]
    if unknown:
        raise InputError(f"{file} has the unsupported pooling {', '.join(unknown)}; supported are {', '.join(MODES)}. Use another model.")
    return modes or ["mean"]


def _prompts(saved: Mapping[str, Any], file: Path) -> dict[str, str]:
    prompts = saved.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise InputError(f"{file} has prompts that are not a mapping from names to strings. Download it again.")
    return {name: text or "" for name, text in prompts.items()}


def _default_prompt(saved: Mapping[str, Any], prompts: Mapping[str, str], file: Path) -> str:
    name = saved.get("default_prompt_name") or ""
    if not isinstance(name, str):
        raise InputError(f"{file} has default_prompt_name={name!r}, which is not a name. Download it again.")
    if name and name not in (*prompts, *_DEFAULT_PROMPTS):
        raise InputError(f"{file} has default_prompt_name={name!r}, but its prompts are {', '.join(prompts) or 'none'}. Download it again.")
    return name if name in prompts else ""


def _limits(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file next to an encoder that limits its inputs (maximum length, lowercasing), and its contents."""
    for name in (_LIMITS, *_OLD_LIMITS):
        if (directory / name).is_file() and (values := read_json(directory / name)):
            return directory / name, values
    return directory / _LIMITS, {}


def _max_length(directory: Path) -> int:
    """Return the length in tokens to which texts are truncated; 0 if the tokenizer's files define it."""
    file, values = _limits(directory)
    if values.get("transformer_task", "feature-extraction") != "feature-extraction" or values.get("processing_kwargs"):
        name = "processing_kwargs" if values.get("processing_kwargs") else "transformer_task"
        raise InputError(f"{file} has {name}={values[name]!r}, which is not supported. Use another model.")
    tokenizer = values.get("processor_kwargs") or values.get("tokenizer_args") or {}
    if not isinstance(tokenizer, dict) or (unknown := sorted(tokenizer.keys() - {"model_max_length", "padding_side", "use_fast"})):
        what = ", ".join(unknown) if isinstance(tokenizer, dict) else repr(tokenizer)
        raise InputError(f"{file} sets the tokenizer's {what}, which is not supported. Set it in tokenizer_config.json instead.")
    return _integer(tokenizer, "model_max_length", file) or _integer(values, "max_seq_length", file)


def _integer(values: Mapping[str, Any], name: str, file: Path, least: int = 3) -> int:
    """Return the validated integer, or 0 if it is missing."""
    number = values.get(name)
    if number is None:
        return 0
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise InputError(f"{file} has {name}={number!r}: it must be an integer of at least {least}. Download it again.")
    return number
