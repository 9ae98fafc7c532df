"""Units beside the ids, from records to batches: each goes where its id goes, and changes nothing of the other fields."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_pipeline import FIRST_TOKEN, ROWS, MemorySource, Special, assert_same, corpus, joined, stream, take
from test_queries import CPU, queries
from test_queries import Special as Masking
from test_toy_modality import Digits, DigitsCorpus, DigitsEncoder, DigitsReader

from bert_jax import modalities
from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.data.packing import Batch
from bert_jax.data.pipeline import evaluation_batches, merge_states
from bert_jax.data.queries import packed_batches
from bert_jax.data.reader import Units
from bert_jax.data.records.corpora import prepare
from bert_jax.data.records.record import Document
from bert_jax.errors import InputError
from bert_jax.model.directory import InputDescription, ModelDescription
from bert_jax.tasks.stored import build, parameter_shapes

DTYPES = (np.uint8, np.float16)


def units_of(tokens: np.ndarray, dtype: type) -> np.ndarray:
    """Three numbers that tell from which token they are."""
    return np.stack([tokens % 200 + 1, tokens // 200, tokens % 7], -1).astype(dtype)


class WithUnits(MemorySource):
    """The same documents, with units."""

    def __init__(self, source: MemorySource, dtype: type) -> None:
        self.tokens, self.ends = source.tokens, source.ends
        self.documents = [document._replace(units=units_of(document.tokens, dtype)) for document in source.documents]


SOURCE = corpus()
BESIDE = {dtype: WithUnits(SOURCE, dtype) for dtype in DTYPES}


def assert_beside(batches: Sequence[Batch], dtype: type) -> None:
    """Every token of the corpus has its units, and nothing else has any."""
    for batch in batches:
        real = batch["tokens"] >= FIRST_TOKEN
        assert batch["units"].dtype == dtype and batch["units"].shape == (*real.shape, 3)
        np.testing.assert_array_equal(batch["units"], np.where(real[:, :, None], units_of(batch["tokens"], dtype), 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("task", ["nsp", "sop", "none"])
def test_they_go_with_their_ids_and_change_nothing_else(task: str, packing: bool, dtype: type) -> None:
    rows = replace(ROWS, next_sentence=task, packing=packing)
    plain, beside = (take(stream(rows=rows, source=source), 40) for source in (SOURCE, BESIDE[dtype]))
    assert_beside(beside, dtype)
    assert_same([{name: field for name, field in batch.items() if name != "units"} for batch in beside], plain)


def test_they_are_shared_among_processes_and_go_on_where_they_stopped() -> None:
    source = BESIDE[np.uint8]
    whole = stream(source=source)
    first = [stream(source=source, index=index, count=2) for index in range(2)]
    assert_same(joined([take(batches, 21) for batches in first]), take(whole, 21))
    state = json.loads(json.dumps(merge_states([batches.get_state() for batches in first])))
    restored = stream(source=source)
    restored.set_state(state)
    assert_same(take(restored, 25), take(whole, 25))


def test_those_of_held_out_data_end_with_empty_rows() -> None:
    batches = evaluation_batches(BESIDE[np.float16], Special(), ROWS, 16, seed=0, count=10_000)
    assert_beside(batches, np.float16)
    assert not batches[-1]["example_ids"][-1].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_they_are_in_the_rows_of_queries(dtype: type) -> None:
    plain = queries([5, 9, 30, 7, 120, 64], masked=[4, 20], owners=[1, 2])
    beside = replace(plain, units=units_of(plain.tokens, dtype))
    for one, other in zip(packed_batches(plain, Masking(), CPU), packed_batches(beside, Masking(), CPU), strict=True):
        assert_same([{name: field for name, field in other.fields.items() if name != "units"}], [one.fields])
        tokens = one.fields["tokens"].copy()
        indices, *places = other.masked
        tokens[tuple(places)] = plain.tokens[plain.masked[indices]]
        assert_beside([{"tokens": tokens, "units": other.fields["units"]}], dtype)


class UnitsEncoder(DigitsEncoder):
    """Digits with units beside them."""

    def __call__(self, documents: list[list[str]]) -> list[Document]:
        assert self.reader.units is not None
        return [document._replace(units=units_of(document.tokens, self.reader.units.dtype)) for document in super().__call__(documents)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_records_hold_them(dtype: type, tmp_path: Path) -> None:
    (tmp_path / "digits.txt").write_text("\n\n".join(f"{i}{i + 1}\n{i + 2}" for i in range(30)))
    reader = DigitsReader(10)
    reader.units = Units(dtype, 3)
    config = DigitsCorpus(source=str(tmp_path / "digits.txt"), valid_fraction=0.2)
    prepared = prepare(config, Digits(), UnitsEncoder(reader), tmp_path / "data", show_progress=False)
    for document in (*prepared.train.fetch(range(len(prepared.train))), *prepared.valid.fetch(range(len(prepared.valid)))):
        assert document.units is not None and document.units.dtype == dtype
        np.testing.assert_array_equal(document.units, units_of(document.tokens, dtype))


def test_a_description_says_what_enters_only_where_it_is_not_text() -> None:
    encoder = EncoderConfig(layers=1, width=8, heads=1, feed_forward=8, max_positions=8)
    reader = DigitsReader(10)
    reader.units = Units(np.uint8, 3)
    digits = ModelDescription("pretraining", encoder, 8, input=InputDescription.of(Digits(), reader))
    assert digits.stored()["input"] == {"modality": "digits", "embedding": "tokens", "units": 3, "columns": 0, "block": 0}
    assert "input" not in ModelDescription("pretraining", encoder, 8).stored()
    assert parameter_shapes(digits, 15)["embeddings"]["tokens"].shape == (15, 8)
    with pytest.raises(InputError, match=r"no embedding 'patches'\. The embeddings are tokens, units"):
        build(replace(digits, input=InputDescription(embedding="patches")), 15, ComputeConfig())


def test_the_modalities_are_those_of_the_folders() -> None:
    folders = {path.parent.name for path in Path(modalities.__file__).parent.glob("*/__init__.py")}
    assert {modality.name for modality in modalities.MODALITIES} | {"media"} == folders
