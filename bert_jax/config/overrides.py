"""Load configuration files and apply `--config.a.b=value` overrides from the command line.

The syntax is that of `ml_collections.config_flags`, which cannot set the fields of frozen dataclasses. All overrides are
applied together and validated once, so `encoder.width` and `encoder.heads` may be given in any order.
"""

import dataclasses
import difflib
import math
import re
import runpy  # noqa: TID251  # a configuration file is the program of the user who names it
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from bert_jax.config import EncoderConfig, RunConfig, to_dict
from bert_jax.config.renamed import present_key, present_values
from bert_jax.errors import InputError
from bert_jax.storage.files import on_disk

C = TypeVar("C")
Key = tuple[str, ...]
Choices = Mapping[type, Mapping[str, type]]
"""For a class with a field that selects a subclass (`CHOSEN_BY`): the possible classes, keyed by the value of that field."""
NO_CHOICES: Choices = {}


def load_config(path: str | Path, choices: Choices = NO_CHOICES) -> RunConfig:
    """Return the `RunConfig` from `get_config()` of a Python file. The file is executed as the user's own program.

    If there is no such file, `configs/demo.py`, `demo.py` and `demo` refer to the configuration of that name in the package.

    Raises:
        InputError: the file does not exist, it raises an exception (reported with its line), or it returns something else.
    """
    path = _config_file(str(path))
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        config = get_config() if callable(get_config) else None
    except Exception as error:
        raise InputError(f"{_location(path, error)}: {_explain(error)}") from error
    if not isinstance(config, RunConfig):
        missing = "has no function get_config()" if get_config is None else f"returns {type(config).__name__} from get_config()"
        raise InputError(f"The configuration file {path} {missing}; define get_config() -> bert_jax.config.RunConfig.")
    try:
        return from_dict(RunConfig, to_dict(config), choices)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def shipped_configs() -> Path:
    """Return the folder of the bundled configurations: next to the package in a checkout, inside it when installed."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def _config_file(typed: str) -> Path:
    path, shipped = on_disk(typed, "The configuration file"), shipped_configs()
    if path.is_file():
        return path
    relative = Path(typed)
    if relative.parent in (Path(), Path("configs")) and (found := shipped / f"{relative.stem}.py").is_file():
        return found
    names = {file.name: str(relative.parent / file.name) for file in path.parent.glob("*.py")}
    names = {file.name: f"configs/{file.name}" for file in shipped.glob("*.py")} | names
    near = difflib.get_close_matches(f"{relative.stem}.py", names, n=3, cutoff=0.5)
    raise InputError(f"There is no configuration file {typed}.{_did_you_mean([names[name] for name in near])}")


def apply_overrides(config: C, overrides: Sequence[str], choices: Choices = NO_CHOICES) -> C:
    """Apply overrides of the form `a.b=value` to a configuration, parsing values by the type annotations of the fields.

    Booleans are `true` or `false`, tuple elements are separated by commas, and `finetune=none` drops a stage. `encoder=small`
    sets the sizes and initializers of a preset and leaves dropout, positions and segments unchanged; more specific overrides
    such as `encoder.heads=8` take precedence in any order. `finetune.task=NAME` selects a task. Any value of `adapt` adds that stage.
    The last value of a key wins.

    Raises:
        InputError: a key is unknown (the message suggests the closest ones) or belongs to a stage that the configuration does
            not have, or a value has the wrong type or is out of range.
    """
    changes: dict[Key, str] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise InputError(f"--config.{override} is not an override; write --config.{path or 'KEY'}=VALUE.")
        changes[present_key(tuple(path.split(".")))] = text
    return _Parser(type(config), choices, "--config.").changed(config, changes, ())


def from_dict(cls: type[C], values: Mapping[str, Any], choices: Choices = NO_CHOICES) -> C:
    """Build a dataclass from the output of `config.to_dict`. Missing fields take their defaults.

    Raises:
        InputError: a key is unknown, or a value has the wrong type or is out of range.
    """
    return _Parser(cls, choices).built(cls, present_values(values) if cls is RunConfig and isinstance(values, Mapping) else values, ())


def differences(a: Any, b: Any) -> list[str]:
    """Return a line `dotted.path: value in a -> value in b` for each field that differs between two configurations of a class."""
    return _differences(to_dict(a), to_dict(b), ())


def _differences(a: Any, b: Any, at: Key) -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return [line for name in {**a, **b} for line in _differences(a.get(name), b.get(name), (*at, name))]
    return [] if a == b else [f"{'.'.join(at)}: {_shown(a)} -> {_shown(b)}"]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "present"
    return {None: "none", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)


@dataclass(frozen=True)
class _Parser:
    """Parses the values of a configuration of class `root`; `prefix` precedes its keys in error messages."""

    root: type
    choices: Choices
    prefix: str = ""

    def changed(self, config: C, changes: Mapping[Key, str], at: Key) -> C:
        hints = get_type_hints(type(config))
        below: dict[str, dict[Key, str]] = {}
        for key, text in changes.items():
            below.setdefault(key[0], {})[key[1:]] = text
        values: dict[str, Any] = {}
        for name, texts in below.items():
            path = (*at, name)
            group = _group(hints.get(name))
            if name not in hints or (group is None and set(texts) != {()}):
                raise self.unknown_key((*path, *max(texts)), type(config), name)
            value = getattr(config, name)
            if group is None:
                values[name] = _checked(_from_text(texts[()], hints[name]), hints[name], path, self.prefix)
                continue
            if group in self.choices and type(value) not in self.choices[group].values():
                value = self.built(group, to_dict(value), path)
            if () in texts:
                value = self.group_value(texts.pop(()), value, group, hints[name], path)
            if texts and value is None and getattr(group, "ADDABLE", False):
                value = group()
            if texts and value is None:
                raise InputError(
                    f"--config.{'.'.join((*path, *next(iter(texts))))}: this configuration has no {'.'.join(path)} stage. "
                    f"Use a configuration that has one, or drop the override."
                )
            values[name] = self.changed(value, texts, path) if texts else value
        return self.made(lambda: dataclasses.replace(config, **values), at)  # type: ignore[type-var]

    def group_value(self, text: str, value: Any, group: type, hint: Any, path: Key) -> Any:
        if isinstance(value, EncoderConfig):
            return self.made(lambda: value.resized(text), path)
        if group in self.choices:
            chosen = self.chosen(group, text, path)
            if not isinstance(value, chosen):
                value = self.made(chosen, path)
            return self.built(group, to_dict(value) | {group.CHOSEN_BY: text}, path)  # type: ignore[attr-defined]
        if text.lower() == "none" and NoneType in get_args(hint):
            return None
        none = " (or none to drop it)" if NoneType in get_args(hint) else ""
        names = ", ".join(field.name for field in dataclasses.fields(group))
        raise InputError(f"--config.{'.'.join(path)} is a group of values{none}: set one of its fields {names}, not the group to {text!r}.")

    def chosen(self, group: Any, name: Any, path: Key) -> Any:
        """Return the class that `name` selects."""
        classes = self.choices[group]
        if not isinstance(name, str) or name not in classes:
            near = _did_you_mean(difflib.get_close_matches(str(name), classes, n=1))
            raise _wrong_value(name, f"one of {', '.join(classes)}", path, self.prefix, near)
        return classes[name]

    def built(self, cls: Any, values: Any, at: Key) -> Any:
        if not isinstance(values, Mapping):
            raise _wrong_value(values, "a group of values", at, "")
        if cls in self.choices:
            default = next(field.default for field in dataclasses.fields(cls) if field.name == cls.CHOSEN_BY)
            cls = self.chosen(cls, values.get(cls.CHOSEN_BY, default), (*at, cls.CHOSEN_BY))
            # A class chosen by several names stores which; one chosen by its own name has it as the default.
            kept = next(field for field in dataclasses.fields(cls) if field.name == cls.CHOSEN_BY).init
            values = {name: value for name, value in values.items() if kept or name != cls.CHOSEN_BY}
        elif hasattr(cls, "unchecked"):
            return self.made(lambda: cls.unchecked(values), at)
        hints = get_type_hints(cls)
        unknown = [name for name in values if name not in hints or get_origin(hints[name]) is ClassVar]
        if unknown:
            raise self.unknown_key((*at, str(unknown[0])), cls, str(unknown[0]))
        arguments: dict[str, Any] = {}
        for name, value in values.items():
            group = _group(hints[name])
            if group is None:
                arguments[name] = _checked(value, hints[name], (*at, name), "")
            elif value is None and NoneType in get_args(hints[name]):
                arguments[name] = None
            else:
                arguments[name] = self.built(group, value, (*at, name))
        return self.made(lambda: cls(**arguments), at)

    def made(self, make: Callable[[], C], at: Key) -> C:
        """Return `make()`, prefixing the messages of validation errors with the group of values that they concern."""
        try:
            return make()
        except InputError as error:
            raise InputError(f"{self.prefix}{'.'.join(at)}: {error}" if at else str(error)) from error

    def unknown_key(self, path: Key, owner: type, name: str) -> InputError:
        """Return the error for a key with a component `name` that the class `owner` does not have."""
        key, choices = ".".join(path), dict(self.choices)
        for group, classes in self.choices.items():
            if owner in classes.values():
                choices[group] = {"": owner}  # what the other choices have cannot be set
                names: dict[type, str] = {}
                for choice, one in classes.items():
                    names.setdefault(one, choice)
                having = [choice for one, choice in names.items() if name in get_type_hints(one)]
                if having:
                    at = f"{self.prefix}{'.'.join(path[: path.index(name)])}"
                    return InputError(
                        f"{self.prefix}{key} belongs to {at}={' or '.join(having)}, but this configuration has {names[owner]}. "
                        f"Drop it, or set {at} too."
                    )
        near = _did_you_mean(_nearest(key, self.root, choices), self.prefix)
        return InputError(f"There is no configuration value {self.prefix}{key}.{near}")


def _group(hint: Any) -> type | None:
    """Return the dataclass `X` of an annotation `X` or `X | None`; None for other annotations."""
    return next((t for t in (hint, *get_args(hint)) if isinstance(t, type) and dataclasses.is_dataclass(t)), None)


def _from_text(text: str, hint: Any) -> Any:
    """Parse text by its annotation; text that cannot be parsed is returned unchanged, for `_checked` to reject."""
    if hint is int or hint is float:
        try:
            return hint(text)
        except ValueError:
            return text
    if bool in (hint, *get_args(hint)):
        return {"true": True, "false": False}.get(text.lower(), text)
    if get_origin(hint) is tuple:
        return [_from_text(part.strip(), get_args(hint)[0]) for part in text.split(",")] if text else []
    return text


def _checked(value: Any, hint: Any, path: Key, prefix: str) -> Any:
    if bool in get_args(hint):  # a boolean or a word
        if type(value) is bool:
            return value
        words = next(get_args(part) for part in get_args(hint) if part is not bool)
        if value not in words:
            raise _wrong_value(value, f"one of true, false, {', '.join(words)}", path, prefix)
        return value
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if not isinstance(value, str) or value not in choices:
            near = _did_you_mean(difflib.get_close_matches(str(value), choices, n=1))
            raise _wrong_value(value, f"one of {', '.join(choices)}", path, prefix, near)
        return value
    if get_origin(hint) is tuple:
        part_type = get_args(hint)[0]
        if not isinstance(value, list | tuple) or not all(type(part) is part_type for part in value):
            expected = {int: "integers", str: "strings"}[part_type]
            raise _wrong_value(value, f"{expected} (separated by commas on the command line)", path, prefix)
        return tuple(value)
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping) or not all(isinstance(part, str) for part in (*value, *value.values())):
            raise _wrong_value(value, "a mapping of strings to strings", path, prefix)
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if type(value) is not hint or hint is float:
        expected = {int: "an integer", float: "a finite number", bool: "true or false", str: "a string"}[hint]
        raise _wrong_value(value, expected, path, prefix)
    return value


def _wrong_value(value: Any, expected: str, path: Key, prefix: str, hint: str = "") -> InputError:
    shown = value if isinstance(value, str) else repr(value)
    return InputError(f"{prefix}{'.'.join(path)}={shown} is invalid: it must be {expected}.{hint}")


def _nearest(key: str, root: type, choices: Choices = NO_CHOICES) -> list[str]:
    """Return up to three dotted paths similar to `key` in the last component, else in full; failing that, all top-level names."""

    def similarity(a: str, b: str) -> float:
        return difflib.SequenceMatcher(None, a, b).ratio()

    paths = _paths(root, (), choices)
    name = key.rpartition(".")[2]
    scores = {path: (similarity(path.rpartition(".")[2], name), similarity(path, key)) for path in paths}
    similar = sorted((path for path in paths if scores[path][0] >= 0.75), key=lambda path: scores[path], reverse=True)
    return similar[:3] or difflib.get_close_matches(key, paths, n=3) or [path for path in paths if "." not in path]


def _paths(cls: Any, at: Key, choices: Choices) -> list[str]:
    paths: dict[str, None] = {}
    for one in dict.fromkeys(choices.get(cls, {"": cls}).values()):
        hints = get_type_hints(one)
        for field in dataclasses.fields(one):
            group = _group(hints[field.name])
            paths[".".join((*at, field.name))] = None
            paths |= dict.fromkeys(_paths(group, (*at, field.name), choices) if group else ())
    return list(paths)


def _did_you_mean(names: Sequence[str], prefix: str = "") -> str:
    return f" Did you mean {' or '.join(prefix + name for name in names)}?" if names else ""


def _location(path: Path, error: Exception) -> str:
    """Return the file and the innermost line of it in the traceback."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _explain(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    keyword = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    near = _did_you_mean(_nearest(keyword.group(1), RunConfig)) if keyword else ""
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}.{near}"
