import json
import pickle
import subprocess
import sys
import time
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.config import VocabularyConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text.bulk_encoding import BulkEncoder
from bert_jax.modalities.text.tokenizer import SPECIAL_TOKENS, Tokenizer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WORDS = "hotel ##s un ##able a b c ##b . , ! # [ ] 店 好 ， 。 e é ##é mask".split()
TEXTS = [
    "这家酒店的服务很好,房间也很干净。The hotel was clean and the hotels were cheap!",
    "the lowest prices, the newest rooms; lower and newer than the others (room 101)",
    "这家酒店的早餐不错。再也不来了!",
] * 3


def from_words(*words: str, lowercase: bool = True, directory: Path) -> Tokenizer:
    file = directory / "vocab.txt"
    file.write_text("\n".join([*SPECIAL_TOKENS, *words]) + "\n", encoding="utf-8")
    return Tokenizer.load(file, lowercase)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return from_words(*WORDS, directory=tmp_path_factory.mktemp("vocabulary"))


@cache
def trained(kind: str, lowercase: bool = True) -> Tokenizer:
    return Tokenizer.train(TEXTS, VocabularyConfig(kind=kind, size=200, casing="uncased" if lowercase else "cased"), show_progress=False)


@cache
def published(name: str, lowercase: bool) -> Tokenizer:
    return Tokenizer.load(DATA / "vocab" / f"{name}.vocab.txt", lowercase)


def test_agrees_with_the_published_tokenizers():
    if not DATA.is_dir():
        pytest.skip(f"the reference tokenizations are not in {DATA}")
    lines = (DATA / "golden" / "tokenizer.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 64
    for case in map(json.loads, lines):
        tokenizer = published(case["vocab"], case["lowercase"])
        texts = [case["text"], *([case["text_pair"]] if "text_pair" in case else [])]
        for encodings in (tokenizer.encode_batch(texts), [tokenizer.encode_flat([text]) for text in texts]):
            ids = [tokenizer.cls_id, *(i for encoding in encodings for i in (*encoding.ids.tolist(), tokenizer.sep_id))]
            assert ids == case["ids"], case["text"]
            assert tokenizer.tokens(ids) == case["tokens"]


def test_word_starts_offsets_and_special_tokens(tokenizer):
    text = "Hotels unable, 好店xyz[MASK]a"
    encoding = tokenizer.encode(text)
    assert tokenizer.tokens(encoding.ids) == ["hotel", "##s", "un", "##able", ",", "好", "店", "[UNK]", "[MASK]", "a"]
    assert encoding.word_starts.tolist() == [True, False, True, False, True, True, True, True, True, True]
    assert [text[a:b] for a, b in encoding.offsets] == ["Hotel", "s", "un", "able", ",", "好", "店", "xyz", "[MASK]", "a"]
    assert (encoding.ids.dtype, encoding.word_starts.dtype, encoding.offsets.dtype) == (np.int32, np.bool_, np.int32)
    assert len(tokenizer.encode("").ids) == 0 and tokenizer.encode("").offsets.shape == (0, 2)


def test_characters_are_tokens_and_know_their_words():
    tokenizer = trained("characters")
    encoding = tokenizer.encode("Hot hotel,酒店")
    assert "".join(tokenizer.tokens(encoding.ids)) == "hothotel,酒店"
    assert np.flatnonzero(encoding.word_starts).tolist() == [0, 3, 8, 9, 10]
    assert all(len(token) == 1 for token in tokenizer.tokens(tokenizer.ordinary_ids))


def test_ids_of_special_unused_and_ordinary_tokens(tmp_path):
    tokenizer = from_words("[unused0]", "a", "[unused17]", "b", directory=tmp_path)
    assert tokenizer.special_ids == (0, 1, 2, 3, 4)
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == tokenizer.special_ids
    assert tokenizer.ordinary_ids.tolist() == [6, 8] and tokenizer.ordinary_ids.dtype == np.int32
    assert tokenizer.vocab_size == 9 and tokenizer.id("b") == 8


def test_decodes_without_spaces_in_chinese(tokenizer):
    ids = tokenizer.encode("店好。hotels, unable 好").ids
    assert tokenizer.decode(ids) == "店好。hotels , unable好"
    assert tokenizer.decode([2, *ids[:2], 4, 3]) == "[CLS]店好[MASK] [SEP]"


# Text of what is hard: words of the vocabulary, special tokens, combining marks, invisible characters, surrogates, other scripts.
PIECES = ["hotel", "s", "un", "able", "[MASK]", "[SEP", "]", " ", "\t", "店", "好", "𠀀", "豈", "，", "!", "́", "é", "É", "İ",
          "\u200b", "\u200d", "\0", "\ufffd", "\ud800", "\udc00", "한", "ー", "か", "゙", "№", "\u3000", "x" * 101, "😀"]  # fmt: skip
PAGES = st.lists(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=12).map("".join), max_size=5)


@settings(max_examples=120, deadline=None)
@given(PAGES, st.sampled_from(["wordpiece", "characters", "words", "bytes"]), st.booleans())
def test_bulk_encoding_is_encoding(texts, kind, lowercase):
    tokenizer = trained(kind, lowercase)
    encodings = tokenizer.encode_batch(texts)
    flat, characters = tokenizer.encode_characters(texts)
    assert flat.ids.tolist() == [i for encoding in encodings for i in encoding.ids]
    assert flat.word_starts.tolist() == [start for encoding in encodings for start in encoding.word_starts]
    assert flat.lengths.tolist() == [len(encoding) for encoding in encodings]
    before = np.cumsum([0, *map(len, texts)])
    offsets = [before[i] + first for i, encoding in enumerate(encodings) for first, _ in encoding.offsets]
    assert all(known in (-1, first) for known, first in zip(characters, offsets, strict=True))


def test_bulk_encoding_knows_every_character():
    tokenizer = trained("wordpiece")
    characters = [c for c in map(chr, range(0x1FFFF)) if unicodedata.category(c) not in ("Cn", "Co") and not "\u4e10" < c < "\u9ff0"]
    texts = [" ".join(f"a{c}b 店{c}" for c in characters[i : i + 20]) for i in range(0, len(characters), 20)]
    flat, encodings = tokenizer.encode_flat(texts), tokenizer.encode_batch(texts)
    different = [text for text, length, encoding in zip(texts, flat.lengths, encodings, strict=True) if length != len(encoding)]
    assert not different
    assert np.array_equal(flat.ids, np.concatenate([encoding.ids for encoding in encodings]))
    assert np.array_equal(flat.word_starts, np.concatenate([encoding.word_starts for encoding in encodings]))


def test_bulk_encoding_of_many_blocks_and_words(tokenizer, monkeypatch):
    texts = ["hotels 店! a", "", "unable b", "好"] * 5
    expected, characters = tokenizer.encode_characters(texts)
    monkeypatch.setattr("bert_jax.modalities.text.bulk_encoding._BLOCK", 10)
    monkeypatch.setattr("bert_jax.modalities.text.bulk_encoding._MOST_KEPT", 2)
    again = pickle.loads(pickle.dumps(tokenizer))
    for _ in range(2):
        flat, places = again.encode_characters(texts)
        assert all(map(np.array_equal, (*expected, characters), (*flat, places)))


def test_threads_may_encode_at_the_same_time(monkeypatch):
    """While one waits for the library, another drops what is kept, here because there is too much of it."""
    monkeypatch.setattr("bert_jax.modalities.text.bulk_encoding._MOST_KEPT", 1)
    meanwhile = []

    def encode(texts):
        if "cd" in texts and not meanwhile:
            meanwhile.append(encoder(["ef gh"]))
        return [np.arange(1, len(text) + 1, dtype=np.int32) for text in texts]

    encoder = BulkEncoder(encode, [], " ", 0, lambda texts: [])
    encoder(["ab"])
    assert encoder(["ab cd"]).codes.tolist() == [1, 2, 1, 2] and meanwhile


@pytest.mark.parametrize("text", ["x" * 1_000_000, "店" * 300_000, "!" * 300_000, "a\0" * 300_000, "\ud800" * 300_000, "́" * 300_000])
def test_long_and_odd_text_takes_linear_time(tokenizer, text):
    started = time.process_time()
    encoding, flat = tokenizer.encode(text), tokenizer.encode_flat([text])
    assert np.array_equal(encoding.ids, flat.ids)
    assert time.process_time() - started < 10


def test_lone_surrogates_keep_offsets(tokenizer):
    text = "店\ud800好 \udfffhotel"
    encoding = tokenizer.encode(text)
    assert [text[a:b] for a, b in encoding.offsets] == ["店", "好", "hotel"]


@pytest.mark.parametrize("kind", ["wordpiece", "characters"])
def test_saved_and_loaded_is_equal(kind, tmp_path):
    tokenizer = trained(kind, lowercase=False)
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json", tmp_path / "vocab.txt"):
        again = Tokenizer.load(path)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode("The Hotel,酒店").ids.tolist() == tokenizer.encode("The Hotel,酒店").ids.tolist()
    assert Tokenizer.load(tmp_path, lowercase=True).fingerprint == Tokenizer.load(tmp_path / "vocab.txt", lowercase=True).fingerprint
    assert Tokenizer.load(tmp_path, lowercase=True).fingerprint != tokenizer.fingerprint
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    Tokenizer.load(tmp_path).save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first


@pytest.mark.parametrize("kind", ["wordpiece", "characters"])
def test_hugging_face_reads_what_is_saved(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = trained(kind)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "The Hotels,酒店 x[MASK]"
    assert theirs(text)["input_ids"] == [tokenizer.cls_id, *tokenizer.encode(text).ids, tokenizer.sep_id]
    assert theirs.mask_token_id == tokenizer.mask_id


def test_case_comes_from_the_argument_then_the_settings_then_the_vocabulary(tmp_path):
    def first(lowercase: bool | None = None) -> str:
        return tokenizer_of(lowercase).tokens(tokenizer_of(lowercase).encode("É").ids)[0]

    def tokenizer_of(lowercase: bool | None) -> Tokenizer:
        return Tokenizer.load(tmp_path, lowercase)

    from_words("e", "é", "É", "A", directory=tmp_path)
    assert first() == "É"
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": false}')
    assert first() == "é" and first(lowercase=False) == "É"
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert first() == "e"
    (tmp_path / "tokenizer_config.json").unlink()
    from_words("e", "é", directory=tmp_path)
    assert first() == "e"


def test_repeated_and_odd_lines_keep_their_ids(tmp_path):
    tokenizer = from_words("a", "\u2028", "\x85", "a", "b\r", directory=tmp_path)
    assert tokenizer.id("b") == 9 and tokenizer.id("a") == 8 and tokenizer.vocab_size == 10
    assert 5 not in tokenizer.ordinary_ids
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved" / "vocab.txt")
    assert again.id("b") == 9 and again.vocab_size == 10 and again.ordinary_ids.tolist() == tokenizer.ordinary_ids.tolist()


def test_truncation_and_padding_in_a_file_are_off(tmp_path, tokenizer):
    tokenizer.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert len(Tokenizer.load(tmp_path).encode("a b c a").ids) == 4


def test_training_gives_the_same_vocabulary_in_every_process(tmp_path):
    script = (
        "import sys; from bert_jax.config import VocabularyConfig; from bert_jax.modalities.text.tokenizer import Tokenizer\n"
        f"print(Tokenizer.train({TEXTS!r}, VocabularyConfig(size=120), show_progress=False).fingerprint)"
    )
    prints = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout for _ in range(3)}
    assert len(prints) == 1


def test_trained_vocabulary_is_made_of_frequent_pieces():
    tokenizer = trained("wordpiece")
    tokens = tokenizer.tokens(range(tokenizer.vocab_size))
    assert tuple(tokens[:5]) == SPECIAL_TOKENS and len(set(tokens)) == len(tokens) <= 200
    assert tokenizer.tokens(tokenizer.encode("The hotel 酒店").ids) == ["the", "hotel", "酒", "店"]
    assert not any(len(token) > 1 and "\u4e00" <= character <= "\u9fff" for token in tokens for character in token)
    assert tokenizer.unk_id not in tokenizer.encode_flat(TEXTS).ids


@pytest.mark.parametrize("kind", ["wordpiece", "characters"])
def test_size_and_frequency_bound_the_vocabulary(kind):
    texts = ["aaa bb c 店店 好"]
    frequent = Tokenizer.train(texts, VocabularyConfig(kind=kind, size=100, min_frequency=2), show_progress=False)
    assert {"a", "b", "店"} <= set(frequent.tokens(frequent.ordinary_ids))
    assert not {"c", "好"} & set(frequent.tokens(frequent.ordinary_ids))
    small = Tokenizer.train(texts, VocabularyConfig(kind=kind, size=7, min_frequency=1), show_progress=False)
    assert small.vocab_size == 7 and small.tokens([5]) == ["a"]


def test_characters_are_ordered_by_frequency_then_code_point():
    tokenizer = Tokenizer.train(["bBa 店A，b\ud800"], VocabularyConfig(kind="characters", min_frequency=1), show_progress=False)
    assert tokenizer.tokens(range(5, tokenizer.vocab_size)) == ["b", "a", "店", "，"]


def test_training_shows_progress_only_when_asked(capsys):
    Tokenizer.train(TEXTS, VocabularyConfig(size=50), show_progress=False)
    assert capsys.readouterr() == ("", "")
    Tokenizer.train(TEXTS, VocabularyConfig(size=50, kind="characters"))
    assert "vocabulary" in capsys.readouterr().err


def write_json(content: object, file: Path) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def broken_files(directory: Path, tokenizer: Tokenizer) -> dict[str, Path]:
    tokenizer.save(directory)
    write_json({"tokenizer_class": "PreTrainedTokenizerFast"}, directory / "tokenizer_config.json")
    content = json.loads((directory / "tokenizer.json").read_text())
    names = ("empty.txt", "no_mask.txt", "latin.txt", "cut.json", "list.json", "odd.json", "bpe.json", "x.json")
    files = {name: directory / name for name in names}
    files["empty.txt"].touch()
    files["no_mask.txt"].write_text("\n".join([*SPECIAL_TOKENS[:4], "a"]))
    files["latin.txt"].write_bytes("[PAD]\né".encode("latin-1"))
    files["cut.json"].write_text((directory / "tokenizer.json").read_text()[:500])
    write_json([1], files["list.json"])
    write_json({"model": 3}, files["odd.json"])
    merging = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    write_json(content | {"model": merging}, files["bpe.json"])
    write_json(content | {"normalizer": None}, files["x.json"])
    return files | {"nothing": directory / "absent.txt"}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("empty.txt", "[PAD], [UNK], [CLS], [SEP], [MASK]"), ("no_mask.txt", "special token [MASK]"), ("latin.txt", "UTF-8"),
        ("cut.json", "JSON"), ("list.json", "object"), ("odd.json", "Hugging Face"), ("bpe.json", "BPE"), ("x.json", "normalizer"),
        ("nothing", "does not exist"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_vocabulary_is_named(name, part, tmp_path, tokenizer):
    file = broken_files(tmp_path, tokenizer)[name]
    with pytest.raises(InputError) as error:
        Tokenizer.load(file)
    assert str(file) in str(error.value) and part in str(error.value) and "\n" not in str(error.value)


def test_an_empty_directory_and_an_empty_corpus_are_errors(tmp_path):
    with pytest.raises(InputError, match="contains neither"):
        Tokenizer.load(tmp_path)
    with pytest.raises(InputError, match="min_frequency"):
        Tokenizer.train(["ab", "\0 \n"], VocabularyConfig(), show_progress=False)
