import dataclasses
import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from bert_jax.config import CorpusConfig, RowsConfig, VocabularyConfig
from bert_jax.data import epoch
from bert_jax.data.pipeline import make_rows
from bert_jax.errors import InputError
from bert_jax.modalities.text import inspection
from bert_jax.modalities.text.encoding import DocumentEncoder
from bert_jax.modalities.text.inspection import inspect
from bert_jax.modalities.text.tokenizer import Tokenizer

DOCUMENTS = [
    ["这家酒店的服务很好。房间也很干净!", "早餐不错。"],
    ["这家酒店的 服务很好。 房间也很干净!", "早餐\u200b不错。"],
    ["The hotel was clean. The staff was kind and helpful."],
    ["好。"],
    ["再也不来了qqq"],
]


@pytest.fixture
def corpus(tmp_path) -> CorpusConfig:
    (tmp_path / "corpus.txt").write_text("\n\n".join("\n".join(document) for document in DOCUMENTS), encoding="utf-8")
    return CorpusConfig(source=str(tmp_path / "corpus.txt"), valid_fraction=1e-9)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [paragraph.replace("qqq", "") for document in DOCUMENTS for paragraph in document]
    return Tokenizer.train(texts, VocabularyConfig(min_frequency=1), show_progress=False)


def look(config: CorpusConfig, tokenizer: Tokenizer | None = None, *files: Path, rows: RowsConfig | None = None) -> inspection.Inspection:
    return inspect(config, rows or RowsConfig(length=16), 2, tokenizer, files, show_progress=False)


def test_counts(corpus, tokenizer):
    seen = look(corpus, tokenizer)
    assert (seen.documents, seen.sentences, seen.single_sentence_documents) == (5, 10, 2)
    assert (seen.repeated_documents, seen.repeated_sentences, seen.repeats_estimated) == (1, 3, False)
    assert seen.characters == sum(len(paragraph) for document in DOCUMENTS for paragraph in document)
    assert seen.tokens == sum(len(tokenizer.encode(paragraph)) for document in DOCUMENTS for paragraph in document)
    assert seen.unknown_tokens == 1
    assert seen.lengths == ((2, 3, 1), (4, 7, 1), (8, 15, 1), (16, 31, 2))


@pytest.mark.parametrize("packing", [True, False])
def test_an_epoch_is_as_long_as_in_training(corpus, tokenizer, packing):
    rows = RowsConfig(length=16, next_sentence="none", packing=packing, short_probability=0)
    made = make_rows(DocumentEncoder(tokenizer, corpus)(DOCUMENTS), tokenizer, rows, np.random.default_rng(0))
    seen = look(corpus, tokenizer, rows=rows)
    assert (seen.rows, seen.steps_per_epoch) == (len(made["tokens"]), len(made["tokens"]) / 2)
    assert seen.fill == pytest.approx((made["example_ids"] > 0).mean())
    held_out = look(dataclasses.replace(corpus, valid_fraction=0.5), tokenizer, rows=rows)
    assert held_out.rows == round(seen.rows / 2)


def test_without_a_vocabulary_tokens_are_not_known(corpus):
    seen = look(corpus)
    assert (seen.tokens, seen.unknown_tokens, seen.rows, seen.steps_per_epoch) == (None, None, None, None)
    assert seen.documents == 5 and seen.lengths[0] == (2, 3, 1)
    assert "no vocabulary was given" in str(seen) and "characters per document" in str(seen)


def test_overlap_with_evaluation_files(corpus, tmp_path):
    table = tmp_path / "test.tsv"
    rows = ["0\t好。", "1\tThe staff was kind", "1\t房间也很 干净!", "1\tThe hotel was clean. The staff was kind and helpful.", "0\t没有"]
    table.write_text("label\ttext\n" + "\n".join(rows) + "\n", encoding="utf-8")
    lines = tmp_path / "test.txt.xz"
    lines.write_bytes(lzma.compress("\n早餐不错。\n这家酒店的服务很好。房间也很干净!早餐不错。\n".encode()))
    first, second = look(corpus, None, table, lines).overlaps
    assert (first.texts, first.found, first.short) == (5, 3, 2)
    assert first.examples == ((5, "The hotel was clean. The staff was kind and helpful."), (2, "好。"), (4, "房间也很 干净!"))
    assert (second.texts, second.found, [line for line, _ in second.examples]) == (2, 2, [3, 2])


def test_a_labelled_file_is_looked_at_as_a_corpus(tmp_path):
    (tmp_path / "train.csv").write_text('label,text\n0,"早餐不错。\n房间也很 干净!"\n1,好。\n1,The hotel was clean.\n', encoding="utf-8")
    (tmp_path / "test.tsv").write_text("label\ttext\n1\t房间也很干净!\n0\tThe hotel was clean. \n0\t没有\n", encoding="utf-8")
    seen = look(CorpusConfig(source=str(tmp_path / "train.csv")), None, tmp_path / "test.tsv")
    assert (seen.documents, seen.sentences) == (3, 4)
    assert (seen.overlaps[0].texts, seen.overlaps[0].found) == (3, 2)


@pytest.mark.parametrize(("dev", "found"), [("dev", 340), ("dev.clean", 0)])
def test_the_known_leak_of_a_published_set_is_found(dev, found):
    """338 rows of ChnSentiCorp's dev set are copies of training rows to the letter, and two more but for white space."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "sentiment" / "zh"
    if not folder.exists():
        pytest.skip("needs the shared data")
    seen = look(CorpusConfig(source=str(folder / "chnsenticorp.train.tsv")), None, folder / f"chnsenticorp.{dev}.tsv")
    assert (seen.documents, seen.overlaps[0].found) == (9600, found)


def test_the_report_is_text_and_json(corpus, tokenizer, tmp_path):
    (tmp_path / "test.txt").write_text("The hotel was clean.\nelsewhere")
    seen = look(corpus, tokenizer, tmp_path / "test.txt")
    report = str(seen)
    for part in ("5: 1 (20.00%) repeated, 2 (40.00%) with only one sentence", "1 (1.", "[UNK]", "steps per epoch", "of 2 rows of 16 tokens",
                 "tokens per document", "1 (50.00%) also appear in the corpus", "line 1: The hotel was clean."):  # fmt: skip
        assert part in report
    assert json.loads(json.dumps(seen.to_dict()))["steps_per_epoch"] == seen.steps_per_epoch


def test_repeats_are_estimated_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(inspection, "_MOST_HASHES", 500)
    repeats = inspection._Repeats()
    for i in range(20_000):
        repeats.add(str(i % 15_000))
    assert repeats.seen == 20_000 and repeats.estimated
    assert len(repeats._counts) <= 500
    assert repeats.repeats == pytest.approx(5_000, rel=0.3)


def test_many_documents_make_several_blocks(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(epoch, "_BLOCK_TOKENS", 50)
    (tmp_path / "corpus.txt").write_text("\n\n".join(["The hotel was clean. The staff was kind."] * 40))
    seen = look(CorpusConfig(source=str(tmp_path / "corpus.txt"), valid_fraction=1e-9), tokenizer)
    assert 20 <= seen.rows <= 60 and 0.5 < seen.fill <= 1


def test_what_cannot_be_read_is_named(corpus, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.txt contains no text"):
        look(CorpusConfig(source=str(tmp_path / "empty.txt")))
    for name, problem in (("absent.tsv", "does not exist"), ("empty.txt", "no text"), ("test.doc", "not one of")):
        with pytest.raises(InputError, match=problem) as error:
            look(corpus, None, tmp_path / name)
        assert name in str(error.value)
