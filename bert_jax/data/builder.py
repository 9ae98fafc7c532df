"""The TFDS builder that turns raw text into ArrayRecord shards of tokenised documents.

It writes the shards itself. TFDS's own writer keeps up to 1 GB in memory, needs TensorFlow beyond that, and with
`disable_shuffling` puts every record into one bucket that it sorts in memory; here both splits are written in one pass
over the text, and no more than a few batches are in memory.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from bert_jax.config import CorpusConfig
from bert_jax.data.encoding import DocumentEncoder, TokenizedDocument, encode, token_dtype
from bert_jax.data.held_out import divide
from bert_jax.data.sources import content_hash
from bert_jax.data.text import count_dropped
from bert_jax.errors import InputError

SPLITS = ("train", "valid")
_SHARD_BYTES = 256 << 20


@dataclasses.dataclass(kw_only=True)
class DocumentsConfig(tfds.core.BuilderConfig):
    """One preparation: the text and what makes records of it. `name` holds a hash of everything that decides them."""

    corpus: CorpusConfig
    encoder: DocumentEncoder


@dataclasses.dataclass
class Counts:
    """What a split holds; written to `metadata.json` beside the records."""

    documents: int = 0
    empty_documents: int = 0
    """Dropped: they had no token."""
    single_sentence_documents: int = 0
    sentences: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    characters: int = 0
    """Of the text, white space aside."""
    unknown_in_long_words: int = 0
    """Characters that became [UNK] in words longer than the vocabulary takes."""
    unknown_in_other_words: int = 0
    """Characters that became [UNK] in words with a character that the vocabulary lacks."""
    leaked_documents: int = 0
    """Of the training text those that stand in a held-out text of its own too, whether they were left out or not."""
    dropped_characters: int = 0
    """Control characters, and U+FFFD for bytes that were not UTF-8."""
    bytes: int = 0
    """UTF-8 bytes of the text."""

    def add(self, paragraphs: list[str], document: TokenizedDocument, unk_id: int) -> None:
        """Count a document in."""
        self.bytes += sum(len(paragraph.encode()) for paragraph in paragraphs)
        self.dropped_characters += sum(map(count_dropped, paragraphs))
        self.characters += sum(len(piece) for paragraph in paragraphs for piece in paragraph.split())
        if not len(document.tokens):
            self.empty_documents += 1
            return
        self.documents += 1
        self.single_sentence_documents += len(document.sentence_starts) == 1
        self.sentences += len(document.sentence_starts)
        self.tokens += len(document.tokens)
        self.unknown_tokens += int(np.count_nonzero(document.tokens == unk_id))
        self.unknown_in_long_words += int(document.unknown[0])
        self.unknown_in_other_words += int(document.unknown[1])


def to_record(document: TokenizedDocument) -> dict[str, Any]:
    """The document as the columns of a record; eight word starts share a byte."""
    starts = np.packbits(document.word_starts)
    return {"tokens": document.tokens, "sentence_starts": document.sentence_starts, "word_starts": starts}


def from_record(record: dict[str, Any]) -> TokenizedDocument:
    """The inverse of `to_record`."""
    tokens = record["tokens"]
    word_starts = np.unpackbits(record["word_starts"], count=len(tokens)).view(np.bool_)
    return TokenizedDocument(tokens, record["sentence_starts"], word_starts, np.zeros(2, np.int64))


class Documents(tfds.core.GeneratorBasedBuilder):
    """Tokenised documents with their sentence and word starts."""

    # To be raised with every change of the code (sentences, words, records) that makes other records of the same text.
    VERSION = tfds.core.Version("1.0.0")
    builder_config: DocumentsConfig

    def _info(self) -> tfds.core.DatasetInfo:
        tokens = token_dtype(self.builder_config.encoder.tokenizer.vocab_size)
        dtypes = {"tokens": tokens, "sentence_starts": np.int32, "word_starts": np.uint8}
        # As bytes, records are made four times as fast as from TFDS's default, which stores every number as a varint.
        features = {name: tfds.features.Tensor(shape=(None,), dtype=dtype, encoding="bytes") for name, dtype in dtypes.items()}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True, metadata=tfds.core.MetadataDict()
        )

    def build(self, on_read: Callable[[int], None], on_written: Callable[[], None], beam: Sequence[str] | None) -> None:
        """Write the records, here or on Apache Beam.

        Args:
            on_read: hears of the bytes that were read here.
            on_written: called before the folder takes its place; what it raises leaves nothing there.
            beam: options of a pipeline, or None to write here.
        """
        self._on_read, self._on_written, self._beam, self._started = on_read, on_written, beam is not None, time.monotonic()
        download_config = None
        if beam is not None:
            from bert_jax.data.beam import pipeline_options

            download_config = tfds.download.DownloadConfig(beam_options=pipeline_options(beam))
        self.download_and_prepare(download_config=download_config)

    def _split_generators(self, dl_manager: Any, pipeline: Any) -> dict[str, Any]:
        from bert_jax.data.beam import encode_parts

        parts = [part for text in divide(self.builder_config.corpus) for part in text.parts()]
        examples = encode_parts(pipeline, parts, self.builder_config.encoder)
        return {split: self._generate_examples(examples, split) for split in SPLITS}

    def _generate_examples(self, examples: Any, split: str) -> Any:
        from bert_jax.data.beam import of_split

        return examples | f"only {split}" >> of_split(split)

    def _process_pipeline_result(self, pipeline_result: Any) -> None:
        from bert_jax.data.beam import counted

        self._finish({split: Counts(**counted(pipeline_result, split)) for split in SPLITS})

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        splits = super()._generate_splits(dl_manager, download_config) if self._beam else self._write_splits()
        self._on_written()
        # What every later start checks; a folder that was not finished has none.
        paths = [Path(path) for split in splits for path in split.filepaths]
        self.info.metadata["shards"] = {path.name: {"bytes": path.stat().st_size, "sha256": content_hash(path)} for path in paths}
        return splits

    def _write_splits(self) -> list[tfds.core.SplitInfo]:
        encoder = self.builder_config.encoder
        serializer = ExampleSerializer(self.info.features.get_serialized_info())
        counts = {split: Counts() for split in SPLITS}
        shards = {split: _Shards(self._get_filename_template(split_name=split)) for split in SPLITS}

        def leaked() -> None:
            counts["train"].leaked_documents += 1

        texts = (document for text in divide(self.builder_config.corpus) for document in text.documents(self._on_read, leaked))
        for split, paragraphs, document in encode(texts, encoder):
            counts[split].add(paragraphs, document, encoder.tokenizer.unk_id)
            if len(document.tokens):
                shards[split].write(serializer.serialize_example(self.info.features.encode_example(to_record(document))))
        self._finish(counts)
        return [shards[split].finish() for split in SPLITS]

    def _finish(self, counts: dict[str, Counts]) -> None:
        check_counts(counts)
        check_leaks(self.builder_config.corpus, counts["train"].leaked_documents)
        seconds = time.monotonic() - self._started
        self.info.metadata.update({split: dataclasses.asdict(counts[split]) for split in SPLITS}, seconds=seconds)


def check_counts(counts: dict[str, Counts]) -> None:
    """Every split must hold something.

    Raises:
        InputError: a split has no document with a token.
    """
    for split, count in counts.items():
        if not count.documents:
            raise InputError(
                f"The {split} text of the corpus holds not one document with a token ({count.empty_documents:,} without): "
                "check corpus.source and corpus.valid_source, and that the vocabulary fits the language."
            )


def check_leaks(corpus: CorpusConfig, leaked: int) -> None:
    """There must be no more leaks than the configuration allows.

    Raises:
        InputError: training documents stand in the held-out text, and `corpus.leaks` refuses that.
    """
    if leaked and corpus.leaks == "refuse":
        raise InputError(
            f"{leaked:,} documents of {corpus.source} stand in the held-out text {corpus.valid_source} too, and corpus.leaks=refuse: clean "
            "the text, or set it to leave_out to train without them."
        )


class _Shards:
    """Writes the records of one split, a shard after the other; the names, which hold their number, come last."""

    def __init__(self, template: Any) -> None:
        self._template = template
        self._paths: list[Path] = []
        self._lengths: list[int] = []
        self._bytes = 0
        self._left = 0
        self._writer: ArrayRecordWriter | None = None

    def write(self, record: bytes) -> None:
        if self._writer is None or self._left < 0:
            self._open()
        assert self._writer is not None
        self._writer.write(record)
        self._lengths[-1] += 1
        self._bytes += len(record)
        self._left -= len(record)

    def _open(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._paths.append(Path(self._template.data_dir) / f"{self._template.split}-{len(self._paths):05d}.part")
        # One record a group reads at random fastest.
        self._writer = ArrayRecordWriter(str(self._paths[-1]), "group_size:1")
        self._lengths.append(0)
        self._left = _SHARD_BYTES

    def finish(self) -> tfds.core.SplitInfo:
        if self._writer is not None:
            self._writer.close()
        for path, name in zip(self._paths, self._template.sharded_filepaths(len(self._paths)), strict=True):
            path.rename(name)
        return tfds.core.SplitInfo(
            name=self._template.split, shard_lengths=self._lengths, num_bytes=self._bytes, filename_template=self._template
        )
