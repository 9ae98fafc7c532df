"""A TFDS builder that converts raw data to ArrayRecord shards of tokenized documents.

It writes the shards itself. TFDS's own writer buffers up to 1 GB in memory, needs TensorFlow beyond that, and with
`disable_shuffling` puts every record into a single bucket that is sorted in memory. This builder writes both splits in one
pass over the data and keeps only a few batches in memory.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from bert_jax.config import CorpusOptions
from bert_jax.data.records.encoding import Encoder, encode
from bert_jax.data.records.held_out import divide
from bert_jax.data.records.record import SPLITS, Counts, check_counts, check_leaks, columns, to_record
from bert_jax.data.records.source import Raw
from bert_jax.storage.files import sha256

_SHARD_BYTES = 256 << 20


@dataclasses.dataclass(kw_only=True)
class DocumentsConfig(tfds.core.BuilderConfig):
    """The raw data and the encoder of one preparation. `name` contains a hash of everything that determines the records."""

    corpus: CorpusOptions
    raw: Raw[Any, Any]
    encoder: Encoder[Any]


class Documents(tfds.core.GeneratorBasedBuilder):
    """Tokenized documents with their sentence and word starts."""

    # Increment this with every code change (sentences, words, records) that changes the records of the same text.
    VERSION = tfds.core.Version("1.0.0")
    builder_config: DocumentsConfig

    def _info(self) -> tfds.core.DatasetInfo:
        reader = self.builder_config.encoder.reader
        # Encoding as bytes is four times as fast as TFDS's default, which stores every number as a varint.
        features = {
            name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
            for name, (shape, dtype) in columns(reader.vocab_size, reader.units).items()
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True, metadata=tfds.core.MetadataDict()
        )

    def build(self, on_read: Callable[[int], None], on_written: Callable[[], None], beam: Sequence[str] | None) -> None:
        """Write the records, on this machine or on Apache Beam.

        Args:
            on_read: called with the number of bytes that were just read on this machine.
            on_written: called before the folder is moved to its final location; if it raises, nothing is left there.
            beam: options of a Beam pipeline, or None to write on this machine.
        """
        self._on_read, self._on_written, self._beam, self._started = on_read, on_written, beam is not None, time.monotonic()
        download_config = None
        if beam is not None:
            from bert_jax.data.records.beam import pipeline_options

            download_config = tfds.download.DownloadConfig(beam_options=pipeline_options(beam))
        self.download_and_prepare(download_config=download_config)

    def _split_generators(self, dl_manager: Any, pipeline: Any) -> dict[str, Any]:
        from bert_jax.data.records.beam import encode_parts

        config = self.builder_config
        parts = [part for source in divide(config.raw, config.corpus) for part in source.parts()]
        examples = encode_parts(pipeline, parts, config.encoder)
        return {split: self._generate_examples(examples, split) for split in SPLITS}

    def _generate_examples(self, examples: Any, split: str) -> Any:
        from bert_jax.data.records.beam import of_split

        return examples | f"only {split}" >> of_split(split)

    def _process_pipeline_result(self, pipeline_result: Any) -> None:
        from bert_jax.data.records.beam import counted

        counts = self.builder_config.encoder.counts
        self._finish({split: counts(**counted(pipeline_result, split)) for split in SPLITS})

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        splits = super()._generate_splits(dl_manager, download_config) if self._beam else self._write_splits()
        self._on_written()
        # Checked at every later start; the metadata of an unfinished folder has no `shards`.
        paths = [Path(path) for split in splits for path in split.filepaths]
        self.info.metadata["shards"] = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths}
        return splits

    def _write_splits(self) -> list[tfds.core.SplitInfo]:
        encoder = self.builder_config.encoder
        serializer = ExampleSerializer(self.info.features.get_serialized_info())
        counts = {split: encoder.counts() for split in SPLITS}
        shards = {split: _Shards(self._get_filename_template(split_name=split)) for split in SPLITS}

        def leaked() -> None:
            counts["train"].leaked_documents += 1

        sources = divide(self.builder_config.raw, self.builder_config.corpus)
        documents = (document for source in sources for document in source.documents(self._on_read, leaked))
        for split, raw, document in encode(documents, encoder):
            counts[split].add(encoder.count(raw, document))
            if len(document.tokens):
                shards[split].write(serializer.serialize_example(self.info.features.encode_example(to_record(document))))
        self._finish(counts)
        return [shards[split].finish() for split in SPLITS]

    def _finish(self, counts: Mapping[str, Counts]) -> None:
        check_counts(counts)
        check_leaks(self.builder_config.corpus, counts["train"].leaked_documents)
        seconds = time.monotonic() - self._started
        self.info.metadata.update({split: dataclasses.asdict(counts[split]) for split in SPLITS}, seconds=seconds)


class _Shards:
    """Writes the records of one split shard by shard. Files are renamed at the end, since shard names contain the number of shards."""

    def __init__(self, template: Any) -> None:
        self._template = template
        self._paths: list[Path] = []
        self._lengths: list[int] = []
        self._bytes = 0
        self._remaining = 0
        self._writer: ArrayRecordWriter | None = None

    def write(self, record: bytes) -> None:
        if self._writer is None or self._remaining < 0:
            self._open()
        assert self._writer is not None
        self._writer.write(record)
        self._lengths[-1] += 1
        self._bytes += len(record)
        self._remaining -= len(record)

    def _open(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._paths.append(Path(self._template.data_dir) / f"{self._template.split}-{len(self._paths):05d}.part")
        # One record per group is the fastest for random access.
        self._writer = ArrayRecordWriter(str(self._paths[-1]), "group_size:1")
        self._lengths.append(0)
        self._remaining = _SHARD_BYTES

    def finish(self) -> tfds.core.SplitInfo:
        if self._writer is not None:
            self._writer.close()
        for path, name in zip(self._paths, self._template.sharded_filepaths(len(self._paths)), strict=True):
            path.rename(name)
        return tfds.core.SplitInfo(
            name=self._template.split, shard_lengths=self._lengths, num_bytes=self._bytes, filename_template=self._template
        )
