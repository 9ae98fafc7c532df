"""Files that are whole or not there, sealed directories, and one writer at a time."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bert_jax.errors import InputError
from bert_jax.storage.files import SEAL, check_seal, has_writer, only_writer, seal, seal_faults, write_whole

HOLD = """
import sys, time
from pathlib import Path
from bert_jax.storage.files import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_crash_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout and other.stdout.readline() == "held\n"
            told = rf"Another process is writing .*process {other.pid} on {socket.gethostname()}"
            with pytest.raises(InputError, match=told), only_writer(tmp_path):
                raise AssertionError
        finally:
            other.send_signal(signal.SIGKILL)
    assert not has_writer(tmp_path)
    with only_writer(tmp_path):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} ") and has_writer(tmp_path)
    # Who looks at the lock at the same moment stops nobody.
    with (tmp_path / "lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        look_away = threading.Timer(0.01, fcntl.flock, (looking, fcntl.LOCK_UN))
        look_away.start()
        with only_writer(tmp_path):
            pass
        look_away.join()


def test_a_seal_tells_what_changed(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "checkpoints").mkdir()
    for name in ("one", "inner/two", "own/three", "checkpoints/four", "lock"):
        (tmp_path / name).write_text(name)
    (tmp_path / f"{SEAL}.tmp").write_text("what a crash left")
    seal(tmp_path / "own")
    seal(tmp_path)
    assert {line.split("  ")[1] for line in (tmp_path / SEAL).read_text().splitlines()} == {"one", "inner/two"}
    assert subprocess.run(["sha256sum", "--check", "--quiet", SEAL], cwd=tmp_path, check=False).returncode == 0
    check_seal(tmp_path)
    (tmp_path / "inner" / "two").write_text("2")
    (tmp_path / "one").unlink()
    assert [str(tmp_path / "inner" / "two") in line for line in seal_faults(tmp_path)] == [True, False]
    words = r"two has changed since it was written.*2 damaged files in total.*remove .* and run the same command again"
    with pytest.raises(InputError, match=words):
        check_seal(tmp_path)
    check_seal(tmp_path, only=lambda path: path.suffix == ".json")


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", "before")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "file", "\ud800")
    assert (tmp_path / "file").read_text() == "before"
