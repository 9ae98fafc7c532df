"""How a sentence-embedding model of `sentence-transformers` makes a vector of hidden states: its modules -> `EmbeddingConfig`, and back."""

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
# Older versions named it after the encoder's architecture; the first that is there counts.
_OLD_LIMITS = tuple(f"sentence_{kind}_config.json" for kind in "roberta distilbert camembert albert xlm-roberta xlnet".split())
# In the order in which their vectors are joined.
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Prompts that every model has, empty where it does not say otherwise.
_USUAL_PROMPTS = ("query", "document")


def encoder_directory(directory: Path) -> Path:
    """Where in a directory the encoder and its tokenizer are; the directory itself where it is not of `sentence-transformers`.

    Raises:
        InputError: modules.json is damaged, or leads out of the directory.
    """
    return directory / _modules(directory)[0]["path"] if (directory / MODULES).is_file() else directory


def embedding_config(directory: Path) -> EmbeddingConfig | None:
    """What the modules of the directory do after the encoder; None where it is not of `sentence-transformers`.

    Raises:
        InputError: a module, or a way of pooling, that is not supported, by its name.
    """
    file = directory / MODULES
    if not file.is_file():
        return None
    modules = _modules(directory)
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InputError(
            f"{file} lists the modules {', '.join(kinds)}: supported are Transformer and Pooling, and Normalize behind them. Take another "
            "model."
        )
    pooling = directory / modules[1]["path"] / "config.json"
    if not pooling.is_file():
        raise InputError(f"{file} lists a Pooling module and {pooling} is missing. Fetch it too.")
    values = read_json(pooling)
    saved = read_json(directory / _MODEL) if (directory / _MODEL).is_file() else {}
    prompts = _prompts(saved, directory / _MODEL)
    return EmbeddingConfig(
        "+".join(_poolings(values, pooling)),
        "Normalize" in kinds,
        _longest(encoder_directory(directory)),
        prompts,
        _default_prompt(saved, prompts, directory / _MODEL),
        include_prompt=values.get("include_prompt", True) is not False,
        dimensions=_whole_number(saved, "truncate_dim", directory / _MODEL, least=1),
    )


def lowers_case(directory: Path) -> bool:
    """Whether the text is put in lower case before the tokenizer of the encoder in a directory sees it."""
    _, values = _limits(directory)
    return bool(values.get("do_lower_case"))


def write_modules(directory: Path, embedding: EmbeddingConfig, encoder: EncoderConfig) -> None:
    """The files that make an exported encoder a model of `sentence-transformers`, for its versions 2 to 6."""
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
    if modes != [mode for mode in _OLD_POOLINGS.values() if mode in modes]:
        # Joined in an order that only version 5.4 and later can write.
        return {"embedding_dimension": width, "pooling_mode": modes, **include}
    return {"word_embedding_dimension": width, **{name: mode in modes for name, mode in _OLD_POOLINGS.items()}, **include}


def _modules(directory: Path) -> list[dict[str, Any]]:
    """The modules of a directory, the first of which is the encoder."""
    file = directory / MODULES
    modules = small_files.read_json(file, "Fetch it again.")
    whole = isinstance(modules, list) and all(isinstance(module, dict) and {"type", "path"} <= module.keys() for module in modules)
    if not whole or not modules:
        raise InputError(f"{file} is not a list of modules with a type and a path. Fetch it again.")
    for module in modules:
        path = PurePosixPath(str(module["path"]))
        if not isinstance(module["path"], str) or path.is_absolute() or ".." in path.parts or "\0" in module["path"]:
            raise InputError(f"{file} names the folder {module['path']!r}, which is not one in its directory: it is refused.")
        if not str(module["type"]).startswith("sentence_transformers."):
            what = f"the module {module['type']}, which is a program of its author"
            raise InputError(f"{file} lists {what}: it is not run. Take another model.")
    return list(modules)


def _poolings(values: Mapping[str, Any], file: Path) -> list[str]:
    """The pooling modes of a Pooling module, in the order in which their vectors are joined."""
    if "pooling_mode" in values:
        modes = values["pooling_mode"]
        modes = modes if isinstance(modes, list) else [modes]
    else:
        modes = [name for name, value in values.items() if name.startswith("pooling_mode_") and value]
        modes = [mode for name, mode in _OLD_POOLINGS.items() if name in modes] + [name for name in modes if name not in _OLD_POOLINGS]
    unknown = [str(mode) for mode in modes if mode not in MODES]
    if unknown:
        raise InputError(f"{file} pools by {', '.join(unknown)}: supported are {', '.join(MODES)}. Take another model.")
    return modes or ["mean"]


def _prompts(saved: Mapping[str, Any], file: Path) -> dict[str, str]:
    prompts = saved.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise InputError(f"{file} has prompts that are not texts by name. Fetch it again.")
    return {name: text or "" for name, text in prompts.items()}


def _default_prompt(saved: Mapping[str, Any], prompts: Mapping[str, str], file: Path) -> str:
    name = saved.get("default_prompt_name") or ""
    if not isinstance(name, str):
        raise InputError(f"{file} has default_prompt_name={name!r}, which is not a name. Fetch it again.")
    if name and name not in (*prompts, *_USUAL_PROMPTS):
        raise InputError(f"{file} has default_prompt_name={name!r}, and its prompts are {', '.join(prompts) or 'none'}. Fetch it again.")
    return name if name in prompts else ""


def _limits(directory: Path) -> tuple[Path, dict[str, Any]]:
    """The file beside an encoder that says how texts are put to it, and its content."""
    for name in (_LIMITS, *_OLD_LIMITS):
        if (directory / name).is_file() and (values := read_json(directory / name)):
            return directory / name, values
    return directory / _LIMITS, {}


def _longest(directory: Path) -> int:
    """Tokens to which texts are cut; 0 where the tokenizer's files say it."""
    file, values = _limits(directory)
    if values.get("transformer_task", "feature-extraction") != "feature-extraction" or values.get("processing_kwargs"):
        name = "processing_kwargs" if values.get("processing_kwargs") else "transformer_task"
        raise InputError(f"{file} has {name}={values[name]!r}, which is not supported. Take another model.")
    tokenizer = values.get("processor_kwargs") or values.get("tokenizer_args") or {}
    if not isinstance(tokenizer, dict) or (unknown := sorted(tokenizer.keys() - {"model_max_length", "padding_side", "use_fast"})):
        what = ", ".join(unknown) if isinstance(tokenizer, dict) else repr(tokenizer)
        raise InputError(f"{file} sets the tokenizer's {what}, which is not supported. Write it into tokenizer_config.json.")
    return _whole_number(tokenizer, "model_max_length", file) or _whole_number(values, "max_seq_length", file)


def _whole_number(values: Mapping[str, Any], name: str, file: Path, least: int = 3) -> int:
    """0 where it is not there."""
    number = values.get(name)
    if number is None:
        return 0
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise InputError(f"{file} has {name}={number!r}: it must be a whole number of at least {least}. Fetch it again.")
    return number
