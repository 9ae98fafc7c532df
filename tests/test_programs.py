"""Compiled programs that are kept between starts: found again, only by the same kind of CPU, and never a reason to fail."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from bert_jax.runtime import programs

ROOT = Path(__file__).parents[1]
SCRIPT = """
import time, jax, jax.numpy as jnp
from bert_jax.runtime.programs import keep_programs
keep_programs()
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.rpartition("/")[2]))
def f(x):
    for i in range(150):
        x = jnp.sin(x) @ x + i
    return x
jax.jit(f)(jnp.ones((8, 8))).block_until_ready()
print(jax.config.jax_compilation_cache_dir, "cache_hits" in events)
"""


def start(cache: Path, **environment: str) -> tuple[str, bool]:
    """The folder that a process keeps programs in, and whether it found one there; of what it says, only warnings are allowed."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XDG_"))}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True,
        env=cleared | {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip
    assert not ran.stderr or ("Warning: Error reading" in ran.stderr and "Traceback" not in ran.stderr), ran.stderr
    folder, found = ran.stdout.split()
    return folder, found == "True"


def test_a_program_is_found_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "bert_jax" / "programs" / programs.cpu_kind()
    assert start(tmp_path) == (str(folder), False)
    assert start(tmp_path) == (str(folder), True)
    assert not folder.stat().st_mode & 0o077, "the user's alone"
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert start(tmp_path) == (str(folder), False), "a program that was cut off is compiled again"
    other = tmp_path / "other"
    assert start(tmp_path, JAX_COMPILATION_CACHE_DIR=str(other)) == (str(other), False), "a folder of the user's choice"


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without programs; the configuration of JAX as it was afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before, least = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def test_it_can_be_turned_off(unset: Path) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        programs.keep_programs()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir is None and not [*unset.iterdir()]


def test_a_folder_that_cannot_be_written_or_that_others_can_write_is_not_used(unset: Path) -> None:
    (unset / "bert_jax").write_text("a file in the way")
    programs.keep_programs()
    assert jax.config.jax_compilation_cache_dir is None
    (unset / "bert_jax").unlink()
    folder = unset / "bert_jax" / "programs" / programs.cpu_kind()
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    programs.keep_programs()
    assert jax.config.jax_compilation_cache_dir is None, "another user's program would run here"
    folder.chmod(0o755)
    programs.keep_programs()
    assert jax.config.jax_compilation_cache_dir == str(folder)


def test_the_oldest_programs_make_room(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unset / "bert_jax" / "programs" / programs.cpu_kind()
    folder.mkdir(parents=True, mode=0o700)
    for age in range(5):
        (folder / f"{age}-cache").write_bytes(bytes(100))
        os.utime(folder / f"{age}-cache", (10**9 - age, 10**9 - age))
    monkeypatch.setattr(programs, "_MOST_BYTES", 250)
    programs.keep_programs()
    assert sorted(path.name for path in folder.iterdir()) == ["0-cache", "1-cache"]


def test_each_kind_of_cpu_has_programs_of_its_own(tmp_path: Path) -> None:
    def kind(text: str) -> str:
        (tmp_path / "cpuinfo").write_text(text)
        return programs.cpu_kind(tmp_path / "cpuinfo")

    zen = "processor : 0\nmodel name : AMD EPYC 9B14\ncpu MHz : 2600.0\nflags : fpu avx2 avx512f\n"
    assert kind(zen) == kind(zen.replace("2600.0", "3100.5") + "\nprocessor : 1\nflags : fpu\n"), "the clock does not matter"
    others = [zen.replace(" avx512f", ""), zen.replace("9B14", "7B13"), "processor : 0\nFeatures : fp asimd sve\n"]
    assert len({kind(text) for text in (zen, *others)}) == 4
    assert programs.cpu_kind(tmp_path / "missing") == programs.cpu_kind(tmp_path / "missing")
