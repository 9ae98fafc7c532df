"""The reference of all configuration values, from the dataclasses: `.ci/site_hooks.py` puts it into docs/configuration.md."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bert_jax.config import RunConfig
from bert_jax.tasks import choices


@dataclass(frozen=True)
class Section:
    """The values below one prefix: a dataclass with its defaults there and, if there are several such classes, the names that select it."""

    prefix: str
    config: Any
    names: tuple[str, ...] = ()


def sections() -> Iterator[Section]:
    """Yield all sections, in the order of the fields of `RunConfig`."""
    yield from _sections("", RunConfig(), choices())


def _sections(prefix: str, config: Any, classes: Mapping[type, Mapping[str, type]]) -> Iterator[Section]:
    yield Section(prefix, config)
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if not (group := _group(hints[field.name])):
            continue
        below = f"{prefix}.{field.name}".removeprefix(".")
        if group not in classes:
            yield from _sections(below, getattr(config, field.name) or group(), classes)
            continue
        for choice in dict.fromkeys(classes[group].values()):
            yield Section(below, choice(), tuple(name for name, one in classes[group].items() if one is choice))


def page() -> str:
    """Return the reference as Markdown.

    Raises:
        ValueError: fields have no meaning; the message names them all.
    """
    found = [*sections()]
    if missing := [name for section in found for name in unexplained(section.config)]:
        raise ValueError(f"These configuration fields have no docstring below them that says what they mean: {', '.join(missing)}.")
    known: set[str] = set()
    return "\n".join(part for section in found for part in _section(section, known))


def unexplained(config: Any) -> list[str]:
    """Return the fields of a dataclass, without those that are sections of their own, that have no docstring."""
    known = meanings(type(config))
    return [f"{type(config).__name__}.{field.name}" for field, _ in _values(config) if field.name not in known]


def meanings(cls: type) -> dict[str, str]:
    """Return the docstrings of the fields of a dataclass; a field that a subclass repeats without one has that of the base class."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if dataclasses.is_dataclass(one):
            body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0].body  # type: ignore[attr-defined]
            for node, after in itertools.pairwise(body):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
                    found[node.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return found


def _values(config: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Yield the fields that are values, and not the name of a task or modality, which selects the class and is in its title."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if not _group(hint) and not (get_origin(hint) is Literal and len(get_args(hint)) == 1):
            yield field, hint


def _section(section: Section, known: set[str]) -> Iterator[str]:
    yield f"\n## {section.prefix or 'The run'}{': ' * bool(section.names)}{section.names[0] if section.names else ''}\n"
    yield f"{inspect.getdoc(type(section.config))}\n"
    if section.names:
        cls, names = type(section.config), " or ".join(f"`{section.prefix}={name}`" for name in section.names)
        yield f"Selected by {names}, or in a file by `{cls.__module__}.{cls.__name__}`.\n"
    explained = meanings(type(section.config))
    for field, hint in _values(section.config):
        name = f"{section.prefix}.{field.name}".removeprefix(".")
        anchor = "" if name in known else f"{{ #{name} }}"
        known.add(name)
        yield f"`{name}`{anchor}: {_kind(hint)}; default {_shown(getattr(section.config, field.name))}\n:   {explained[field.name]}\n"


def _group(hint: Any) -> type | None:
    """Return the dataclass of a field that is a section of its own."""
    return next((one for one in get_args(hint) or (hint,) if isinstance(one, type) and dataclasses.is_dataclass(one)), None)


def _kind(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text", bool: "`true` or `false`", NoneType: "`none`"}
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        return f"{ {int: 'integers', str: 'texts'}[get_args(hint)[0]] } separated by commas"
    return names[hint] if hint in names else " or ".join(_kind(one) for one in get_args(hint))


def _shown(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    typed = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{typed}`" if typed else "empty"


if __name__ == "__main__":
    print(page())
