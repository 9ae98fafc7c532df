"""Storage failures: the run reports the failure in one paragraph and fails; committed files stay intact, and the next start resumes."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import children
import pytest
import tiny
import toy

from bert_jax.config import LoopConfig
from bert_jax.errors import print_unraisable, storage_failure
from bert_jax.training.checkpoints.verification import faults
from bert_jax.training.loop import train

LOOP = {"log_every": 2, "evaluate_every": 4, "save_every": 2, "keep": 2}
STEPS = 8
BROKEN = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>
static volatile int broken;
void break_now(void) { broken = 1; }
#define REFUSE(file) if (broken && (file) > 2) { errno = EIO; return -1; }
ssize_t write(int file, const void *data, size_t size) {
    REFUSE(file) return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    REFUSE(file) return ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite"))(file, data, size, at);
}
int fsync(int file) { REFUSE(file) return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file); }
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    train_to_the_end(directory)
    return directory


def train_to_the_end(directory: Path) -> None:
    job = toy.toy(directory, STEPS, LoopConfig(**LOOP))
    try:
        train(job)
    finally:
        job.batches.close()


def train_until(directory: Path, preload: Path | None, **fault: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as the command line would."""
    arguments = {"directory": str(directory), "steps": STEPS, "loop": LOOP} | fault
    environment = children.environment(1) | ({"LD_PRELOAD": str(preload)} if preload else {})
    command = [sys.executable, str(children.WORKERS / "faulty.py"), json.dumps(arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=children.LIMIT, check=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("only the superuser can mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Makes every write fail once it is switched on."""
    source = tmp_path / "broken.c"
    source.write_text(BROKEN)
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("there is no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(tmp_path / "broken.so"), str(source), "-ldl"], check=True)
    return tmp_path / "broken.so"


# In the midst of the run, and so late that nothing but the last save meets it.
@pytest.mark.slow
@pytest.mark.parametrize(("at", "after"), [pytest.param(5, 4, marks=tiny.long), (STEPS, 6)])
@pytest.mark.parametrize(
    ("fault", "word"),
    [("small_files", "File too large"), ("full", "No space left"), ("read_only", "Permission denied"), ("broken", "Input/output error")],
)
def test_storage_that_fails_fails_the_run(
    undisturbed: Path, tmp_path: Path, request: pytest.FixtureRequest, fault: str, word: str, at: int, after: int
) -> None:
    directory = (request.getfixturevalue("small_disk") if fault == "full" else tmp_path) / "stage"
    preload = request.getfixturevalue("library") if fault == "broken" else None
    if fault == "read_only":
        if os.getuid():
            pytest.skip("only the superuser can become somebody else")
        for path in (tmp_path, *tmp_path.parents[:2]):
            path.chmod(0o755)
    failed = train_until(directory, preload, fault=fault, at=at, after=after)
    assert failed.returncode == 1, f"{toy.steps_kept(directory)} {failed.stderr[-4000:]}"
    told = failed.stderr.strip().splitlines()
    assert told[-1].startswith("error: ") and word in told[-1] and "Traceback" not in failed.stderr, failed.stderr[-4000:]
    kept = toy.steps_kept(directory)
    assert kept[-1] == after and not any(faults(directory / "checkpoints" / str(step)) for step in kept)
    # Once storage works again, another process resumes as if nothing had happened.
    (directory / "filler").unlink(missing_ok=True)
    (directory / "checkpoints").chmod(0o755)
    train_to_the_end(directory)
    assert toy.lines(directory) == toy.lines(undisturbed)
    parameters = [toy.parameters(one, STEPS, toy.toy_parameters()) for one in (directory, undisturbed)]
    assert toy.same_bits(*parameters)
    assert not list((directory / "checkpoints").glob("*tmp*"))


def test_of_a_save_that_failed_nothing_is_told_but_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError) as raised:
        loop.call_soon_threadsafe(print)
    called_by_us = raised.value.__traceback__
    assert called_by_us
    told: list[Any] = []
    monkeypatch.setattr(sys, "__unraisablehook__", told.append)
    from_no_code, from_ours = (
        SimpleNamespace(exc_value=raised.value, exc_traceback=traceback) for traceback in (called_by_us.tb_next, called_by_us)
    )
    print_unraisable(from_no_code)
    print_unraisable(from_ours)
    assert told == [from_ours]


def test_what_storage_says_is_told_from_faults_of_the_program() -> None:
    assert storage_failure(OSError(28, "x", "file")) == "No space left on device: file"
    assert storage_failure(ValueError("INTERNAL: Error writing: No space left on device [x.cc:1]")) == "No space left on device"
    assert storage_failure(FileNotFoundError(2, "x")) == storage_failure(ValueError("space")) == ""
