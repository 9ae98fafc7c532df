"""Preparation on Apache Beam gives the records that the plain path gives."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from bert_jax.config import CorpusConfig, VocabularyConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import Tokenizer

TEXTS = [[f"第{i}章。天地玄黄！", *("宇宙洪荒。" * j for j in range(i % 4))] for i in range(40)]


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "text").mkdir()
    for file in range(4):
        documents = ["\n".join(document) for document in TEXTS[10 * file : 10 * file + 10]]
        (tmp_path / "text" / f"{file}.txt").write_text("\n\n".join([*documents, "\u0007"]), encoding="utf-8")
    tokenizer = Tokenizer.train([line for document in TEXTS for line in document], VocabularyConfig(size=100), show_progress=False)
    return CorpusConfig(source=str(tmp_path / "text"), segmenter="characters", valid_fraction=0.2), tokenizer


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="apache-beam is not installed (an extra)")
@pytest.mark.filterwarnings("default")  # Beam's own deprecations
@pytest.mark.parametrize("separate", [False, True])
def test_records_and_counts_equal_those_of_the_plain_path(corpus, tmp_path, separate):
    config, tokenizer = corpus
    if separate:
        (tmp_path / "valid.txt").write_text("天地。\n\n玄黄。宇宙。\n\n" + "\n".join(TEXTS[5]), encoding="utf-8")
        config = dataclasses.replace(config, valid_source=str(tmp_path / "valid.txt"), leaks="leave_out")
    plain = Text().prepare(config, tokenizer, tmp_path / "plain", show_progress=False)
    beam = Text().prepare(config, tokenizer, tmp_path / "beam", show_progress=False, beam=["--runner=FnApiRunner"])
    for one, other in ((plain.train, beam.train), (plain.valid, beam.valid)):
        assert len(one) == len(other) > 0
        for a, b in zip(one.fetch(range(len(one))), other.fetch(range(len(other))), strict=True):
            assert a.units is b.units is None
            for x, y in zip(a[:3], b[:3], strict=True):
                np.testing.assert_array_equal(x, y)
                assert x.dtype == y.dtype
    assert plain.info["train"]["leaked_documents"] == separate
    assert {split: plain.info[split] for split in ("train", "valid")} == {split: beam.info[split] for split in ("train", "valid")}


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="apache-beam is installed")
def test_without_beam_the_error_says_what_to_install(corpus, tmp_path):
    with pytest.raises(InputError, match="pip install apache-beam"):
        Text().prepare(*corpus, tmp_path / "data", show_progress=False, beam=["--runner=FnApiRunner"])
