"""A run in a bucket: killed in the midst of a checkpoint, gone on with, verified, used; and one writer at a time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import children
import pytest
import tiny
from small_run import write_files

from bert_jax.cli import main
from bert_jax.errors import InputError
from bert_jax.modalities.text.files import list_files
from bert_jax.runtime.metrics import TIMINGS
from bert_jax.storage import bucket as room
from bert_jax.storage.files import on_disk, resolve_path

pytest.importorskip("gcsfs", reason="gcsfs is not installed: pip install gcsfs")
emulated = pytest.importorskip("emulated", reason="gcp-storage-emulator is not installed")

ROOT = Path(__file__).resolve().parents[1]

# A lock that a crash has left is watched for seconds here.
QUICK = "import sys; from bert_jax.storage import bucket; bucket.REFRESH, bucket.LOST = 0.3, 4.0; "
TRAIN = QUICK + "import train; sys.exit(train.main(sys.argv[1:]))"
JOIN = QUICK + (
    "import jax; jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2])); import train; sys.exit(train.main(sys.argv[3:]))"
)
HOLD = QUICK + (
    "from bert_jax.cli.program import run_command; from bert_jax.storage.files import has_writer, only_writer, resolve_path\n"
    "def hold():\n"
    "    with only_writer(resolve_path('gs://bucket/held')):\n"
    "        assert has_writer(resolve_path('gs://bucket/held')); print('held', flush=True); sys.stdin.read()\n"
    "    assert not has_writer(resolve_path('gs://bucket/held'))\n"
    "sys.exit(run_command(hold))"
)
WRITE = (
    "import sys; from bert_jax.cli.program import run_command; from bert_jax.storage.files import resolve_path, write_whole; "
    "sys.exit(run_command(lambda: write_whole(resolve_path(sys.argv[1]), 'text')))"
)

PRETRAIN = "steps=4, evaluation_batches=1, loop=LoopConfig(log_every=1, evaluate_every=2, save_every=2)"
FINETUNE = "loop=LoopConfig(log_every=2, evaluate_every=100, save_every=100)"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    with emulated.bucket() as made:
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, labelled reviews and a configuration for them."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, 100, 60, PRETRAIN, FINETUNE)
    return folder


def start(bucket: Any, files: Path | None, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    environment = children.environment(1) | bucket.environment() | ({"XDG_CACHE_HOME": str(files / "cache")} if files else {})
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(child: subprocess.Popen[str], wanted: int = 0) -> tuple[str, str]:
    """What it wrote to its output and errors, once it has ended with the wanted status."""
    try:
        output, errors = child.communicate(timeout=children.LIMIT)
    finally:
        child.kill()
    assert child.returncode == wanted, (output + errors)[-4000:]
    assert "Traceback" not in errors
    return output, errors


@pytest.fixture(scope="module")
def killed_once(bucket: Any, files: Path) -> str:
    """What a run says that goes on after a kill between the data and the manifest of its second checkpoint."""
    config = f"--config={files / 'config.py'}"
    child = start(bucket, files, "-c", TRAIN, config, "--workdir=gs://bucket/run")

    def kill(method: str, name: str) -> None:
        if method == "POST" and name.endswith("checkpoints/4/manifest.json"):
            child.kill()

    bucket.before = kill
    end(child, wanted=children.KILLED)
    bucket.before = lambda method, name: None
    checkpoints = {name.removeprefix("run/pretrain/checkpoints/") for name in bucket.names() if "/checkpoints/" in name}
    assert {"2/commit_success.txt", "2/manifest.json", "4/params/manifest.ocdbt"} <= checkpoints
    assert "4/commit_success.txt" not in checkpoints and "run/lock" in bucket.names()
    _, told = end(start(bucket, files, "-c", TRAIN, config, "--workdir=gs://bucket/run"))
    return told


def lines(text: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_in_a_bucket_is_killed_and_ends_as_one_on_a_disk(bucket: Any, files: Path, killed_once: str, tmp_path: Path) -> None:
    assert "waiting 4 s to see whether it is still running" in killed_once
    end(start(bucket, files, "train.py", f"--config={files / 'config.py'}", f"--workdir={tmp_path}"))
    for stage in ("pretrain", "finetune"):
        assert lines(bucket.read(f"run/{stage}/metrics.jsonl").decode()) == lines((tmp_path / stage / "metrics.jsonl").read_text())

    def outline(names: Iterator[str]) -> set[str]:
        """The files but for checkpoints and events, the names of which differ from run to run."""
        return {name for name in names if "checkpoints/" not in name and "tensorboard/" not in name and name != "lock"}

    on_a_disk = (path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    in_the_bucket = (name.removeprefix("run/") for name in bucket.names() if name.startswith("run/"))
    assert outline(in_the_bucket) == {name for name in outline(on_a_disk) if not name.startswith("data/")}
    assert any("pretrain/tensorboard/events" in name for name in bucket.names())
    assert json.loads(bucket.read("run/finetune/result.json")) == json.loads((tmp_path / "finetune" / "result.json").read_text())


@tiny.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_in_a_bucket_is_used_and_verified(bucket: Any, files: Path, killed_once: str, tmp_path: Path) -> None:
    del killed_once
    values = ["--config.pretrain=none", "--config.finetune.checkpoint=gs://bucket/run/pretrain", "--workdir=gs://bucket/classifier"]
    end(start(bucket, files, "train.py", f"--config={files / 'config.py'}", *values))
    output, _ = end(start(bucket, files, str(children.WORKERS / "bucket.py"), str(tmp_path / "exported")))
    found = json.loads(output.splitlines()[-1])
    assert found["whole"][0] == [] and found["whole"][1] > 50 and found["predictions"] == [3] and len(found["labels"]) == 2
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    assert found["damaged"] == [f"{found['flipped']} has changed since it was written: its hash differs"]
    assert found["flipped"] in found["refused"] and "damaged after it was written" in found["refused"]
    assert found["aside"] == ["2", "4.damaged"] and found["latest"] == 2


@tiny.long
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_of_one_run_are_killed_and_go_on(bucket: Any, files: Path) -> None:
    config = f"--config={files / 'config.py'}"

    def both() -> list[subprocess.Popen[str]]:
        address = f"localhost:{children.free_port()}"
        return [start(bucket, files, "-c", JOIN, address, str(process), config, "--workdir=gs://bucket/two") for process in range(2)]

    killed = both()

    def kill(method: str, name: str) -> None:
        if method == "POST" and name == "two/pretrain/checkpoints/4/manifest.json":
            for child in killed:
                child.kill()

    bucket.before = kill
    for child in killed:
        end(child, wanted=children.KILLED)
    bucket.before = lambda method, name: None
    for child in both():
        end(child)
    assert any("checkpoints/4/params/ocdbt.process_1" in name for name in bucket.names())
    assert "is intact" in end(start(bucket, files, "-m", "bert_jax", "verify", "gs://bucket/two"))[0]


@pytest.mark.slow
def test_a_second_writer_is_refused_and_a_crash_lets_go(bucket: Any) -> None:
    first = start(bucket, None, "-c", HOLD, stdin=subprocess.PIPE)
    assert first.stdout and first.stdout.readline() == "held\n"
    _, told = end(start(bucket, None, "-c", HOLD), wanted=2)
    assert f"Another process is writing gs://bucket/held: process {first.pid} on " in told
    first.kill()
    first.communicate()
    # Both see that it is dead, and one of them has the lock; it lets go once the other has been refused.
    heirs = [start(bucket, None, "-c", HOLD, stdin=subprocess.PIPE) for _ in range(2)]
    deadline = time.monotonic() + children.LIMIT
    while not any(heir.poll() is not None for heir in heirs) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sorted(heir.communicate(timeout=children.LIMIT)[0] for heir in heirs) == ["", "held\n"]
    assert sorted(heir.returncode for heir in heirs) == [0, 2]
    assert "held/lock" not in bucket.names()


def test_what_a_bucket_refuses_is_one_paragraph(bucket: Any) -> None:
    bucket.before = lambda method, name: HTTPStatus.FORBIDDEN if method == "POST" else None
    try:
        _, told = end(start(bucket, None, "-c", WRITE, "gs://bucket/refused"), wanted=1)
        _, at_first = end(start(bucket, None, "-c", HOLD), wanted=2)
    finally:
        bucket.before = lambda method, name: None
    assert "error: A file cannot be read or written (Forbidden" in told
    assert "error: gs://bucket/held cannot be written (PERMISSION_DENIED" in at_first


def test_paths_say_what_is_wrong_with_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://localhost:1")  # no search for credentials
    assert resolve_path("runs/demo") == Path.cwd() / "runs" / "demo" and str(resolve_path("gs://b/run/") / "lock") == "gs://b/run/lock"
    for text, told in (("s3://b/run", "neither on disk nor in Google"), ("gs://", "does not name a bucket")):
        with pytest.raises(InputError, match=told):
            resolve_path(text)
    with pytest.raises(InputError, match=r"corpus\.data_dir gs://b/data cannot be in a bucket"):
        on_disk("gs://b/data", "corpus.data_dir")
    with pytest.raises(InputError, match="The corpus gs://b/text cannot be in a bucket"):
        list_files("gs://b/text")
    with pytest.raises(SystemExit):
        main(["export", "runs/demo/pretrain", "gs://b/exported"])
    assert "cannot be in a bucket" in capsys.readouterr().err

    def absent() -> None:
        raise ImportError("gcsfs")

    monkeypatch.setattr(room, "_files", absent)
    with pytest.raises(InputError, match=r"needs the package gcsfs: pip install gcsfs"):
        resolve_path("gs://b/run")
    assert os.environ["EPATH_USE_TF"] == "no"
