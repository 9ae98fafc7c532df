"""Tokenized corpora on disk: prepared once, verified at every start, and read with random access."""

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

_READ_ERRORS = (OSError, RuntimeError, ValueError, IndexError, KeyError, TypeError)
_PROGRESS_ABOVE = 1 << 30
"""Bytes of shards above which verification shows a progress bar: a second or so of work, more on a slow disk."""


class DocumentSource:
    """Random access to the prepared documents of a split.

    Attributes:
        tokens: total number of tokens.
        sentences: total number of sentences.
        single_sentence_documents: number of documents from which no next-sentence pair can be made.
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
        """Read several documents at once, which is faster than one at a time.

        Raises:
            InputError: a shard was damaged after it was verified.
        """
        wanted = [int(i) for i in indices]
        try:
            return [from_record(record) for record in self._records.__getitems__(wanted)]
        except _READ_ERRORS as error:
            # ArrayRecord verifies checksums as it reads, but does not report which file is damaged.
            shard = self._shards[bisect.bisect_right(self._ends, next((i for i in wanted if not self._is_readable(i)), wanted[0]))]
            raise InputError(f"The prepared file {shard} was damaged after startup ({error}): {_remedy(Path(shard).parent)}") from error

    def _is_readable(self, index: int) -> bool:
        try:
            return self._records[index] is not None
        except _READ_ERRORS:
            return False


@dataclass(frozen=True)
class Prepared:
    """A tokenized corpus on disk.

    Attributes:
        train: the training documents.
        valid: the held-out documents.
        info: for each split, the fields of `bert_jax.data.records.record.Counts` and any that the modality adds; and `seconds`,
            the duration of the preparation.
        path: the folder of the records.
    """

    train: DocumentSource
    valid: DocumentSource
    info: dict[str, Any]
    path: Path

    @property
    def fingerprint(self) -> str:
        """Identifies the contents of the records: raw data, settings, vocabulary and format version."""
        return f"{self.path.parent.name}/{self.path.name}"


def prepare(
    config: O,
    raw: Raw[D, O],
    encoder: Encoder[D],
    data_dir: Path,
    show_progress: bool = True,
    beam: Sequence[str] | None = None,
) -> Prepared:
    """Return the tokenized records of a corpus, which are prepared under `data_dir` if they do not exist yet.

    The folder name contains a hash of the raw data, the settings and the vocabulary, so different data or settings use a
    different folder. An interrupted preparation starts over; incomplete records are never read.

    Args:
        config: the raw data and what to hold out.
        raw: opens the raw data.
        encoder: tokenizes documents.
        data_dir: folder of all prepared corpora.
        show_progress: whether to show a progress bar.
        beam: options of the Apache Beam pipeline that prepares the corpus, such as `--runner=DataflowRunner`. It distributes
            files (or parts of a data set) over many machines, all of which must have access to the raw data and
            `data_dir`. None prepares the corpus on this machine, on all cores; the records are the same.

    Raises:
        InputError: the raw data cannot be read, change while they are read, leave a split without documents, or have a leak and
            `config.leaks` is `refuse`; the records are damaged; or Apache Beam is requested but not installed.
    """
    sources = [raw.open_source(name, config) for name in (config.source, config.valid_source) if name]
    identity = _identity(config, sources, encoder)

    def unchanged() -> None:
        if _identity(config, sources, encoder) != identity:
            raise InputError(f"The data in {config.source} changed during preparation: prepare a copy, or wait until nothing writes to it.")

    make_directory(data_dir)
    with _lock(data_dir / "prepare.lock"), quiet_tfds():
        import tensorflow_datasets as tfds

        from bert_jax.data.records.builder import Documents, DocumentsConfig

        tfds.disable_progress_bar()
        name = f"{_slug(config.source)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        # Shards have their own checksums; the metadata files next to them do not, and they determine how records are batched.
        # A folder without its dataset_info.json is prepared again.
        for found in data_dir.glob(f"*/{name}/*/dataset_info.json"):
            check_seal(found.parent, only=lambda file: "array_record" not in file.name)
        builder_config = DocumentsConfig(name=name, description=identity, corpus=config, raw=raw, encoder=encoder)
        path = data_dir / Documents.name / name / str(Documents.VERSION)
        with _readable_errors(path):
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
    with _readable_errors(path):
        _check_shards(builder, path, show_progress)
        info = {name: value for name, value in builder.info.metadata.items() if name != "shards"}
        return Prepared(DocumentSource(builder, "train"), DocumentSource(builder, "valid"), info, path)


def _identity(config: CorpusOptions, sources: Sequence[Source[D]], encoder: Encoder[D]) -> str:
    """Return everything that determines the records, as JSON."""
    identity = encoder.identity()
    if not config.valid_source:
        identity["valid_fraction"] = config.valid_fraction
    elif config.leaks != "report":
        identity["leaks"] = config.leaks
    return json.dumps(identity | {"sources": [source.identity() for source in sources]}, sort_keys=True)


def _summary(info: Mapping[str, Any]) -> str:
    """Return a line such as `prepared 30,523 documents, 85.1 MB in 0:52 (587 documents/s, 1.64 MB/s)`."""
    count, size = (sum(info[split][field] for split in ("train", "valid")) for field in ("documents", "bytes"))
    megabytes, seconds = size / 1e6, info["seconds"]
    rates = f"{count / seconds:,.0f} documents/s, {megabytes / seconds:.2f} MB/s"
    return f"prepared {count:,} documents, {megabytes:.1f} MB in {duration(seconds)} ({rates})"


def _leaks(config: CorpusOptions, leaked: int) -> str:
    if config.leaks == "leave_out":
        return f"Excluded {leaked:,} training documents that also appear in the held-out data."
    return (
        f"Warning: {leaked:,} training documents also appear in the held-out data, so its metrics partly measure memorization. "
        "Use --config.corpus.leaks=leave_out to train without them."
    )


def _slug(source: str) -> str:
    return re.sub(r"\W+", "_", Path(source).name or source, flags=re.ASCII).strip("_")[:40] or "corpus"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Serialize processes that prepare into the same folder; the later ones find the finished records."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_shards(builder: Any, path: Path, show_progress: bool) -> None:
    """Verify every shard against the recorded size, SHA-256 and number of records.

    ArrayRecord opens a truncated shard without an error and finds no records in it, and it cannot detect a shard of another
    preparation. All shards are read once per start: one core reads and hashes 0.7 GB/s, the complete BERT corpus is about
    10 GB, and training would read all of it anyway.

    Raises:
        InputError: a shard is missing, damaged or not the one that was written.
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
        WorkProgress("check", "B", total, show_progress and total > _PROGRESS_ABOVE) as progress,
    ):
        problems = pool.map(lambda item: _problem(item[0], *item[1]), shards.items())
        for (shard, (_, size, _)), problem in zip(shards.items(), problems, strict=True):
            if problem:
                raise InputError(f"The prepared file {shard} {problem}: {_remedy(path)}")
            progress.update(size)


def _problem(shard: Path, records: int, size: int, sha256: str) -> str:
    """Return the problem with a shard, or ""."""
    from array_record.python.array_record_module import ArrayRecordReader

    if not shard.is_file():
        return "is missing"
    if (found := shard.stat().st_size) != size:
        return f"has {found:,} bytes instead of {size:,}, so it is damaged"
    if files.sha256(shard) != sha256:
        return "has the wrong SHA-256: it is damaged, or belongs to another preparation"
    found = ArrayRecordReader(str(shard)).num_records()
    return "" if found == records else f"has {found:,} records instead of {records:,}, so it is damaged"


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Convert exceptions of TFDS, protobuf and JSON about damaged metadata of a prepared corpus to an `InputError`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not path.exists():
            raise
        reason = textwrap.shorten(str(error), 200)
        raise InputError(f"The metadata of the prepared corpus in {path} is damaged ({reason}): {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    return f"delete the folder {path} and rerun to prepare it again."
