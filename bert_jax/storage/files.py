"""Files that are whole or not there at all, their hashes, and a directory that one process writes at a time.

This room alone knows whether a directory is on a disk or in a bucket (`gs://...`); elsewhere a path is a path.
"""

import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from bert_jax.errors import InputError, as_typed, remember_typed

SEAL, LOCK = "SHA256SUMS", "lock"
_NEVER_SEALED = (SEAL, LOCK, "prepare.lock")


def resolve_path(text: str | Path) -> Path:
    """The path that a user names: absolute on a disk, or `gs://bucket/...` in Google Cloud Storage, which has the same methods.

    This is called once, where a path comes in: Orbax takes no relative path, and the working directory may change later. `~` is
    the home directory; folders on the way are resolved, but not a last component that is a link, whose name may say what the file
    holds. Messages show the path as it was typed (`errors.as_typed`).

    Raises:
        InputError: an empty path, a URL of another kind, a Windows path, no bucket, or the package for it is not installed.
    """
    if not isinstance(text, str | Path):
        return text  # in a bucket already, which is not what its type says
    if isinstance(text, str) and text.startswith("gs://"):
        from bert_jax.storage.bucket import bucket_path  # half a second that those with a disk need not wait

        return cast(Path, bucket_path(text))
    typed = str(text)
    _refuse_strange(typed)
    try:
        # Not Path.expanduser, for which ./~me and ~me are one. Like a shell it leaves ~me alone where there is no such user.
        path = Path(os.path.expanduser(typed)).absolute()  # noqa: PTH111
        path = path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, RuntimeError) as error:  # no working directory, links in a circle
        raise InputError(f"The path {typed} cannot be followed ({error}). Check it, or write the whole path from the root.") from None
    # A whole path counts as words too, where it was named by others before.
    if typed != str(path) or (isinstance(text, str) and as_typed(typed) != typed):
        remember_typed(path, typed)
    return path


def _refuse_strange(typed: str) -> None:
    """Raises InputError for what no path on a disk of this system is meant to be."""
    if not typed.strip():
        raise InputError("A path is empty. Name a file or a directory; the working directory is `.`")
    if "\0" in typed:
        raise InputError(f"The path {typed!r} holds a NUL character, which no file name can. Check it.")
    if typed.startswith("file:"):
        raise InputError(f"{typed} is a URL. Name the path itself, such as {re.sub('^file:/*', '/', typed)}.")
    if "://" in typed:
        raise InputError(f"{typed} is neither on a disk nor in Google Cloud Storage. Name a directory, or gs://BUCKET/FOLDER.")
    if typed.startswith("~/") and os.path.expanduser(typed) == typed:  # noqa: PTH111
        raise InputError(f"{typed} is in a home directory, and this user has none (HOME is not set). Write the whole path.")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", typed):
        raise InputError(f"{typed} is a Windows path, and bert_jax runs on Linux and macOS. In WSL, C:\\data is /mnt/c/data.")


def on_disk(text: str | Path, what: str) -> Path:
    """The path of what is read or written on a disk alone, as `resolve_path` gives it.

    Raises:
        InputError: it is in a bucket, or as in `resolve_path`.
    """
    if str(text).startswith("gs://"):
        raise InputError(f"{what} {text} cannot be in a bucket: name a place on a disk, and copy it with `gcloud storage cp`.")
    return resolve_path(text)


def _in_bucket(path: Path) -> Any:
    """The path if it is in a bucket, which is not what its type says; None for one on a disk."""
    return None if isinstance(path, Path) else path


def disk_folder(directory: Path) -> Path:
    """Where on this host's disk is kept what cannot be read from a bucket; a directory on a disk itself."""
    if not _in_bucket(directory):
        return directory
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "bert_jax" / str(directory).replace("://", "/")


def make_directory(directory: Path) -> None:
    """Makes a directory, and those that it is in, where they are missing; errors as in `check_directory`."""
    check_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)


def check_directory(directory: Path) -> None:
    """Raises InputError where there is no directory and none can be made, since a file is in the way."""
    if _in_bucket(directory):
        return
    nearest = next(path for path in (directory, *directory.parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise InputError(f"There can be no directory {directory}, since {nearest} is not a directory. Name another place.")


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is whole or as it was before, whatever happens, a loss of power too."""
    if _in_bucket(path):
        path.write_text(text, encoding="utf-8")  # an object is put whole
        return
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


def sync(path: Path) -> None:
    """Has a file on the disk before anything is said of it; what is in a bucket was there when its writer came back."""
    if not _in_bucket(path):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def sizes_below(directory: Path) -> Mapping[Path, int]:
    """The files below a directory, and their sizes."""
    if bucket := _in_bucket(directory):
        return cast(Mapping[Path, int], bucket.sizes_below())
    return {path: path.stat().st_size for path in directory.rglob("*") if path.is_file()}


def special_files(directory: Path) -> list[Path]:
    """What is below a directory and is neither a file nor a folder: links, pipes, devices. A bucket holds no such thing."""
    if _in_bucket(directory):
        return []
    return sorted(path for path in directory.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir()))


def remove(directory: Path) -> None:
    """Removes a directory with everything in it, if it is there, as far as that is possible."""
    if bucket := _in_bucket(directory):
        bucket.rmtree(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def committed(checkpoint: Path) -> bool:
    """Whether Orbax has finished a checkpoint: on a disk it gives the directory its name last, in a bucket it adds an object last."""
    return checkpoint.name.isdigit() and (not _in_bucket(checkpoint) or (checkpoint / "commit_success.txt").exists())


@contextmanager
def made_whole(directory: Path) -> Iterator[Path]:
    """A folder to fill, which is sealed and becomes `directory`; until then that is not `is_whole`."""
    if _in_bucket(directory):
        with tempfile.TemporaryDirectory(prefix="bert_jax-") as folder:
            yield Path(folder)
            seal(Path(folder))
            _put(Path(folder), directory, {})
        return
    unfinished = directory.with_name(directory.name + ".tmp")
    remove(unfinished)
    yield unfinished
    seal(unfinished)
    unfinished.rename(directory)


def is_whole(directory: Path) -> bool:
    """Whether `made_whole` has made the directory."""
    return (directory / SEAL).exists() if _in_bucket(directory) else directory.exists()


class DiskCopy:
    """A folder for files that grow, which a bucket does not have: a temporary one, copied there by `publish`.

    Of a directory on a disk it is that directory, and `publish` has nothing to do.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._temporary = tempfile.TemporaryDirectory(prefix="bert_jax-") if _in_bucket(directory) else None
        self.folder = Path(self._temporary.name) if self._temporary else directory
        self._published: Mapping[Path, int] = {}

    def publish(self) -> None:
        """Puts the files that have grown into the bucket."""
        if self._temporary:
            self._published = _put(self.folder, self._directory, self._published)

    def close(self) -> None:
        """Publishes, and removes the temporary folder."""
        self.publish()
        if self._temporary:
            self._temporary.cleanup()


def _put(folder: Path, directory: Path, there: Mapping[Path, int]) -> Mapping[Path, int]:
    """Puts what is not `there` yet in this size into a bucket, the seal last; gives back the sizes."""
    sizes = sizes_below(folder)
    for path in sorted(sizes, key=lambda path: (path.name == SEAL, path)):
        if there.get(path) != sizes[path]:
            (directory / path.relative_to(folder)).write_bytes(path.read_bytes())
    return sizes


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Keeps other processes from writing a directory; the system takes the lock back when this one ends, however it ends.

    In a bucket a lock that a crash has left is taken over after it was watched for half a minute.

    Raises:
        InputError: another process is writing it, naming that.
    """

    def taken(who: str) -> InputError:
        return InputError(f"Another process is writing {directory}: {who}. Wait for it or stop it, or name another --workdir.")

    if bucket := _in_bucket(directory):
        from bert_jax.storage import bucket as room

        with room.only_writer(bucket / LOCK, taken):
            yield
        return
    make_directory(directory)
    path = directory / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise taken(file.read().strip() or "which has just begun") from error
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
