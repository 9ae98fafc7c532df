"""A `config.json` of a family <-> our configuration; each value is checked before anything is made from it."""

from collections.abc import Iterable, Mapping
from typing import Any

from bert_jax.config import EncoderConfig
from bert_jax.errors import InputError
from bert_jax.families.base import Family

# Larger than any published encoder, and small enough that nothing made from them can fill a memory.
_LARGEST = {"layers": 1 << 10, "max_positions": 1 << 20}
_LARGEST_SIZE, _LARGEST_VOCABULARY = 1 << 17, 1 << 24


def encoder_config(family: Family, values: Mapping[str, Any], file: object) -> EncoderConfig:
    """The architecture that a `config.json` describes; values that it leaves out are `transformers`' defaults, which are ours.

    Raises:
        InputError: another architecture, or a size that is missing, not a number, negative or beyond any encoder.
    """
    for name, allowed in family.fixed.items():
        if name in values and values[name] not in allowed:
            raise InputError(
                f"{file} has {name}={values[name]!r}, and this encoder computes {name}={allowed[0]!r} alone: its numbers would be wrong."
            )
    arguments: dict[str, Any] = {}
    for name, ours in family.fields.items():
        if name in values:
            whole = isinstance(getattr(EncoderConfig, ours), int)
            largest = _LARGEST.get(ours, _LARGEST_SIZE)
            arguments[ours] = _whole_number(values[name], name, file, largest) if whole else _number(values[name], name, file)
        elif name in family.required:
            raise InputError(_incomplete(family, name, file))
    try:
        return EncoderConfig(**arguments)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _incomplete(family: Family, name: str, file: object) -> str:
    return f"{file} has no {name}: it is not a whole configuration of a {family.title} model. Fetch it again."


def _number(value: Any, name: str, file: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{file} has {name}={value!r}, which is not a number. Fetch the file again.")
    return float(value)


def _whole_number(value: Any, name: str, file: object, largest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{file} has {name}={value!r}, which is not a whole number. Fetch the file again.")
    if not 0 < value <= largest:
        raise InputError(f"{file} has {name}={value}: it must be from 1 to {largest:,}. Fetch the file again.")
    return value


def vocabulary_size(family: Family, values: Mapping[str, Any], file: object) -> int:
    """`vocab_size` of a `config.json`, checked."""
    if "vocab_size" not in values:
        raise InputError(_incomplete(family, "vocab_size", file))
    return _whole_number(values["vocab_size"], "vocab_size", file, _LARGEST_VOCABULARY)


def architectures(values: Mapping[str, Any], file: object) -> list[Any]:
    """The classes that a `config.json` names; usually one, or none in old files."""
    names = values.get("architectures") or []
    if not isinstance(names, list):
        raise InputError(f"{file} has architectures that are not a list of names. Fetch the file again.")
    return names


def class_names(values: Mapping[str, Any], classes: int, file: object, tensors: Iterable[str]) -> tuple[str, ...]:
    """The names of a classifier's classes, in order; `LABEL_0` and so on where the configuration has none.

    Args:
        tensors: the names of the head's tensors, for the message.

    Raises:
        InputError: a regression or multi-label head, or names that do not fit the number of classes.
    """
    problem = values.get("problem_type") or "single_label_classification"
    if problem != "single_label_classification" or classes < 2:
        raise InputError(
            f"{file} describes a {problem} head with {classes} output{'s' * (classes != 1)}. Classifiers of texts into one of two or more "
            f"classes are read; import the encoder alone by removing the tensors {' and '.join(f'`{name}`' for name in tensors)}."
        )
    names = values.get("id2label") or {str(index): f"LABEL_{index}" for index in range(classes)}
    if not isinstance(names, Mapping) or sorted(names) != sorted(map(str, range(classes))):
        raise InputError(f"{file} has an id2label that does not name the classes 0 to {classes - 1} of the classifier. Mend id2label.")
    labels = tuple(str(names[str(index)]) for index in range(classes))
    if len(set(labels)) != classes:
        raise InputError(f"{file} gives two classes the same name in id2label. Mend id2label.")
    return labels


def config_values(family: Family, config: EncoderConfig, vocab_size: int, pad_id: int) -> dict[str, Any]:
    """The fields of a `config.json` for this architecture."""
    sizes = {theirs: getattr(config, ours) for theirs, ours in family.fields.items()}
    return {"model_type": family.name, "vocab_size": vocab_size, **sizes, **family.written, "pad_token_id": pad_id, "dtype": "float32"}
