"""Atomic file writes, checksums, and directories with one writer at a time.

Only this module distinguishes between a directory on disk and one in a bucket (`gs://...`); all other code just uses paths.
"""

import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from bert_jax.errors import InputError, as_typed, remember_typed

SEAL, LOCK = "SHA256SUMS", "lock"
_NEVER_SEALED = (SEAL, LOCK, "prepare.lock")
_HASH_CONTENTS_UP_TO = 256 << 20
_ASKING = 0.05
"""Seconds after which a lock is tried again: `has_writer`, which holds it for an instant, must not stop a writer."""


def resolve_path(text: str | Path) -> Path:
    """Resolve a path given by the user: absolute on disk, or `gs://bucket/...` in Google Cloud Storage with the same methods.

    Call this once, where a path enters the program: Orbax does not accept relative paths, and the working directory may change later.
    `~` is the home directory. Parent folders are resolved; a link in the last component is not, because its name may indicate the file
    format. Messages show the path as the user typed it (`errors.as_typed`).

    Raises:
        InputError: the path is empty, a URL of another kind, a Windows path or lacks a bucket name, or gcsfs is not installed.
    """
    if not isinstance(text, str | Path):
        return text  # a bucket path, despite the type annotation
    if isinstance(text, str) and text.startswith("gs://"):
        from bert_jax.storage.bucket import bucket_path  # takes half a second to import, which paths on disk do not need

        return cast(Path, bucket_path(text))
    typed = str(text)
    _refuse_strange(typed)
    try:
        # Path.expanduser treats ./~me like ~me. Like a shell, os.path.expanduser leaves ~me unchanged if there is no such user.
        path = Path(os.path.expanduser(typed)).absolute()  # noqa: PTH111
        path = path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, RuntimeError) as error:  # no working directory, circular links
        raise InputError(f"The path {typed} cannot be resolved ({error}). Check it, or use an absolute path.") from None
    # Record an absolute path too if messages would otherwise show it in an earlier spelling.
    if typed != str(path) or (isinstance(text, str) and as_typed(typed) != typed):
        remember_typed(path, typed)
    return path


def _refuse_strange(typed: str) -> None:
    """Raise InputError for text that cannot be meant as a path on this system."""
    if not typed.strip():
        raise InputError("The path is empty. Name a file or a directory; use `.` for the working directory.")
    if "\0" in typed:
        raise InputError(f"The path {typed!r} contains a NUL character, which file names cannot. Check it.")
    if typed.startswith("file:"):
        raise InputError(f"{typed} is a URL. Use a path instead, such as {re.sub('^file:/*', '/', typed)}.")
    if "://" in typed:
        raise InputError(f"{typed} is neither on disk nor in Google Cloud Storage. Use a local path, or gs://BUCKET/FOLDER.")
    if typed.startswith("~/") and os.path.expanduser(typed) == typed:  # noqa: PTH111
        raise InputError(f"{typed} is in a home directory, and this user has none (HOME is not set). Use an absolute path.")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", typed):
        raise InputError(f"{typed} is a Windows path, but bert_jax runs on Linux and macOS. In WSL, C:\\data is /mnt/c/data.")


def on_disk(text: str | Path, what: str) -> Path:
    """Resolve a path that must be on disk; `what` names it in the message.

    Raises:
        InputError: the path is in a bucket, or as in `resolve_path`.
    """
    if str(text).startswith("gs://"):
        raise InputError(f"{what} {text} cannot be in a bucket: use a path on disk, and copy it with `gcloud storage cp`.")
    return resolve_path(text)


def _in_bucket(path: Path) -> Any:
    """Return the path if it is in a bucket (despite its annotation), or None if it is on disk."""
    return None if isinstance(path, Path) else path


def disk_folder(directory: Path) -> Path:
    """Return the directory itself if it is on disk, or this host's cache folder for files that cannot be read from a bucket."""
    if not _in_bucket(directory):
        return directory
    return user_cache() / str(directory).replace("://", "/")


def user_cache() -> Path:
    """Return this user's cache folder for bert_jax, which may not exist: in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bert_jax"


def make_directory(directory: Path) -> None:
    """Create a directory and its parents if they are missing; errors as in `check_directory`."""
    check_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)


def check_directory(directory: Path) -> None:
    """Raise InputError if the directory does not exist and cannot be created because a file is in the way."""
    if _in_bucket(directory):
        return
    nearest = next(path for path in (directory, *directory.parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise InputError(f"The directory {directory} cannot be created, since {nearest} is not a directory. Choose another path.")


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically: whatever happens, even a power failure, it has either its old or its new content."""
    if _in_bucket(path):
        path.write_text(text, encoding="utf-8")  # object writes are atomic
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
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_versions(files: Sequence[Path]) -> dict[str, Any]:
    """Return the names of files, relative to their common folder, with a hash of each or, above 256 MB in all, its size and time.

    Hashing more would take minutes.
    """
    folder = os.path.commonpath([path.parent.resolve() for path in files]) if files else ""
    names = [os.path.relpath(path.parent.resolve() / path.name, folder) for path in files]
    stats = [path.stat() for path in files]
    if sum(stat.st_size for stat in stats) > _HASH_CONTENTS_UP_TO:
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in zip(names, stats, strict=True)}
    return {name: sha256(path) for name, path in zip(names, files, strict=True)}


def sync(path: Path) -> None:
    """Flush a file to disk. Files in a bucket are durable as soon as the write returns."""
    if not _in_bucket(path):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def sizes_below(directory: Path) -> Mapping[Path, int]:
    """Return the files below a directory and their sizes in bytes."""
    if bucket := _in_bucket(directory):
        return cast(Mapping[Path, int], bucket.sizes_below())
    return {path: path.stat().st_size for path in directory.rglob("*") if path.is_file()}


def special_files(directory: Path) -> list[Path]:
    """Return everything below a directory that is not a regular file or folder: links, pipes, devices. A bucket has none."""
    if _in_bucket(directory):
        return []
    return sorted(path for path in directory.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir()))


def remove(directory: Path) -> None:
    """Remove a directory tree if it exists; errors are ignored."""
    if bucket := _in_bucket(directory):
        bucket.rmtree(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def committed(checkpoint: Path) -> bool:
    """Return whether Orbax has committed a checkpoint: on disk it renames the directory last, in a bucket it adds an object last."""
    return checkpoint.name.isdigit() and (not _in_bucket(checkpoint) or (checkpoint / "commit_success.txt").exists())


@contextmanager
def made_whole(directory: Path) -> Iterator[Path]:
    """Create a directory atomically: yield a folder to fill, then seal it and rename it to `directory`.

    Until then, `is_whole(directory)` is false.
    """
    if _in_bucket(directory):
        with tempfile.TemporaryDirectory(prefix="bert_jax-") as folder:
            yield Path(folder)
            seal(Path(folder))
            _upload(Path(folder), directory, {})
        return
    unfinished = directory.with_name(directory.name + ".tmp")
    remove(unfinished)
    yield unfinished
    seal(unfinished)
    unfinished.rename(directory)


def is_whole(directory: Path) -> bool:
    """Return whether `made_whole` has completed the directory."""
    return (directory / SEAL).exists() if _in_bucket(directory) else directory.exists()


class DiskCopy:
    """A local folder for files that are appended to, which a bucket does not support.

    For a directory in a bucket, it is a temporary folder that `publish` uploads. For a directory on disk, it is that directory, and
    `publish` does nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._temporary = tempfile.TemporaryDirectory(prefix="bert_jax-") if _in_bucket(directory) else None
        self.folder = Path(self._temporary.name) if self._temporary else directory
        self._published: Mapping[Path, int] = {}

    def publish(self) -> None:
        """Upload the files that have grown to the bucket."""
        if self._temporary:
            self._published = _upload(self.folder, self._directory, self._published)

    def close(self) -> None:
        """Publish, then remove the temporary folder."""
        self.publish()
        if self._temporary:
            self._temporary.cleanup()


def _upload(folder: Path, directory: Path, uploaded: Mapping[Path, int]) -> Mapping[Path, int]:
    """Upload the files whose size differs from that in `uploaded`, the checksum file last; return the sizes."""
    sizes = sizes_below(folder)
    for path in sorted(sizes, key=lambda path: (path.name == SEAL, path)):
        if uploaded.get(path) != sizes[path]:
            (directory / path.relative_to(folder)).write_bytes(path.read_bytes())
    return sizes


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Prevent other processes from writing a directory. The operating system releases the lock when this process ends, for any reason.

    In a bucket, a lock left by a crash is taken over after it was not renewed for 30 seconds.

    Raises:
        InputError: another process is writing the directory; the message names it.
    """

    def taken(who: str) -> InputError:
        return InputError(f"Another process is writing {directory}: {who}. Wait for it, stop it, or choose another --workdir.")

    if bucket := _in_bucket(directory):
        from bert_jax.storage import bucket as bucket_module

        with bucket_module.only_writer(bucket / LOCK, taken):
            yield
        return
    make_directory(directory)
    path = directory / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except BlockingIOError as error:
            file.seek(0)
            raise taken(file.read().strip() or "a process that has just started") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _lock(file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_ASKING)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def has_writer(directory: Path) -> bool:
    """Return whether a process is writing a directory; see `only_writer`."""
    lock = directory / LOCK
    if _in_bucket(directory):
        from bert_jax.storage import bucket as bucket_module

        return bucket_module.is_held(cast("bucket_module.BucketPath", lock))
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody has written it yet
        pass
    return False


def seal(directory: Path) -> None:
    """Write SHA256SUMS, in the format of the program sha256sum, for the files of a finished directory.

    Subdirectories with their own SHA256SUMS are skipped, and so are checkpoints, which have manifests.
    """
    # Partial files left by a crash are not part of the finished directory.
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
    """Check that the files of a finished directory have not changed since they were written.

    Args:
        directory: the finished directory.
        made_anew_without: what to remove so that the same command recreates the directory; by default, the directory.
        only: selects the files to check.

    Raises:
        InputError: a file has changed, is missing or cannot be read.
    """
    if found := seal_faults(directory, only):
        more = f" ({len(found)} damaged files in total)" if len(found) > 1 else ""
        raise InputError(
            f"{found[0]}{more}. Restore it from a backup, or remove {made_anew_without or directory} and run the same command again to "
            "recreate it."
        )


def seal_faults(
    directory: Path, only: Callable[[Path], bool] = lambda path: True, on_read: Callable[[int], None] = lambda size: None
) -> list[str]:
    """Return a message for each file that has changed since the directory was sealed; empty if it has no SHA256SUMS.

    Arguments as in `check_seal` and `manifest.faults`.
    """
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
        return "" if same else f"{file} has changed since it was written: its hash differs from that in {path.name}"

    with ThreadPoolExecutor() as pool:
        return [line for line in pool.map(fault, [file for file in sums if only(file)]) if line]
