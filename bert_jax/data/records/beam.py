"""Corpus preparation on Apache Beam, for corpora too large for one machine (optional: `pip install apache-beam`)."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bert_jax.data.records.encoding import Batch, Encoder, batches
from bert_jax.data.records.held_out import DividedSource
from bert_jax.data.records.record import to_record
from bert_jax.errors import InputError

try:
    import apache_beam as beam
    from apache_beam.metrics.metric import Metrics, MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise InputError("Preparation on Apache Beam needs apache-beam, which is not installed: pip install apache-beam.") from error

_MAX_DOCUMENTS_PER_PART = 1 << 40


def pipeline_options(options: Sequence[str]) -> PipelineOptions:
    """Parse command-line options such as `--runner=DataflowRunner` into Beam's `PipelineOptions`."""
    return PipelineOptions(list(options))


def encode_parts(pipeline: Any, parts: list[DividedSource[Any]], encoder: Encoder[Any]) -> Any:
    """Return a collection of (split, (key, record)); the keys sort in the order of the raw data."""
    return (
        pipeline
        | "parts" >> beam.Create(list(enumerate(parts)))
        | "spread parts" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(_read, encoder)
        | "spread documents" >> beam.Reshuffle()
        | "encode" >> beam.ParDo(_Encode(encoder))
    )


def of_split(split: str) -> Any:
    """Return a transform that selects the (key, record) pairs of one split."""
    return beam.ptransform_fn(lambda examples: examples | beam.Filter(lambda example: example[0] == split) | beam.Values())()


def counted(result: Any, split: str) -> dict[str, int]:
    """Return the pipeline's counters for a split, keyed by the fields of `Counts`."""
    found = result.metrics().query(MetricsFilter().with_namespace(split))["counters"]
    counts: Counter[str] = Counter()
    for counter in found:  # one per counter and pipeline step
        counts[counter.key.metric.name] += counter.result
    return counts


def _read(numbered: tuple[int, DividedSource[Any]], encoder: Encoder[Any]) -> Iterator[Batch[tuple[int, str], Any]]:
    number, part = numbered
    first = number * _MAX_DOCUMENTS_PER_PART
    documents = part.documents(on_leak=Metrics.counter("train", "leaked_documents").inc)
    return batches((((key, split), raw) for key, (split, raw) in enumerate(documents, first)), encoder)


class _Encode(beam.DoFn):
    def __init__(self, encoder: Encoder[Any]) -> None:
        self._encoder = encoder

    def process(self, batch: Batch[tuple[int, str], Any]) -> Iterator[tuple[str, tuple[int, dict[str, Any]]]]:
        for ((key, split), raw), document in zip(batch, self._encoder([raw for _, raw in batch]), strict=True):
            for name, count in dataclasses.asdict(self._encoder.count(raw, document)).items():
                Metrics.counter(split, name).inc(count)
            if len(document.tokens):
                yield split, (key, to_record(document))
