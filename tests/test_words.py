import importlib.util
import itertools
import logging
import random
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.config import VocabularyConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text import chinese
from bert_jax.modalities.text.chinese import chinese_word_starts, segment
from bert_jax.modalities.text.demo import documents
from bert_jax.modalities.text.segmentation import DictionarySegmenter
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.modalities.text.words import correct_word_starts, encode_words

SEGMENTERS = ["jieba", "characters", "marked"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["酒店的服务很好，喜欢 hotels"] * 2, VocabularyConfig(), show_progress=False)


@pytest.fixture(scope="module")
def jieba():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has invalid escapes and asks for pkg_resources
        import jieba
    jieba.setLogLevel(logging.ERROR)
    theirs = jieba.Tokenizer()
    # Not initialize(), which writes a cache to the shared temporary folder.
    theirs.FREQ, theirs.total = theirs.gen_pfdict(theirs.get_dict_file())
    theirs.initialized = True
    return theirs


def test_segmenters():
    assert segment("我喜欢北京的Hotel，很好。", "jieba") == ["我", "喜欢", "北京", "的", "Hotel，", "很", "好", "。"]
    assert segment("我\u200b喜欢\u200b北京\u200b的\u200bHotel\u200b，", "marked") == ["我", "喜欢", "北京", "的", "Hotel，"]
    assert segment("喜欢x", "characters") == ["喜", "欢", "x"]
    assert segment("", "jieba") == []


def test_text_without_marks_is_not_one_word():
    assert segment("我喜欢你。", "marked") == ["我", "喜", "欢", "你", "。"]


def test_the_words_are_those_of_jieba(jieba):
    pages = [paragraph.replace("\u200b", "") for document in list(documents("newspaper"))[:40] for paragraph in document]
    reviews = [paragraph for document in list(documents("reviews"))[:300] for paragraph in document]
    draw = random.Random(0)
    characters = sorted(set("".join(reviews)))
    mixtures = ["".join(draw.choices(characters, k=draw.randint(1, 30))) for _ in range(300)]
    texts = ["".join(c for c in text if "\u4e00" <= c <= "\u9fa5") for text in (*pages, *reviews, *mixtures)]
    different = 0
    for text in texts:
        starts = np.cumsum([0, *map(len, jieba.cut(text, HMM=False))])[:-1]
        different += np.flatnonzero(chinese_word_starts(text, "jieba")).tolist() != starts.tolist()
    # Where a character is repeated, two cuts have the same probability.
    assert len(texts) > 600 and different <= 0.01 * len(texts)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text("店好人大", min_size=1, max_size=5), st.integers(1, 50), max_size=12), st.text("店好人大", max_size=9))
def test_the_cut_has_the_highest_probability(counts, text):
    total = sum(counts.values()) + 1

    def score(word: str) -> float:
        return np.log(counts.get(word, 1 if len(word) == 1 else 0) / total) if word in counts or len(word) == 1 else -np.inf

    best = [0.0] + [-np.inf] * len(text)
    for end in range(1, len(text) + 1):
        best[end] = max(best[start] + score(text[start:end]) for start in range(end))
    points = np.array([ord(c) for c in text], np.uint32)
    starts = DictionarySegmenter(counts, total).word_starts(points, np.arange(len(text)) == 0)
    edges = [*np.flatnonzero(starts).tolist(), len(text)]
    assert sum(score(text[a:b]) for a, b in itertools.pairwise(edges)) == pytest.approx(best[-1])


def test_words_do_not_reach_over_runs_or_texts(tokenizer):
    together = encode_words(tokenizer, ["喜欢", "喜", "欢", "喜。欢", "喜\u200b欢"], "jieba")
    assert together.word_starts.tolist() == [True, False, True, True, True, True, True, True, True]
    marked = encode_words(tokenizer, ["喜欢\u200b。", "喜\u200b欢", "喜欢", "好"], "marked")
    assert marked.word_starts.tolist() == [True, False, True, True, True, True, True, True]


def test_corrects_chinese_tokens_alone(tokenizer):
    text = "Hotels喜欢xyzzyx酒店"
    encoding = tokenizer.encode(text)
    starts = correct_word_starts(text, encoding, "jieba")
    expected = encoding.word_starts.copy()
    expected[[i for i, (first, _) in enumerate(encoding.offsets) if text[first] in "欢店"]] = False
    assert starts.tolist() == expected.tolist() != encoding.word_starts.tolist()


PIECES = st.sampled_from(["喜欢", "酒店", "中国人民", "𠀀", "豈", "[MASK]", "hotels", " ", "\u200b", "，", "\ud800", "龘"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=8).map("".join), max_size=5), st.sampled_from(SEGMENTERS))
def test_many_texts_at_once_are_the_same_as_one_by_one(tokenizer, texts, segmenter):
    flat = encode_words(tokenizer, texts, segmenter)
    singly = [correct_word_starts(text, tokenizer.encode(text), segmenter) for text in texts]
    assert flat.word_starts.tolist() == [start for starts in singly for start in starts]
    assert flat.ids.tolist() == [i for text in texts for i in tokenizer.encode(text).ids]


def test_the_tokenizer_does_not_see_marks(tokenizer):
    plain, marked = "喜欢酒店hotels，好", "喜欢\u200b酒店\u200bhotels\u200b，\u200b好"
    assert tokenizer.encode(plain).ids.tolist() == tokenizer.encode(marked).ids.tolist()


def test_text_without_chinese_loads_no_dictionary(tokenizer):
    script = (
        "from bert_jax.config import VocabularyConfig; from bert_jax.modalities.text import chinese, words\n"
        "from bert_jax.modalities.text.tokenizer import Tokenizer\n"
        "t = Tokenizer.train(['a b'] * 2, VocabularyConfig(), show_progress=False)\n"
        "words.encode_words(t, ['a b, c!'], 'jieba'), words.correct_word_starts('a b', t.encode('a b'), 'jieba')\n"
        "print(chinese._jieba.cache_info().currsize)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "0\n"


def test_a_missing_segmenter_says_what_to_do(monkeypatch):
    chinese._jieba.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install jieba.*corpus\.segmenter"):
        segment("喜欢", "jieba")


@pytest.mark.parametrize("text", ["一", "中国人民", "的我", "店 "])
def test_long_runs_take_linear_time(text):
    segment("喜欢", "jieba")
    started = time.process_time()
    starts = chinese_word_starts(text * (300_000 // len(text)), "jieba")
    assert time.process_time() - started < 10 and starts.any()
