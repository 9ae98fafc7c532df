"""The lock is what `requirements.txt` asks for, whole, with hashes; SECURITY.md says how it is made."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
REMEDY = "make requirements-lock.txt anew, as SECURITY.md says"


def wanted() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


def locked() -> dict[str, list[Requirement]]:
    """By name, for some packages have another version on another Python."""
    lines = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    found: dict[str, list[Requirement]] = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            pin, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
            assert hashes and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes), line[:80]
            requirement = Requirement(pin)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_the_lock_pins_what_is_required() -> None:
    lock = locked()
    for requirement in wanted():
        pins = lock.get(canonicalize_name(requirement.name), [])
        assert pins and all(pin.specifier == requirement.specifier for pin in pins), f"{requirement}: {REMEDY}"
    for pin in (pin for pins in lock.values() for pin in pins):
        assert [clause.operator for clause in pin.specifier] == ["=="], f"{pin}: {REMEDY}"


def test_the_lock_holds_what_they_need_in_turn() -> None:
    """Followed through the packages that are installed here."""
    lock = locked()
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [(requirement.name, frozenset(requirement.extras)) for requirement in wanted()]
    while left:
        name, extras = left.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needs = importlib.metadata.requires(name) or []
            if all(importlib.metadata.version(name) not in pin.specifier for pin in lock[canonicalize_name(name)]):
                continue  # another version than the locked one may need something else
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                pins = [pin for pin in lock.get(canonicalize_name(need.name), []) if pin.marker is None or pin.marker.evaluate()]
                assert len(pins) == 1, f"{name} needs {need}: {REMEDY}"
                assert need.specifier.contains(next(iter(pins[0].specifier)).version, prereleases=True), f"{name} needs {need}: {REMEDY}"
                left.append((need.name, frozenset(need.extras)))
