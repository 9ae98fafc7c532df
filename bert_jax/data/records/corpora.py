"""A corpus on disk as documents of ids: prepared once, checked at every start, read at random."""

import bisect
import fcntl
import hashlib
import itertools
import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bert_jax.config import CorpusOptions
from bert_jax.data.records.encoding import Encoder, cores
from bert_jax.data.records.held_out import Split, documents
from bert_jax.data.records.record import Document, from_record
from bert_jax.data.records.source import Raw, Source
from bert_jax.data.tfds import quiet_tfds
from bert_jax.errors import InputError
from bert_jax.runtime.progress import WorkProgress
from bert_jax.runtime.terminal import duration
from bert_jax.storage import files
from bert_jax.storage.files import SEAL, check_seal, make_directory, seal

D = TypeVar("D")
O = TypeVar("O", bound=CorpusOptions)  # noqa: E741  # options

_DAMAGE = (OSError, RuntimeError, ValueError, IndexError, KeyError, TypeError)
_WORTH_SHOWING = 1 << 30
"""Bytes that take a second to check, or many from a slow disk."""


class DocumentSource:
    """The prepared documents of a split, read at random from disk.

    Attributes:
        tokens: in all documents together.
        sentences: the same.
        single_sentence_documents: documents that cannot give a next-sentence pair.
    """

    def __init__(self, builder: Any, split: Split) -> None:
        self.tokens: int = builder.info.metadata[split]["tokens"]
        self.sentences: int = builder.info.metadata[split]["sentences"]
        self.single_sentence_documents: int = builder.info.metadata[split]["single_sentence_documents"]
        self._records = builder.as_data_source(split)
        self._shards: list[str] = [str(path) for path in builder.info.splits[split].filepaths]
        self._ends = list(itertools.accumulate(builder.info.splits[split].shard_lengths))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Document:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.fetch([index])[0]

    def fetch(self, indices: Iterable[int]) -> list[Document]:
        """Several documents at once, which is faster than one by one.

        Raises:
            InputError: a shard was damaged after the start.
        """
        wanted = [int(i) for i in indices]
        try:
            return [from_record(record) for record in self._records.__getitems__(wanted)]
        except _DAMAGE as error:
            # ArrayRecord checks the sums of what it reads, and does not say in which file they are wrong.
            shard = self._shards[bisect.bisect_right(self._ends, next((i for i in wanted if not self._is_sound(i)), wanted[0]))]
            raise InputError(f"The prepared file {shard} was damaged after the start ({error}): {_remedy(Path(shard).parent)}") from error

    def _is_sound(self, index: int) -> bool:
        try:
            return self._records[index] is not None
        except _DAMAGE:
            return False


@dataclass(frozen=True)
class Prepared:
    """A corpus on disk as tokens.

    Attributes:
        train: the training documents.
        valid: the held-out documents.
        info: per split the fields of `bert_jax.data.records.record.Counts`, and of what the modality adds to them; and the `seconds` that
            the preparation took.
        path: the folder of the records.
    """

    train: DocumentSource
    valid: DocumentSource
    info: dict[str, Any]
    path: Path

    @property
    def fingerprint(self) -> str:
        """Names what the records hold: text, settings, vocabulary and version."""
        return f"{self.path.parent.name}/{self.path.name}"


def prepare(
    config: O,
    raw: Raw[D, O],
    encoder: Encoder[D],
    data_dir: Path,
    show_progress: bool = True,
    beam: Sequence[str] | None = None,
) -> Prepared:
    """The corpus as records of ids below `data_dir`, made when they are not there yet.

    The folder's name holds a hash of the raw data, the settings and the vocabulary, so that other data or settings are
    another folder. A preparation that was interrupted starts again; nothing half done is ever read.

    Args:
        config: where the raw data are, and what is held out.
        raw: opens them.
        encoder: makes the ids.
        data_dir: holds the prepared corpora.
        show_progress: whether to show a progress bar.
        beam: options of an Apache Beam pipeline, such as `--runner=DataflowRunner`, that does the work, a file (or part of a
            TFDS data set) at a time on many machines, which must all see the raw data and `data_dir`. None does it here, on
            all cores; the records are the same.

    Raises:
        InputError: the raw data cannot be read, change while they are read, have no document for a split or a leak that the
            configuration refuses; the records are damaged; or Apache Beam is asked for and not installed.
    """
    sources = [raw.open_source(name, config) for name in (config.source, config.valid_source) if name]
    identity = _identity(config, sources, encoder)

    def unchanged() -> None:
        if _identity(config, sources, encoder) != identity:
            raise InputError(f"The text of {config.source} changed while it was prepared: prepare a copy, or when nothing writes to it.")

    make_directory(data_dir)
    with _lock(data_dir / "prepare.lock"), quiet_tfds():
        import tensorflow_datasets as tfds

        from bert_jax.data.records.builder import Documents, DocumentsConfig

        tfds.disable_progress_bar()
        name = f"{_slug(config.source)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        # What is read from a shard has checksums of its own; the files beside them have not, and say how it is cut into batches.
        # Without its description a folder is made anew.
        for found in data_dir.glob(f"*/{name}/*/dataset_info.json"):
            check_seal(found.parent, only=lambda file: "array_record" not in file.name)
        builder_config = DocumentsConfig(name=name, description=identity, corpus=config, raw=raw, encoder=encoder)
        path = data_dir / Documents.name / name / str(Documents.VERSION)
        with _description_of(path):
            builder = Documents(data_dir=data_dir, config=builder_config, file_format="array_record")
            finished = builder.is_prepared() and "shards" in builder.info.metadata
        if not finished:
            for leftover in (*path.parent.glob("*incomplete*"), *path.parent.glob(path.name)):
                shutil.rmtree(leftover)
            sizes = [source.stored_bytes for source in sources]
            total = None if None in sizes else sum(size or 0 for size in sizes)
            with WorkProgress("prepare", "B", total, show_progress) as progress:
                builder.build(progress.update, unchanged, beam)
            progress.message(_summary(builder.info.metadata))
            if leaked := builder.info.metadata["train"]["leaked_documents"]:
                progress.message(_leaks(config, leaked))
            for warning in encoder.warnings(builder.info.metadata, documents(raw, config, "train")):
                progress.message(warning)
        if not (path / SEAL).exists():
            seal(path)
    with _description_of(path):
        _check_shards(builder, path, show_progress)
        info = {name: value for name, value in builder.info.metadata.items() if name != "shards"}
        return Prepared(DocumentSource(builder, "train"), DocumentSource(builder, "valid"), info, path)


def _identity(config: CorpusOptions, sources: Sequence[Source[D]], encoder: Encoder[D]) -> str:
    """Everything that decides what the records are, as JSON."""
    decisive = encoder.identity()
    if not config.valid_source:
        decisive["valid_fraction"] = config.valid_fraction
    elif config.leaks != "report":
        decisive["leaks"] = config.leaks
    return json.dumps(decisive | {"sources": [source.identity() for source in sources]}, sort_keys=True)


def _summary(info: Mapping[str, Any]) -> str:
    """`prepared 30,523 documents, 85.1 MB of text in 0:52 (1.6 MB/s)`."""
    count, size = (sum(info[split][field] for split in ("train", "valid")) for field in ("documents", "bytes"))
    megabytes, seconds = size / 1e6, info["seconds"]
    return f"prepared {count:,} documents, {megabytes:.1f} MB of text in {duration(seconds)} ({megabytes / seconds:.2f} MB/s)"


def _leaks(config: CorpusOptions, leaked: int) -> str:
    if config.leaks == "leave_out":
        return f"Left out {leaked:,} training documents: they stand in the held-out text too."
    return (
        f"Beware: {leaked:,} training documents stand in the held-out text too; its figures are in part ones of memory. "
        "--config.corpus.leaks=leave_out trains without them."
    )


def _slug(source: str) -> str:
    return re.sub(r"\W+", "_", Path(source).name or source, flags=re.ASCII).strip("_")[:40] or "corpus"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Processes that prepare into one folder do it one after the other; the later ones find it done."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_shards(builder: Any, path: Path, show_progress: bool) -> None:
    """Every shard must be the one that was written, by its number of records, size and SHA-256.

    ArrayRecord opens a truncated shard without complaint and finds nothing in it; one of another preparation is as good to
    it. Everything is read, once in a start: a core reads and hashes 0.7 GB in a second, BERT's whole corpus is about 10 GB,
    and training would read all of it anyway.
    """
    written = builder.info.metadata["shards"]
    shards = {
        Path(file): (records, written[Path(file).name]["bytes"], written[Path(file).name]["sha256"])
        for split in builder.info.splits.values()
        for file, records in zip(split.filepaths, split.shard_lengths, strict=True)
    }
    total = sum(size for _, size, _ in shards.values())
    with (
        ThreadPoolExecutor(cores()) as pool,
        WorkProgress("check", "B", total, show_progress and total > _WORTH_SHOWING) as progress,
    ):
        problems = pool.map(lambda item: _problem(item[0], *item[1]), shards.items())
        for (shard, (_, size, _)), problem in zip(shards.items(), problems, strict=True):
            if problem:
                raise InputError(f"The prepared file {shard} {problem}: {_remedy(path)}")
            progress.update(size)


def _problem(shard: Path, records: int, size: int, sha256: str) -> str:
    """What is wrong with a shard, or nothing."""
    from array_record.python.array_record_module import ArrayRecordReader

    if not shard.is_file():
        return "is missing"
    if (found := shard.stat().st_size) != size:
        return f"has {found:,} bytes where {size:,} were written, so it is damaged"
    if files.sha256(shard) != sha256:
        return "is not the one that was written (another SHA-256): it is damaged, or of another preparation"
    found = ArrayRecordReader(str(shard)).num_records()
    return "" if found == records else f"holds {found:,} records where {records:,} were written, so it is damaged"


@contextmanager
def _description_of(path: Path) -> Iterator[None]:
    """What TFDS, protobuf and JSON say of the damaged description of a prepared corpus as a user should read it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not path.exists():
            raise
        told = textwrap.shorten(str(error), 200)
        raise InputError(f"The description of the prepared corpus in {path} is damaged ({told}): {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    return f"delete the folder {path} and run again to prepare it anew."
