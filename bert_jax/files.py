"""Files that are whole or not there at all, their hashes, and a directory that one process writes at a time."""

import fcntl
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bert_jax.errors import InputError

SEAL, LOCK = "SHA256SUMS", "lock"
_NEVER_SEALED = (SEAL, LOCK, "prepare.lock")


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is whole or as it was before, whatever happens, a loss of power too."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception:
        temporary.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Keeps other processes from writing a directory; the system takes the lock back when this one ends, however it ends.

    Raises:
        InputError: another process is writing it, naming that.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(
                f"Another process is writing {directory}: {file.read().strip() or 'which has just begun'}. Wait for it or stop it, or "
                "name another --workdir."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def seal(directory: Path) -> None:
    """Writes SHA256SUMS, as the program sha256sum does, over the files of a finished directory.

    Folders that have a seal of their own and checkpoints, which have manifests, are left out.
    """
    # What a crash left of a file half written is not part of what was finished.
    files = sorted(path for path in _unsealed(directory) if path.name not in _NEVER_SEALED and path.suffix != ".tmp")
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(sha256, files))
    lines = (f"{digest}  {path.relative_to(directory).as_posix()}\n" for digest, path in zip(digests, files, strict=True))
    write_whole(directory / SEAL, "".join(lines))


def _unsealed(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_file():
            yield path
        elif path.name != "checkpoints" and not (path / SEAL).exists():
            yield from _unsealed(path)


def check_seal(directory: Path, made_anew_without: Path | None = None, only: Callable[[Path], bool] = lambda path: True) -> None:
    """That the files of a finished directory are those that were written.

    Args:
        made_anew_without: what to remove, so that the same command makes the directory anew; the directory by default.
        only: which files are looked at.

    Raises:
        InputError: one is not.
    """
    if found := seal_faults(directory, only):
        more = f" ({len(found) - 1} more files too)" if len(found) > 1 else ""
        raise InputError(
            f"{found[0]}{more}. Restore it from a copy, or remove {made_anew_without or directory} and run the same command again, which "
            "makes it anew."
        )


def seal_faults(
    directory: Path, only: Callable[[Path], bool] = lambda path: True, on_read: Callable[[int], None] = lambda size: None
) -> list[str]:
    """What is no longer as it was sealed, a line for each file; nothing if there is no seal. Arguments as in `manifest.faults`."""
    path = directory / SEAL
    if not path.exists():
        return []
    try:
        lines = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
        sums = {directory / name: digest for digest, name in lines}
    except (OSError, ValueError):
        return [f"{path} cannot be read: it was damaged or edited"]

    def fault(file: Path) -> str:
        try:
            same = sha256(file) == sums[file]
            if same:
                on_read(file.stat().st_size)
        except FileNotFoundError:
            return f"{file} is missing"
        except (OSError, ValueError) as error:
            return f"{file} cannot be read ({error})"
        return "" if same else f"{file} is not what was written: its hash differs from that in {path.name}"

    with ThreadPoolExecutor() as pool:
        return [line for line in pool.map(fault, [file for file in sums if only(file)]) if line]
