"""Files kept for the next start: found again, rebuilt when damaged, limited in size, and never an error."""

import os
from pathlib import Path

import children
import pytest

from bert_jax.runtime import cache


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    return tmp_path / "bert_jax" / "compiled"


def made(content: bytes = b"content") -> tuple[bytes, int]:
    """What is kept under a key, and how often it was made for that."""
    calls = []

    def make() -> bytes:
        calls.append(1)
        return content

    return cache.kept("key", make, "graphs"), len(calls)


def test_content_is_made_once(root: Path) -> None:
    assert made() == (b"content", 1)
    assert made() == (b"content", 0)
    assert [path.name for path in root.glob("*/*")] == ["key"]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:-1] + b"X", lambda data: data[:20]])
def test_a_damaged_file_is_made_again(root: Path, damage: object) -> None:
    made()
    [path] = root.glob("*/*")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert made() == (b"content", 1)
    assert made() == (b"content", 0)


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no"])
def test_the_variable_turns_it_off(root: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(cache.VARIABLE, value)
    assert made() == (b"content", 1) == made()
    assert not root.exists()


def test_what_depends_on_the_cpu_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "cpu_features", lambda: frozenset({"avx2", "fma"}))
    here = cache.folder("programs", "1.0")
    assert here == cache.folder("programs", "1.0") != cache.folder("programs", "1.1")
    monkeypatch.setattr(cache, "cpu_features", lambda: frozenset({"avx2"}))
    assert cache.folder("programs", "1.0") != here


def test_a_cpu_has_features() -> None:
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("this system has no /proc/cpuinfo")
    assert cache.cpu_features() & {"sse2", "asimd", "fp"}


def test_a_folder_that_cannot_be_made_is_no_error(root: Path) -> None:
    root.parent.write_text("a file is in the way")
    assert cache.folder("programs") is None
    assert made() == (b"content", 1) == made()


def test_a_folder_that_others_can_write_to_is_not_used(root: Path) -> None:
    made()
    root.chmod(0o777)
    assert cache.folder("graphs") is None
    assert made() == (b"content", 1)
    root.chmod(0o700)
    assert made() == (b"content", 0)


def test_the_files_unused_for_longest_are_deleted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = cache.folder("programs")
    assert directory
    for age, name in enumerate(("new", "used", "old", "oldest")):
        (directory / name).write_bytes(bytes(100))
        os.utime(directory / name, (1000 - 10 * age, 1000 - 10 * age))
    monkeypatch.setattr(cache, "MOST_BYTES", 250)
    cache.folder("programs")
    assert {path.name for path in directory.iterdir()} == {"new", "used"}


def test_programs_are_kept_between_commands(root: Path, tiny_classifier: Path) -> None:
    environment = {name: value for name, value in children.environment(1).items() if not name.startswith("JAX_COMPILATION")}
    command = [children.sys.executable, "-W", "error", "-m", "bert_jax", "classify", str(tiny_classifier), "the cat"]

    def answer() -> str:
        return children.subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=children.LIMIT).stdout

    first = answer()
    kept = {path: path.stat().st_mtime_ns for path in root.glob("*/jit_class_probabilities-*-cache")}
    assert kept
    assert answer() == first
    assert {path: path.stat().st_mtime_ns for path in root.glob("*/jit_class_probabilities-*-cache")} == kept
