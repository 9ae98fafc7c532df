"""Converts between a family's `config.json` and `EncoderConfig`; every value is validated before it is used."""

from collections.abc import Iterable, Mapping
from typing import Any

from bert_jax.config import EncoderConfig
from bert_jax.errors import InputError
from bert_jax.families.base import Family

# Larger than in any published encoder, yet small enough that nothing sized by them can exhaust memory.
_MAX_VALUES = {"layers": 1 << 10, "max_positions": 1 << 20}
_MAX_SIZE, _MAX_VOCABULARY = 1 << 17, 1 << 24
COMMON_PROBLEM_TYPE = "single_label_classification"
_PROBLEM_TYPES = (COMMON_PROBLEM_TYPE, "multi_label_classification", "regression")
"""Of the class ForSequenceClassification in transformers."""


def encoder_config(family: Family, values: Mapping[str, Any], file: object) -> EncoderConfig:
    """Return the architecture that a `config.json` describes. Omitted values take the defaults of `transformers`, which are ours too.

    Raises:
        InputError: the architecture is not supported, or a size is missing, not a number, not positive or implausibly large.
    """
    for name, allowed in family.fixed.items():
        if name in values and values[name] not in allowed:
            raise InputError(
                f"{file} has {name}={values[name]!r}, but this encoder only supports {name}={allowed[0]!r}, so its outputs would be wrong."
            )
    arguments: dict[str, Any] = {}
    for name, ours in family.fields.items():
        if name in values:
            is_integer = isinstance(getattr(EncoderConfig, ours), int)
            largest = _MAX_VALUES.get(ours, _MAX_SIZE)
            arguments[ours] = _integer(values[name], name, file, largest) if is_integer else _number(values[name], name, file)
        elif name in family.required:
            raise InputError(_missing_key(family, name, file))
    try:
        return EncoderConfig(**arguments)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _missing_key(family: Family, name: str, file: object) -> str:
    return f"{file} has no {name}: it is not a complete configuration of a {family.title} model. Download it again."


def _number(value: Any, name: str, file: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{file} has {name}={value!r}, which is not a number. Download the file again.")
    return float(value)


def _integer(value: Any, name: str, file: object, largest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{file} has {name}={value!r}, which is not an integer. Download the file again.")
    if not 0 < value <= largest:
        raise InputError(f"{file} has {name}={value}: it must be from 1 to {largest:,}. Download the file again.")
    return value


def vocabulary_size(family: Family, values: Mapping[str, Any], file: object) -> int:
    """Return the validated `vocab_size` of a `config.json`."""
    if "vocab_size" not in values:
        raise InputError(_missing_key(family, "vocab_size", file))
    return _integer(values["vocab_size"], "vocab_size", file, _MAX_VOCABULARY)


def architectures(values: Mapping[str, Any], file: object) -> list[Any]:
    """Return the `transformers` classes that a `config.json` names: usually one, none in old files."""
    names = values.get("architectures") or []
    if not isinstance(names, list):
        raise InputError(f"{file} has architectures that are not a list of names. Download the file again.")
    return names


def problem_type(values: Mapping[str, Any], outputs: int, file: object) -> str:
    """Return the `problem_type` of a head with so many outputs: as the configuration says, or as transformers infers it.

    Raises:
        InputError: transformers has no such type.
    """
    found = values.get("problem_type") or ("regression" if outputs == 1 else COMMON_PROBLEM_TYPE)
    if found not in _PROBLEM_TYPES:
        raise InputError(f"{file} has the problem_type {found!r}, which is none of {', '.join(_PROBLEM_TYPES)}. Correct it.")
    return str(found)


def class_names(values: Mapping[str, Any], classes: int, file: object, tensors: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a classifier's classes in class order, or `LABEL_0`, `LABEL_1`, ... if the configuration names none.

    Args:
        tensors: the names of the head's tensors, for the error message.

    Raises:
        InputError: there is one class, or the names do not match the number of classes.
    """
    if classes < 2:
        raise InputError(
            f"{file} describes a classifier with {classes} class{'es' * (classes != 1)}. To import the encoder only, remove the tensors "
            f"{' and '.join(f'`{name}`' for name in tensors)}."
        )
    names = values.get("id2label") or {str(index): f"LABEL_{index}" for index in range(classes)}
    if not isinstance(names, Mapping) or sorted(names) != sorted(map(str, range(classes))):
        raise InputError(f"{file} has an id2label that does not name the classes 0 to {classes - 1} of the classifier. Fix id2label.")
    labels = tuple(str(names[str(index)]) for index in range(classes))
    if len(set(labels)) != classes:
        raise InputError(f"{file} gives two classes the same name in id2label. Fix id2label.")
    return labels


def config_values(family: Family, config: EncoderConfig, vocab_size: int, pad_id: int) -> dict[str, Any]:
    """Return the fields of a `config.json` for this architecture."""
    sizes = {theirs: getattr(config, ours) for theirs, ours in family.fields.items()}
    return {"model_type": family.name, "vocab_size": vocab_size, **sizes, **family.written, "pad_token_id": pad_id}
