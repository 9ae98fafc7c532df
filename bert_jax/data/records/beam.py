"""The same preparation on Apache Beam, for corpora beyond one machine (an extra: `pip install apache-beam`)."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax.data.records.held_out import DividedText
from bert_jax.data.records.record import Counts, to_record
from bert_jax.errors import InputError
from bert_jax.modalities.text.encoding import Batch, DocumentEncoder, batches

try:
    import apache_beam as beam
    from apache_beam.metrics.metric import Metrics, MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise InputError("Preparing on Apache Beam needs the package apache-beam, which is not installed: pip install apache-beam.") from error

_DOCUMENTS_IN_A_PART = 1 << 40


def pipeline_options(options: Sequence[str]) -> PipelineOptions:
    """Command-line options such as `--runner=DataflowRunner` as Beam's options."""
    return PipelineOptions(list(options))


def encode_parts(pipeline: Any, parts: list[DividedText], encoder: DocumentEncoder) -> Any:
    """A collection of (split, (key, record)), where the keys are in the order of the text."""
    return (
        pipeline
        | "parts" >> beam.Create(list(enumerate(parts)))
        | "spread parts" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(_read)
        | "spread documents" >> beam.Reshuffle()
        | "encode" >> beam.ParDo(_Encode(encoder))
    )


def of_split(split: str) -> Any:
    """The (key, record) of one split."""
    return beam.ptransform_fn(lambda examples: examples | beam.Filter(lambda example: example[0] == split) | beam.Values())()


def counted(result: Any, split: str) -> dict[str, int]:
    """What the pipeline counted of a split, as the fields of `Counts`."""
    found = result.metrics().query(MetricsFilter().with_namespace(split))["counters"]
    counts: Counter[str] = Counter()
    for counter in found:  # those of each step of the pipeline
        counts[counter.key.metric.name] += counter.result
    return counts


def _read(numbered: tuple[int, DividedText]) -> Iterator[Batch[tuple[int, str]]]:
    number, part = numbered
    first = number * _DOCUMENTS_IN_A_PART
    documents = part.documents(on_leak=Metrics.counter("train", "leaked_documents").inc)
    return batches(((key, split), paragraphs) for key, (split, paragraphs) in enumerate(documents, first))


class _Encode(beam.DoFn):
    def __init__(self, encoder: DocumentEncoder) -> None:
        self._encoder = encoder

    def process(self, batch: Batch[tuple[int, str]]) -> Iterator[tuple[str, tuple[int, dict[str, Any]]]]:
        for ((key, split), paragraphs), document in zip(batch, self._encoder([paragraphs for _, paragraphs in batch]), strict=True):
            counts = Counts()
            counts.add(paragraphs, document, self._encoder.tokenizer.unk_id)
            for name, count in dataclasses.asdict(counts).items():
                Metrics.counter(split, name).inc(count)
            if len(document.tokens):
                yield split, (key, to_record(document))
