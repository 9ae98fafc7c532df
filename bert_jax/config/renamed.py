"""Former names of configuration values, which still work."""

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
"""Maps the former key of a configuration value to its current key."""
_REMOVED: tuple[Key, ...] = (("compute", "random_bits"),)
"""Keys of values that stored configurations may have and that no longer exist."""


class RenamedWarning(DeprecationWarning):
    """A configuration value was set by its former name."""


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that a value was renamed. The command line always shows the warning; programs show it if deprecation warnings are enabled."""
    warnings.warn(f"The configuration value {old} is now {new}; the old name still works.", RenamedWarning, stacklevel=stacklevel + 1)


def present_key(key: Key) -> Key:
    """Return the current name of a command-line key, with a warning if it was renamed."""
    if key not in _KEYS:
        return key
    warn_renamed(".".join(key), ".".join(_KEYS[key]))
    return _KEYS[key]


def present_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested values of a stored configuration under their current names."""
    found = _copy(values)
    for old, new in _KEYS.items():
        group = _group(found, old)
        if group is not None and old[-1] in group:
            value = group.pop(old[-1])
            target = found
            for name in new[:-1]:
                target = target.setdefault(name, {})
            target.setdefault(new[-1], value)
    for key in _REMOVED:
        (_group(found, key) or {}).pop(key[-1], None)
    return found


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _group(values: Any, key: Key) -> dict[str, Any] | None:
    for name in key[:-1]:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else None


def formerly(take: Callable[[Any, dict[str, Any]], None], **names: str) -> Callable[[type[C]], type[C]]:
    """Decorate a class so that its constructor still accepts arguments under former names.

    Args:
        take: called with the new object and the values of the former arguments.
        names: for each former name, the current spelling to show in the warning.
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
    """Decorate a class so that arguments and attributes still work under former names, each mapped to its current name."""

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
