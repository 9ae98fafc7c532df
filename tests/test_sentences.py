import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.modalities.text.sentences import WORD_MARK, split_sentences

CASES = {
    "他说：“你好。”然后走了。真的吗？！当然……算了。": ["他说：“你好。”", "然后走了。", "真的吗？！", "当然……", "算了。"],
    "“好！”，他说。（完。）下一句": ["“好！”，他说。", "（完。）", "下一句"],
    '"好。"他走了。"再见。"': ['"好。"', "他走了。", '"再见。"'],
    "房间很干净!下次再来.服务好...不错~ OK!好": ["房间很干净!", "下次再来.", "服务好...", "不错~ OK!", "好"],
    "第3.5节，价格1,000.5元。": ["第3.5节，价格1,000.5元。"],
    "Mr. Smith went to the U.S. army base. He said \"Hi.\" Then left... And (really!) e.g. this costs 3.14 dollars.": [
        "Mr. Smith went to the U.S. army base.", 'He said "Hi."', "Then left...", "And (really!) e.g. this costs 3.14 dollars.",
    ],
    "J. K. Rowling wrote it in 1999. The war ended at 5 p.m. He slept.": [
        "J. K. Rowling wrote it in 1999.", "The war ended at 5 p.m.", "He slept.",
    ],
    "1. The first. 2. The second.": ["1. The first.", "2. The second."],
    "“Is it?” said A. B. Jones. (He left.) [So.] End": ["“Is it?” said A. B. Jones.", "(He left.)", "[So.]", "End"],
    "No. 5 is alive. No. I am not. Fig. 2 shows it": ["No. 5 is alive.", "No.", "I am not.", "Fig. 2 shows it"],
    "yahoo! i like it? yes": ["yahoo!", "i like it?", "yes"],
    "see www.example.com. Bar": ["see www.example.com.", "Bar"],
    "酒店不错。The staff was nice. 早餐好": ["酒店不错。", "The staff was nice.", "早餐好"],
    "第一\n第二\r\n third": ["第一", "第二", "third"],
    "  \u3000 a \u200b": ["a"],
    "": [],
    " \n \u200b": [],
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentences"), CASES.items())
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("早餐不错,房间大，服务好;1,000元。", ["早餐不错,", "房间大，", "服务好;1,000元。"]),
        ("Nice room, but noisy; 5,000 steps.", ["Nice room,", "but noisy;", "5,000 steps."]),
        ("“好，”他说", ["“好，”", "他说"]),
    ],
)
def test_clauses(text, clauses):
    assert split_sentences(text, "clauses") == clauses


@pytest.mark.parametrize("text", [text for text in CASES if "。" in text])
def test_marks_between_words_change_nothing(text):
    marked = WORD_MARK.join(text)
    assert [sentence.replace(WORD_MARK, "") for sentence in split_sentences(marked)] == split_sentences(text)


PARTS = st.sampled_from([*"。！？…，；.,;!?\"'”’)） \n\t\u200b\u3000店好aB1", "Mr", "e.g", "1. ", "...", '."'])


@settings(deadline=None)
@given(st.lists(PARTS | st.characters(), max_size=30).map("".join), st.sampled_from(["sentences", "clauses", "all_scripts"]))
def test_nothing_but_white_space_is_lost(text, ends):
    sentences = split_sentences(text, ends)
    visible = [c for c in text if not c.isspace() and c not in "\u200b\ufeff"]
    assert [c for sentence in sentences for c in sentence if not c.isspace() and c not in "\u200b\ufeff"] == visible
    assert all(sentence.strip() == sentence != "" for sentence in sentences)


@pytest.mark.parametrize("part", [".", '."', ". ", "a.", "a. ", '"', '。"x', ".\u200b", "1. ", "(. ", "J. B", "，", "…", "x"])
def test_takes_linear_time(part):
    text = part * (300_000 // len(part))
    started = time.process_time()
    split_sentences(text)
    split_sentences(text, "clauses")
    assert time.process_time() - started < 5


@pytest.mark.parametrize("sentences", [
    ["यह घर है।", "वह बड़ा है॥", "क्यों?", "हाँ।"],
    ["هل هذا صحيح؟", "نعم."],
    ["یہ گھر ہے۔", "وہ بڑا ہے۔"],
    ["ဒါအိမ်ပါ။", "ကြီးတယ်။"],
    ["នេះជាផ្ទះ។", "វាធំ៕"],
    ["ይህ ቤት ነው።", "ትልቅ ነው።"],
    ["Սա տուն է։", "Այն մեծ է։"],
])  # fmt: skip
def test_full_stops_of_other_scripts(sentences):
    text = " ".join(sentences)
    assert split_sentences(text, "all_scripts") == sentences
    assert len(split_sentences(text)) < len(sentences)
