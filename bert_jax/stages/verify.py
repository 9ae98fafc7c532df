"""Verifies that all files below a directory are intact: checkpoints, models, vocabularies, records and results."""

from collections.abc import Callable, Iterator
from pathlib import Path

from bert_jax.errors import InputError
from bert_jax.model import directory as model_directory
from bert_jax.runtime.progress import WorkProgress
from bert_jax.storage.files import SEAL, committed, seal_faults, sizes_below
from bert_jax.training.checkpoints import manifest, verification


def verify(workdir: Path) -> tuple[list[str], int]:
    """Verify the files below a directory.

    Returns:
        One line per fault found, and the number of files read.

    Raises:
        InputError: there is nothing below the directory that can be verified.
    """
    seals = sorted(workdir.rglob(SEAL))
    models = sorted({path.parent for name in (model_directory.FILE, "checkpoints") for path in workdir.rglob(name)})
    if not seals and not models:
        raise InputError(f"There is no run or model in {workdir}. Name the --workdir of a training run, or the directory of a model.")
    with WorkProgress("verify", "B", sum(sizes_below(workdir).values())) as progress:
        counter = _Counter(progress.update)
        found = [fault for seal in seals for fault in seal_faults(seal.parent, on_read=counter)]
        found += [fault for directory in models for fault in _model_faults(directory, counter)]
    return list(dict.fromkeys(found)), counter.files


class _Counter:
    def __init__(self, on_read: Callable[[int], None]) -> None:
        self.files, self._on_read = 0, on_read

    def __call__(self, size: int) -> None:
        self.files += 1
        self._on_read(size)


def _model_faults(directory: Path, on_read: Callable[[int], None]) -> Iterator[str]:
    identity = None
    try:
        identity = model_directory.identity(*model_directory.read(directory))
    except InputError as error:
        yield str(error)
    steps = sorted(path for path in (directory / "checkpoints").glob("*") if committed(path))
    if not steps:
        yield f"There is no checkpoint in {directory / 'checkpoints'}"
    for path in steps:
        found = verification.faults(path, on_read)
        yield from found
        saved = None if found else manifest.read(path)
        if saved and identity:
            try:
                model_directory.check_identity(saved.model, identity, path)
            except InputError as error:
                yield str(error)
