"""Tokenization beside `transformers`' BertTokenizerFast: on lines of real corpora, and on text that nobody should have to read."""

import itertools
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bert_jax.modalities.text.tokenizer import Tokenizer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VOCABULARIES = {"bert-base-uncased": True, "bert-base-cased": False, "bert-base-chinese": False}
CORPORA = ["zh.train.txt", "zh.valid.txt", "en.train.txt", "en.valid.txt", "large/zh_modern.txt.xz", "large/en_imdb_unlabelled.txt.xz"]

HOSTILE = [
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ☝️ 1️⃣",
    "é e\u0301 ệ e\u0323\u0302 ﬁ Å Å ß ẞ İ ı ſ",
    "a\x00b\x01c\x1fd\x7fe\x85f\u200bg\u200dh\ufeffi\u2028j\u2029k\xa0l\u3000m\ufffdn",
    "㐀 䶿 一 鿿 豈 𠀀 𪛖 𪜀 𫠠 𬺰 丽 𰀀 々 〆 〇 ㍿ カ が カ\u3099 한국어 ᄒ\u1161ᆫ",
    "שלום עולם مرحبا بالعالم \u202eabc\u202c \u2067x\u2069 ١٢٣",
    "[MASK][CLS] [SEP]x[UNK] [PAD]] [mask] [[MASK]]",
    "\t\r\n \u2003 ",
    "ＡＢＣ１２３！？。「」『』【】…—·~～",
    "don't stop-me now... $9.99 (100%) user@example.com https://x.y/z?a=b&c=d #tag C++ \\ | ^ _ `",
    "̈́a" * 50 + "\u0301" * 200,
    "x" * 99 + " " + "y" * 100 + " " + "z" * 101,
    "\U0010ffff \ue000 \ufdd0 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ①②③ Ⅷ ½",
]


def pairs(names: list[str]) -> Iterator[tuple[Tokenizer, Any]]:
    """Ours and theirs over the published vocabularies."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if not DATA.is_dir():
        pytest.skip(f"the published vocabularies are not in {DATA}")
    for name in names:
        file, lowercase = DATA / "vocab" / f"{name}.vocab.txt", VOCABULARIES[name]
        yield Tokenizer.load(file, lowercase), transformers.BertTokenizerFast(str(file), do_lower_case=lowercase)


def compare(ours: Tokenizer, theirs: Any, texts: list[str]) -> None:
    wanted = theirs(texts, add_special_tokens=False)["input_ids"]
    flat = ours.encode_flat(texts)
    ends = flat.lengths.cumsum()
    for text, own, ids, end, length in zip(texts, ours.encode_batch(texts), wanted, ends, flat.lengths, strict=True):
        assert own.ids.tolist() == ids, text
        assert flat.ids[end - length : end].tolist() == ids, text


def test_hostile_text_is_read_alike() -> None:
    for ours, theirs in pairs(list(VOCABULARIES)):
        compare(ours, theirs, HOSTILE)
        compare(ours, theirs, ["".join(HOSTILE), "a" * 1_000_000, "好" * 100_000, "́" * 100_000])


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_ten_thousand_lines_are_read_alike(corpus: str) -> None:
    for ours, theirs in pairs(["bert-base-chinese" if "zh" in corpus else "bert-base-uncased"]):
        with (lzma.open if corpus.endswith(".xz") else open)(DATA / "corpora" / corpus, "rt", encoding="utf-8") as file:
            lines = [line.rstrip("\n") for line in itertools.islice(file, 10_000)]
        assert len(lines) > 1000
        compare(ours, theirs, lines)
