"""Vocabularies of whole words and of bytes: what a token is, where it is in the text, and how kinds are compared."""

import dataclasses
import importlib.metadata
import json
import logging
import math
import re
import time
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from conftest import _ENCODER, _TEXT, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

import bert_jax
from bert_jax.cli import main
from bert_jax.config import VocabularyConfig
from bert_jax.convert.exports import export_model
from bert_jax.errors import InputError
from bert_jax.modalities.text.chinese import spaced
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from bert_jax.modalities.text.words import encode_words
from bert_jax.model.directory import ModelDescription
from bert_jax.model.dropout import row_keys
from bert_jax.tasks.tagging.words import Words, split_words, tokenize_words

KINDS = ("wordpiece", "characters", "words", "bytes")
ENGLISH = ["The cat sat on the mat; the dog didn't.", "A naïve café, a cat and 2 dogs!", "the mat, the mat"]
CHINESE = ["我喜欢北京的酒店，服务很好。", "酒店的服务员喜欢北京。", "The hotel：酒店"]
ODD = "Hi👩‍👧é e\u0301我喜欢 北京\u3000x\t🇨🇳[MASK]𠀀豈한글!"


@cache
def trained(kind: str, *texts: str, **config: Any) -> Tokenizer:
    return Tokenizer.train(texts, VocabularyConfig(kind=kind, min_frequency=1, **config), show_progress=False)


def shown(tokenizer: Tokenizer, text: str) -> list[tuple[str, str]]:
    encoding = tokenizer.encode(text)
    return [(token, text[a:b]) for token, (a, b) in zip(tokenizer.tokens(encoding.ids), encoding.offsets.tolist(), strict=True)]


# Bytes.

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("aé店 \n\u200b\0\u0301👩\u200d🇨。,<x>"), max_size=30)


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_bytes_are_those_of_utf8(text):
    tokenizer = trained("bytes")
    encoding = tokenizer.encode(text)
    assert (encoding.ids - 5).tolist() == list(text.encode())
    assert tokenizer.decode(encoding.ids) == text
    places = [(i, i + 1) for i, character in enumerate(text) for _ in character.encode()]
    assert encoding.offsets.tolist() == [list(place) for place in places]
    # No character is divided between words.
    assert all(encoding.word_starts[i] <= (text[a : a + 1].encode()[0] == encoding.ids[i] - 5) for i, (a, _) in enumerate(places))


def test_a_byte_has_a_readable_name():
    tokenizer = trained("bytes")
    assert tokenizer.vocab_size == 261 and tokenizer.special_ids == (0, 1, 2, 3, 4)
    assert tokenizer.tokens(tokenizer.encode("a< é").ids) == ["a", "<", "<0x20>", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("<0x41>").ids) == "<0x41>"
    assert shown(tokenizer, "[MASK]é") == [("[MASK]", "[MASK]"), ("<0xC3>", "é"), ("<0xA9>", "é")]


def test_bytes_change_the_text_only_if_asked():
    texts = "ÉA\u200b"
    assert trained("bytes").decode(trained("bytes").encode(texts).ids) == texts
    uncased = trained("bytes", casing="uncased")
    assert uncased.lowercase and uncased.decode(uncased.encode(texts).ids) == "éa\u200b"
    bare = trained("bytes", casing="uncased", strip_accents="true")
    assert bare.decode(bare.encode(texts).ids) == "ea\u200b"
    assert len({one.fingerprint for one in (trained("bytes"), uncased, bare)}) == 3


def test_words_of_bytes_are_those_of_characters():
    text = "Hi, naïve café我喜欢北京的 酒店。x [ok] 한글"
    [of_bytes], [of_characters] = ([encode_words(trained(kind, text), [text], "jieba")] for kind in ("bytes", "characters"))
    by_character = dict(zip((i for i, c in enumerate(text) if not c.isspace()), of_characters.word_starts.tolist(), strict=True))
    offsets = trained("bytes").encode(text).offsets[:, 0].tolist()
    for place, (index, start) in enumerate(zip(offsets, of_bytes.word_starts.tolist(), strict=True)):
        assert start == (by_character.get(index, False) and offsets.index(index) == place), text[index]


def test_word_marks_of_a_corpus_are_no_bytes():
    tokenizer = trained("bytes")
    flat = encode_words(tokenizer, ["喜\u200b欢", "", "\u200ba"], "marked")
    assert tokenizer.decode(flat.ids) == "喜欢a" and flat.lengths.tolist() == [6, 0, 1]
    assert flat.word_starts.tolist() == [True, False, False, True, False, False, False]


@pytest.mark.parametrize("text", [" " * 300_000, "x" * 300_000, " x" * 150_000, "店" * 100_000, "́" * 150_000])
def test_long_text_takes_linear_time(text):
    started = time.process_time()
    assert len(trained("bytes").encode(text).ids) == len(text.encode())
    assert time.process_time() - started < 10


# Words.


@cache
def jieba() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.ERROR)
    theirs = jieba.Tokenizer()
    theirs.FREQ, theirs.total = theirs.gen_pfdict(theirs.get_dict_file())
    theirs.initialized = True
    return theirs


def words_of(text: str) -> list[str]:
    """The words of a simple text: letters and digits together, Chinese as jieba itself cuts it, and each mark alone."""
    return [
        word
        for run in re.findall(r"[一-鿿]+|[^\W一-鿿]+|[^\w\s]", text.lower())
        for word in (jieba().cut(run, HMM=False) if "一" <= run[0] <= "鿿" else [run])
    ]


def test_words_are_the_most_frequent_ones():
    texts = [*ENGLISH, *CHINESE]
    counted = Counter(word for text in texts for word in words_of(text.replace("ï", "i").replace("é", "e")))
    ordered = sorted(counted, key=lambda word: (-counted[word], word))
    tokenizer = trained("words", *texts)
    assert tokenizer.tokens(range(tokenizer.vocab_size)) == [*SPECIAL_TOKENS, *ordered]
    assert trained("words", *texts, size=15).tokens(range(15)) == [*SPECIAL_TOKENS, *ordered[:10]]
    assert trained("words", *texts[::-1]).fingerprint == tokenizer.fingerprint
    frequent = Tokenizer.train(texts, VocabularyConfig(kind="words", min_frequency=3), show_progress=False)
    assert frequent.tokens(frequent.ordinary_ids) == [word for word in ordered if counted[word] >= 3]


def test_words_know_their_places():
    tokenizer = trained("words", *ENGLISH, *CHINESE)
    assert tokenizer.segmenter == "jieba" and tokenizer.max_word_length is None
    assert shown(tokenizer, "我喜欢xyz北京酒店[MASK]。 𠀀The CAFE\u0301!") == [
        ("我", "我"), ("喜欢", "喜欢"), ("[UNK]", "xyz"), ("北京", "北京"), ("酒店", "酒店"), ("[MASK]", "[MASK]"), ("。", "。"),
        ("[UNK]", "𠀀"), ("the", "The"), ("cafe", "CAFE"), ("!", "!"),
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("我喜欢北京 the cat").ids) == "我喜欢北京the cat"
    assert [[word.text for word in words] for words in tokenizer.unknown_words([ODD, "the"])][1] == []
    [flat] = [encode_words(tokenizer, ["我喜欢北京", "猫咪 the"], "jieba")]
    assert flat.word_starts.all() and flat.lengths.tolist() == [3, 2] and flat.unknown.tolist() == [[0, 0], [0, 2]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["我", "喜欢", "x", " ", "𠀀", "\u200b", "。", "\ud800"])).map("".join), max_size=4))
def test_added_spaces_change_nothing_else(texts):
    found = spaced(texts, "jieba")
    for text, new, origins in zip(texts, found.texts, found.origins, strict=True):
        assert new.replace(" ", "") == text.replace(" ", "") and len(origins) == len(new)
        assert all(character == text[origin] for character, origin in zip(new, origins.tolist(), strict=True) if character != " ")


def test_english_words_need_no_segmenter():
    tokenizer = trained("words", *ENGLISH, "酒 店")
    assert tokenizer.segmenter is None
    assert [token for token, _ in shown(tokenizer, "the 酒店 cat")] == ["the", "酒", "店", "cat"]


def test_marked_text_gives_its_words():
    texts = ["我\u200b喜欢北京\u200b。"] * 2
    tokenizer = Tokenizer.train(texts, VocabularyConfig(kind="words"), show_progress=False, segmenter="marked")
    assert {*tokenizer.tokens(tokenizer.ordinary_ids)} == {"我", "喜欢北京", "。"}
    assert [token for token, _ in shown(tokenizer, "我\u200b喜欢北京")] == ["我", "喜欢北京"]


def test_unknown_words_are_reported(capsys):
    Tokenizer.train([*ENGLISH, "the " * 10], VocabularyConfig(kind="words", min_frequency=2))
    told = capsys.readouterr().err
    assert "characters" in told and "in words that are not in the vocabulary, such as 'naive'" in told and "kind=wordpiece" in told
    with pytest.raises(InputError, match="no word that occurs 2 times"):
        Tokenizer.train(["a b"], VocabularyConfig(kind="words"), show_progress=False)


# Files.


@pytest.mark.parametrize("kind", ["words", "bytes"])
@pytest.mark.parametrize("texts", [ENGLISH, CHINESE])
def test_saved_and_loaded_is_equal(kind, texts, tmp_path):
    tokenizer = trained(kind, *texts)
    tokenizer.save(tmp_path)
    again = Text().load(tmp_path)
    assert (again.fingerprint, again.kind, again.segmenter) == (tokenizer.fingerprint, kind, tokenizer.segmenter)
    assert shown(again, ODD) == shown(tokenizer, ODD)
    alone = Tokenizer.load(tmp_path / "vocab.txt")
    assert alone.encode(ODD).ids.tolist() == tokenizer.encode(ODD).ids.tolist()
    assert (alone.fingerprint == tokenizer.fingerprint) == (kind == "bytes")
    lower = again.behind_lower_case()
    assert lower.encode("THE").ids.tolist() == again.encode("the").ids.tolist() and lower.segmenter == tokenizer.segmenter


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_hugging_face_reads_what_is_saved(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = trained(kind, *ENGLISH)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*ENGLISH, *CHINESE, ODD, " the  cat "]:
        assert theirs(text)["input_ids"] == [tokenizer.cls_id, *tokenizer.encode(text).ids, tokenizer.sep_id], text
        if kind == "bytes":
            assert theirs.decode(theirs(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize(("required", "told"), [("jieba==0.1", r"jieba==0\.1.*pip install jieba==0\.1"), ("pkuseg==1", "pkuseg")])
def test_another_segmenter_is_refused(required, told, tmp_path):
    trained("words", *CHINESE).save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    values = json.loads(file.read_text())
    assert values["chinese_word_segmenter"] == f"jieba=={importlib.metadata.version('jieba')}"
    file.write_text(json.dumps(values | {"chinese_word_segmenter": required}))
    with pytest.raises(InputError, match=told):
        Tokenizer.load(tmp_path)


def test_bytes_that_split_text_otherwise_are_refused(tmp_path):
    trained("bytes").save(tmp_path)
    file = tmp_path / "tokenizer.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"pre_tokenizer": {"type": "BertPreTokenizer"}}))
    with pytest.raises(InputError, match="BPE"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_the_command_writes_a_vocabulary(kind, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\n".join(ENGLISH * 2), encoding="utf-8")
    assert main(["train-vocab", str(tmp_path / "text.txt"), str(tmp_path / "out"), "--kind", kind]) == 0
    assert Tokenizer.load(tmp_path / "out").kind == kind
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "text.txt"), "--vocab", str(tmp_path / "out"), "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    counted = [len(text.encode()) if kind == "bytes" else len(words_of(text)) for text in ENGLISH]
    assert seen["unknown_tokens"] == 0 and seen["tokens"] == 2 * sum(counted)


# Models.


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, description = tmp_path_factory.mktemp("models"), ModelDescription("pretraining", _ENCODER, 32, "nsp")
    return {kind: write_model(folder / kind, description, kind=kind) for kind in ("words", "bytes")}


def test_models_answer_about_words_and_bytes(models):
    words, octets = (bert_jax.load(models[kind]) for kind in ("words", "bytes"))
    [mask] = words.fill_mask("这家酒店的[MASK]很好", words=["服务", "cat"])
    assert {prediction.token for prediction in mask} == {"服务", "cat"}
    assert [(one.token, one.start, one.end) for one in words.score("酒店很好 the cat", tokens=True)] == [
        ("酒店", 0, 2), ("很", 2, 3), ("好", 3, 4), ("the", 5, 8), ("cat", 9, 12),
    ]  # fmt: skip
    scored = octets.score("é 店", tokens=True)
    assert [one.token for one in scored] == ["<0xC3>", "<0xA9>", "<0x20>", "<0xE5>", "<0xBA>", "<0x97>"]
    assert [(one.start, one.end) for one in scored] == [(0, 1), (0, 1), (1, 2), (2, 3), (2, 3), (2, 3)]
    assert octets.score("é 店") == pytest.approx(sum(one.log_probability for one in scored), rel=1e-5)
    assert len(octets.fill_mask("a[MASK][MASK][MASK]")) == 3
    with pytest.raises(InputError, match="not a single token of the vocabulary but the pieces <0xE5> <0xBA> <0x97>"):
        octets.fill_mask("a[MASK]", words=["店"])
    masked = Text().with_mask(octets.tokenizer, "好店好")
    assert masked == "好[MASK][MASK][MASK]好"


def test_exports_what_transformers_can_read(models, tmp_path):
    with pytest.raises(InputError, match=r"segmenter jieba.*vocabulary\.kind=wordpiece"):
        export_model(models["words"], tmp_path / "words")
    assert not (tmp_path / "words").exists()
    export_model(models["bytes"], tmp_path / "bytes")
    assert bert_jax.load(tmp_path / "bytes").score(_TEXT[1:]) == bert_jax.load(models["bytes"]).score(_TEXT[1:])


def test_words_to_tag_have_no_spaces():
    tokenizer, text = trained("bytes"), " Ana  met 喜欢, ok "
    found = split_words([text, "x"], tokenizer)
    assert [text[a:b] for a, b in found.spans[:-1].tolist()] == ["Ana", "met", "喜", "欢", ",", "ok"]
    assert tokenizer.tokens(found.ids[found.first]) == ["A", "m", "<0xE5>", "<0xE6>", ",", "o", "x"]
    given = Words(("Ana", "met", "喜欢", "Bo"))
    for kind in KINDS:
        reader = trained(kind, *ENGLISH, *CHINESE)
        assert tokenize_words([given], reader).ids.tolist() == reader.encode(str(given)).ids.tolist()


# Bits per character.


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_stand_for_the_characters_of_the_text(kind):
    texts = [*ENGLISH, *CHINESE]
    tokenizer = trained(kind, *texts)
    assert tokenizer.token_characters[[*tokenizer.special_ids]].tolist() == [0] * 5
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert tokenizer.unk_id not in ids
        assert tokenizer.token_characters[ids].sum() == len("".join(text.split()))


def test_bits_per_character_are_those_of_a_hand_computation():
    rng = np.random.default_rng(1)
    characters = rng.integers(0, 4, tiny.VOCABULARY)
    plain = tiny.task()
    task = dataclasses.replace(plain, token_characters=tuple(characters.tolist()))
    params, batch = tiny.initial_parameters(), jax.jit(task.prepare)(tiny.batch(), jax.random.key(0))
    scores = np.asarray(task.model.apply({"params": params}, batch).masked_tokens, np.float64)
    bits = covered = 0.0
    for row, column in zip(*np.nonzero(np.asarray(batch["masked_weights"])), strict=True):
        label = int(batch["masked_labels"][row, column])
        probabilities = np.exp(scores[row, column] - scores[row, column].max())
        bits -= math.log2(probabilities[label] / probabilities.sum())
        covered += characters[label]
    found = jax.device_get(jax.jit(task.metrics)(params, batch, None))
    mean = found.pop("mlm_bits_per_character")
    assert mean.total == pytest.approx(bits, rel=1e-5) and mean.count == covered > 0
    # Nothing else is different, in training nothing at all.
    assert jax.tree.map(float, found) == jax.tree.map(float, jax.device_get(jax.jit(plain.metrics)(params, batch, None)))
    keys = row_keys(jax.random.key(0), len(batch["tokens"]))
    programs = [jax.jit(one.metrics).lower(params, batch, keys).as_text() for one in (plain, task)]
    assert programs[0] == programs[1]
