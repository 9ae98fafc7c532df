"""Names that configuration values used to have, which go on working."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

C = TypeVar("C")
Key = tuple[str, ...]

_KEYS: dict[Key, Key] = {
    ("finetune", "pooling"): ("finetune", "task", "pooling"),
    ("finetune", "data", "label"): ("finetune", "task", "label"),
    ("finetune", "data", "labels"): ("finetune", "task", "labels"),
    ("pretrain", "accumulation"): ("pretrain", "gradient_accumulation_steps"),
    ("pretrain", "long_rows", "accumulation"): ("pretrain", "long_rows", "gradient_accumulation_steps"),
}
"""The former place of a value in a run's configuration, and its place now."""


class RenamedWarning(DeprecationWarning):
    """A configuration value was named as it used to be."""


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warns that a value has a new name; the command line shows it, a program's user only where warnings are on."""
    warnings.warn(f"The configuration value {old} is now {new}; the old name still works.", RenamedWarning, stacklevel=stacklevel + 1)


def present_key(key: Key) -> Key:
    """The name that a key of a command line has now, with a warning where it is another."""
    if key not in _KEYS:
        return key
    warn_renamed(".".join(key), ".".join(_KEYS[key]))
    return _KEYS[key]


def present_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested values of a stored configuration under the names that they have now."""
    found = _copy(values)
    for old, new in _KEYS.items():
        group = _group(found, old)
        if group is not None and old[-1] in group:
            value = group.pop(old[-1])
            target = found
            for name in new[:-1]:
                target = target.setdefault(name, {})
            target.setdefault(new[-1], value)
    return found


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _group(values: Any, key: Key) -> dict[str, Any] | None:
    for name in key[:-1]:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else None


def formerly(take: Callable[[Any, dict[str, Any]], None], **names: str) -> Callable[[type[C]], type[C]]:
    """A class decorator: the constructor goes on taking arguments by the names that they had.

    Args:
        take: gives the new object the values of former names.
        names: each former name, and what to write now.
    """

    def decorate(cls: type[C]) -> type[C]:
        init = cls.__init__

        @functools.wraps(init)
        def __init__(self: Any, *values: Any, **arguments: Any) -> None:
            old = {name: arguments.pop(name) for name in names if name in arguments}
            init(self, *values, **arguments)
            for name in old:
                warn_renamed(f"{cls.__name__}({name}=...)", names[name], stacklevel=2)
            take(self, old)

        cls.__init__ = __init__  # type: ignore[method-assign]
        return cls

    return decorate


def renamed(**names: str) -> Callable[[type[C]], type[C]]:
    """A class decorator: arguments and attributes of former names, each with the name that it has now, go on working."""

    def decorate(cls: type[C]) -> type[C]:
        init = cls.__init__

        @functools.wraps(init)
        def __init__(self: Any, *values: Any, **arguments: Any) -> None:
            for old, new in names.items():
                if old in arguments:
                    warn_renamed(f"{cls.__name__}({old}=...)", f"{cls.__name__}({new}=...)", stacklevel=2)
                    arguments[new] = arguments.pop(old)
            init(self, *values, **arguments)

        cls.__init__ = __init__  # type: ignore[method-assign]
        for old, new in names.items():
            setattr(cls, old, property(functools.partial(_present, cls.__name__, old, new)))
        return cls

    return decorate


def _present(cls: str, old: str, new: str, self: Any) -> Any:
    warn_renamed(f"{cls}.{old}", f"{cls}.{new}", stacklevel=2)
    return getattr(self, new)
