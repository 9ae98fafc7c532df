"""A corpus, from the configuration's source to documents: raw (lists of sentences) or prepared (tokens on disk)."""

import fcntl
import hashlib
import importlib.metadata
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_jax.config import CorpusConfig
from bert_jax.data.encoding import DocumentEncoder, TokenizedDocument, document_sentences
from bert_jax.data.held_out import Split, divide
from bert_jax.data.sources import Source, open_source, quiet_tfds
from bert_jax.errors import InputError
from bert_jax.files import SEAL, check_seal, seal
from bert_jax.progress import WorkProgress, duration
from bert_jax.tokenizer import Tokenizer


def documents(config: CorpusConfig, split: Split) -> Iterator[list[str]]:
    """The documents of one side of the corpus as lists of sentences, streaming.

    Raises:
        InputError: there is no text, it cannot be read, or it is one document, of which none can be held out.
    """
    for text in divide(config):
        for side, paragraphs in text.documents():
            if side == split:
                yield document_sentences(paragraphs, config.sentence_ends)


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
        self._path = builder.data_dir

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> TokenizedDocument:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.fetch([index])[0]

    def fetch(self, indices: Iterable[int]) -> list[TokenizedDocument]:
        """Several documents at once, which is faster than one by one.

        Raises:
            InputError: the records are damaged.
        """
        from bert_jax.data.builder import from_record

        try:
            return [from_record(record) for record in self._records.__getitems__([int(i) for i in indices])]
        except (OSError, RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
            raise InputError(
                f"The prepared records in {self._path} cannot be read, so they are damaged ({str(error)[:200]}): delete that folder and "
                "run again to prepare it anew."
            ) from error


@dataclass(frozen=True)
class Prepared:
    """A corpus on disk as tokens.

    Attributes:
        train: the training documents.
        valid: the held-out documents.
        info: per split `documents`, `sentences`, `tokens`, `unknown_tokens`, `single_sentence_documents`,
            `empty_documents` (dropped) and `bytes` of text, and the `seconds` that the preparation took.
        path: the folder of the records.
    """

    train: DocumentSource
    valid: DocumentSource
    info: dict[str, Any]
    path: Path


def prepare(
    config: CorpusConfig,
    tokenizer: Tokenizer,
    data_dir: Path,
    show_progress: bool = True,
    beam: Sequence[str] | None = None,
) -> Prepared:
    """The corpus as tokenised records below `data_dir`, made when they are not there yet.

    The folder's name holds a hash of the text, the settings and the vocabulary, so that another text or setting is
    another folder. A preparation that was interrupted starts again; nothing half done is ever read.

    Args:
        config: the text and its settings.
        tokenizer: makes the tokens.
        data_dir: holds the prepared corpora.
        show_progress: whether to show a progress bar.
        beam: options of an Apache Beam pipeline, such as `--runner=DataflowRunner`, that does the work, a file (or part of a
            TFDS data set) at a time on many machines, which must all see the text and `data_dir`. None does it here, on
            all cores; the records are the same.

    Raises:
        InputError: the text cannot be read or has no document for a split, the records are damaged, or Apache Beam is
            asked for and not installed.
    """
    sources = [open_source(name, config) for name in (config.source, config.valid_source) if name]
    identity = _identity(config, sources, tokenizer)
    data_dir.mkdir(parents=True, exist_ok=True)
    with _lock(data_dir / "prepare.lock"), quiet_tfds():
        import tensorflow_datasets as tfds

        from bert_jax.data.builder import Documents, DocumentsConfig

        tfds.disable_progress_bar()
        name = f"{_slug(config.source)}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        # What is read from a shard has checksums of its own; the files beside them have not, and say how it is cut into batches.
        # Without its description a folder is made anew.
        for found in data_dir.glob(f"*/{name}/*/dataset_info.json"):
            check_seal(found.parent, only=lambda file: "array_record" not in file.name)
        builder_config = DocumentsConfig(name=name, description=identity, corpus=config, encoder=DocumentEncoder(tokenizer, config))
        builder = Documents(data_dir=data_dir, config=builder_config, file_format="array_record")
        path = Path(builder.data_dir)
        if not builder.is_prepared():
            for leftover in (*path.parent.glob("*incomplete*"), *path.parent.glob(path.name)):
                shutil.rmtree(leftover)
            sizes = [source.stored_bytes for source in sources]
            total = None if None in sizes else sum(size or 0 for size in sizes)
            with WorkProgress("prepare", "B", total, show_progress) as progress:
                builder.build(progress.update, beam)
            progress.message(_summary(builder.info.metadata))
        if not (path / SEAL).exists():
            seal(path)
    _check_records(builder, path)
    return Prepared(DocumentSource(builder, "train"), DocumentSource(builder, "valid"), dict(builder.info.metadata), path)


def _identity(config: CorpusConfig, sources: list[Source], tokenizer: Tokenizer) -> str:
    """Everything that decides what the records are, as JSON."""
    decisive: dict[str, Any] = {"segmenter": config.segmenter, "sentence_ends": config.sentence_ends, "tokenizer": tokenizer.fingerprint}
    if not config.valid_source:
        decisive["valid_fraction"] = config.valid_fraction
    if config.segmenter == "jieba":
        decisive["jieba"] = importlib.metadata.version("jieba")
    return json.dumps(decisive | {"sources": [source.identity() for source in sources]}, sort_keys=True)


def _summary(info: Mapping[str, Any]) -> str:
    """`prepared 30,523 documents, 85.1 MB of text in 0:52 (1.6 MB/s)`."""
    count, size = (sum(info[split][field] for split in ("train", "valid")) for field in ("documents", "bytes"))
    megabytes, seconds = size / 1e6, info["seconds"]
    return f"prepared {count:,} documents, {megabytes:.1f} MB of text in {duration(seconds)} ({megabytes / seconds:.2f} MB/s)"


def _slug(source: str) -> str:
    return re.sub(r"\W+", "_", Path(source).name or source, flags=re.ASCII).strip("_")[:40] or "corpus"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Processes that prepare into one folder do it one after the other; the later ones find it done."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_records(builder: Any, path: Path) -> None:
    """ArrayRecord opens a truncated shard without complaint and finds nothing in it."""
    from array_record.python.array_record_module import ArrayRecordReader

    for split in builder.info.splits.values():
        for shard, length in zip(split.filepaths, split.shard_lengths, strict=True):
            try:
                found = ArrayRecordReader(str(shard)).num_records()
            except (OSError, RuntimeError, ValueError):
                found = 0
            if found != length:
                raise InputError(
                    f"The prepared file {shard} holds {found:,} records where {length:,} were written, so it is damaged: "
                    f"delete the folder {path} and run again to prepare it anew."
                )
