"""Scripts whose marks carry meaning, and those without spaces: what a vocabulary keeps, what it loses, and what it says of that."""

import json
from pathlib import Path
from typing import Any

import pytest

from bert_jax.cli import main
from bert_jax.config import CorpusConfig, VocabularyConfig
from bert_jax.errors import InputError
from bert_jax.modalities.text import vocabulary
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import SPECIAL_TOKENS, Tokenizer

MEANING = {
    "Japanese": ("パンダはガラスをわる。バスでかえる。", "パンダ", "ハンタ"),
    "Thai": ("ไม่ ใช่ ที่ นี่ ไม่ มี", "ไม่", "ไม"),
    "Hindi": ("यह हिन्दी में है। मैं हूँ", "में", "म"),
    "Korean": ("한국어를 배운다. 한국 사람", "한국", "ᄒ ᅡ ᆫ ᄀ ᅮ ᆨ"),
    "Arabic": ("مُحَمَّد كِتَاب قَلَم", "كِتَاب", "كتاب"),
    "Russian": ("мой дом, твой йод, ёлка", "мой", "мои"),
    "Greek": ("καλημέρα ελληνικά μητέρα", "καλημέρα", "καλημερα"),
    "Hebrew": ("שָׁלוֹם עֲלֵיכֶם", "שָׁלוֹם", "שלום"),
    "decomposed Russian": ("мои\u0306 дом, твои\u0306", "мои\u0306", "мои"),
}
NO_MEANING = {
    "French": "Le café est déjà fermé, voilà l'élève. " * 3,
    "decomposed French": "Le cafe\u0301 est de\u0301ja\u0300 ferme\u0301. " * 3,
    "Vietnamese": "tiếng Việt là ngôn ngữ. " * 3,
    "Chinese": "这家酒店的服务很好。" * 3,
    "emoji": "好 ❤️ 很好 ☀️ " * 3,
    "English with a little Greek": "The word of the day is good, and it is used everywhere by everybody. " * 30 + "καλημέρα",
}
RUN = "ที่นี่ไม่มีปลาในนาข้าวของเรา"
LONG = RUN * 5  # 140 characters without a space
KINDS = pytest.mark.parametrize("kind", ["wordpiece", "characters"])


def train(text: str | list[str], **values: Any) -> Tokenizer:
    texts = [text] if isinstance(text, str) else text
    return Tokenizer.train(texts, VocabularyConfig(**({"size": 300, "min_frequency": 1} | values)), show_progress=False)


def words(tokenizer: Tokenizer, text: str) -> str:
    return "".join(token.removeprefix("##") for token in tokenizer.tokens(tokenizer.encode(text).ids))


def same_elsewhere(tokenizer: Tokenizer, directory: Path, texts: list[str]) -> None:
    """Saved, it gives the same ids here and to transformers."""
    transformers = pytest.importorskip("transformers")
    tokenizer.save(directory)
    again, theirs = Tokenizer.load(directory), transformers.AutoTokenizer.from_pretrained(directory)
    assert again.fingerprint == tokenizer.fingerprint
    flat = tokenizer.encode_flat(texts)
    ends = flat.lengths.cumsum()
    for text, end, length in zip(texts, ends, flat.lengths, strict=True):
        ids = tokenizer.encode(text).ids.tolist()
        assert ids == again.encode(text).ids.tolist() == theirs(text, add_special_tokens=False)["input_ids"]
        assert flat.ids[end - length : end].tolist() == ids


@KINDS
@pytest.mark.parametrize("script", MEANING)
def test_marks_that_carry_meaning_are_kept(script: str, kind: Any, tmp_path: Path) -> None:
    text, word, merged = MEANING[script]
    tokenizer = train(text, kind=kind)
    assert words(tokenizer, word) == word and tokenizer.unk_id not in tokenizer.encode(text).ids
    assert words(train(text, kind=kind, strip_accents="true"), word) == merged.replace(" ", "")
    same_elsewhere(tokenizer, tmp_path, [word, text, "X" + word])


@KINDS
@pytest.mark.parametrize("script", NO_MEANING)
def test_other_accents_are_stripped_as_ever(script: str, kind: Any) -> None:
    automatic, stripped = (train(NO_MEANING[script], kind=kind, strip_accents=choice) for choice in ("auto", "true"))
    assert automatic.tokens(range(automatic.vocab_size)) == stripped.tokens(range(stripped.vocab_size))
    assert automatic.encode(NO_MEANING[script]).ids.tolist() == stripped.encode(NO_MEANING[script]).ids.tolist()


@pytest.mark.parametrize(("marked", "kept"), [(1, False), (2, True)])
def test_the_limit_is_a_thousandth_of_all_characters(marked: int, kept: bool) -> None:
    tokenizer = train(["x" * 99 + " "] * 15 + ["й" * marked + "и" * (15 - marked)])
    assert 0.001 * (15 * 99 + 15) == 1.5
    assert words(tokenizer, "й") == ("й" if kept else "и")


@pytest.mark.parametrize(("casing", "strip", "read"), [
    ("uncased", "auto", "cafe й"), ("uncased", "false", "café й"), ("uncased", "true", "cafe и"),
    ("cased", "auto", "Café Й"), ("cased", "false", "Café Й"), ("cased", "true", "Cafe И"),
])  # fmt: skip
def test_accents_are_chosen_apart_from_casing(casing: Any, strip: Any, read: str, tmp_path: Path) -> None:
    latin = train("Café café cafe Cafe И и" + " plain text" * 300 + " Й й", casing=casing, strip_accents=strip)
    wanted = read.replace("й", "и") if strip == "auto" and casing == "uncased" else read
    assert words(latin, "Café Й") == wanted.replace(" ", "")
    same_elsewhere(latin, tmp_path, ["Café Й"])


def test_a_vocabulary_that_exists_is_read_as_its_files_or_the_configuration_say(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "cafe", "café"]), encoding="utf-8")
    for strip, word in ((None, "cafe"), (True, "cafe"), (False, "café")):
        tokenizer = Tokenizer.load(tmp_path / "vocab.txt", lowercase=True, strip_accents=strip)
        assert words(tokenizer, "Café") == word
        tokenizer.save(tmp_path / str(strip))
        assert words(Tokenizer.load(tmp_path / str(strip)), "Café") == word
        assert words(Tokenizer.load(tmp_path / str(strip), strip_accents=False), "Café") == "café"


def test_the_user_hears_what_was_kept_and_why(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "text.txt").write_text("\n".join(text for text, _, _ in list(MEANING.values())[:4]), encoding="utf-8")
    assert main(["train-vocab", str(tmp_path / "text.txt"), str(tmp_path / "kept"), "--min-frequency", "1"]) == 0
    told = capsys.readouterr().err
    assert "Kept accents: stripping would turn " in told and "ไม่ into ไม" in told and "strip_accents=true" in told
    assert main(["train-vocab", str(tmp_path / "text.txt"), str(tmp_path / "x"), "--min-frequency", "1", "--strip-accents", "true"]) == 0
    assert "accents" not in capsys.readouterr().err
    assert words(Tokenizer.load(tmp_path / "x"), "ไม่") == "ไม"


@pytest.mark.parametrize(("text", "arguments", "beware"), [
    ("ガラス バス ガラス ハ\u3099ス カ\u3099ラス", (), True),
    ("ガラス バス", (), False),
    ("カ\u3099ラス ハ\u3099ス", (), False),
    ("café cafe\u0301", (), False),
    ("café cafe\u0301", ("--casing", "cased"), True),
    ("café cafe\u0301", ("--strip-accents", "false"), True),
    ("مُحَمَّد مُحَمَّد", (), False),
])  # fmt: skip
@KINDS
def test_words_that_are_there_in_two_forms_are_reported(
    text: str, arguments: tuple[str, ...], beware: bool, kind: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    assert main(["train-vocab", str(tmp_path / "text.txt"), str(tmp_path / "out"), "--min-frequency", "1", "--kind", kind, *arguments]) == 0
    assert ("composed and decomposed" in capsys.readouterr().err) == beware


def test_words_up_to_the_limit_are_read_and_longer_ones_unknown(tmp_path: Path) -> None:
    texts = [LONG, LONG[:100], LONG[:101], LONG + "a", f"a {LONG} b", RUN]
    usual, long = train([LONG, RUN + RUN]), train([LONG, RUN], max_word_length=140)
    for tokenizer, read in ((usual, [False, True, False, False, False, True]), (long, [True, True, True, False, True, True])):
        assert [tokenizer.unk_id not in tokenizer.encode(text).ids for text in [*texts[:4], f"{LONG} {RUN}", RUN]] == read
    same_elsewhere(long, tmp_path / "long", texts)
    same_elsewhere(usual, tmp_path / "usual", texts)
    assert long.fingerprint != usual.fingerprint
    assert train([LONG, RUN], max_word_length=141).fingerprint != long.fingerprint
    assert Tokenizer.load(tmp_path / "usual", max_word_length=140).encode(LONG).ids.tolist() != [usual.unk_id]


def test_the_usual_limit_is_not_in_the_fingerprint() -> None:
    """Models and records of before have one without it."""
    assert train("aa ab ba").fingerprint == "a0778aade9da39eaeb19a2cacdeb355ca2b71e6c5db9e37c1701cb9271ac1201"


@pytest.mark.parametrize("limit", [10, 100, 1000])
@pytest.mark.parametrize("name", ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", None])
@pytest.mark.parametrize("with_config", [False, True])
def test_the_limit_of_a_foreign_tokenizer_is_that_of_transformers(limit: int, name: str | None, with_config: bool, tmp_path: Path) -> None:
    """Its BertTokenizer reads the tokens of a tokenizer.json and has the published limit all the same."""
    transformers = pytest.importorskip("transformers")
    train("aa ab ba").save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["max_input_chars_per_word"] = limit
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings = {key: value for key, value in settings.items() if key != "tokenizer_class"} | ({"tokenizer_class": name} if name else {})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    if with_config:
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tmp_path)
    for text in ("a" * 9, "a" * 99, "a" * 101, "a" * 999, "a" * 1001):
        assert ours.encode(text).ids.tolist() == theirs(text, add_special_tokens=False)["input_ids"], len(text)


def test_what_cannot_be_learned_for_its_length_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"longer than vocabulary.max_word_length=100 characters, such as .*\(140 characters\)") as error:
        train([LONG] * 3)
    assert "that occurs" not in str(error.value) and "kind=characters" in str(error.value) and "\n" not in str(error.value)
    assert train([LONG] * 3, max_word_length=200).unk_id not in train([LONG] * 3, max_word_length=200).encode(LONG).ids
    assert train([LONG] * 3, kind="characters").vocab_size > 5
    with pytest.raises(InputError, match="no character that occurs 9 times"):
        train("ab", min_frequency=9)
    with pytest.raises(InputError, match=r"140 characters\), and in the others no character that occurs 9 times"):
        train([LONG, "ab"], min_frequency=9)


def test_training_a_vocabulary_warns_of_text_that_it_cannot_say(tmp_path: Path, capsys: Any) -> None:
    def told(text: str, *arguments: str) -> str:
        (tmp_path / "text.txt").write_text(text, encoding="utf-8")
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        assert main(["train-vocab", str(tmp_path / "text.txt"), str(out), *arguments]) == 0
        return capsys.readouterr().err

    mixed = "some words\n" * 10 + LONG
    warning = told(mixed)
    assert "140 of the corpus's 230 characters (60.9%)" in warning and "140 are in words longer than 100" in warning
    assert LONG[:10] in warning and "max_word_length" in warning and "min_frequency" not in warning
    assert "[UNK]" not in told(mixed, "--max-word-length", "140") and "[UNK]" not in told(mixed, "--kind", "characters")
    rare = told("some words\n" * 10 + "żółw\n")
    assert "4 are in words with a character that is not in the vocabulary, such as 'zołw'" in rare and "min_frequency" in rare
    assert "[UNK]" not in told("some words\n" * 100 + "żółw\n")


def counted(text: str, tokenizer: Tokenizer, directory: Path) -> dict[str, int]:
    directory.mkdir()
    (directory / "text.txt").write_text(text, encoding="utf-8")
    info = Text().prepare(CorpusConfig(source=str(directory / "text.txt"), segmenter="characters"), tokenizer, directory / "data").info
    names = ("unknown_tokens", "characters", "unknown_in_long_words", "unknown_in_other_words")
    return {name: info["train"][name] + info["valid"][name] for name in names}


@KINDS
def test_preparing_counts_characters_that_become_unknown_and_warns(kind: Any, tmp_path: Path, capsys: Any) -> None:
    tokenizer = train(["some words here, 酒店", RUN], kind=kind)
    text = f"some words here.\n\nhere {LONG}, {LONG}!\n\n酒店龘 wo☃rds,☃ {RUN}\n\nsome words\n"
    found = counted(text, tokenizer, tmp_path / "a")
    # Full stop and exclamation mark, the rare Chinese character, and words with a snowman or that alone.
    other = {"wordpiece": [".", "!", "龘", "wo☃rds", "☃"], "characters": [".", "!", "龘", "☃", "☃"]}[kind]
    long = 2 * len(LONG) if kind == "wordpiece" else 0
    assert found == {
        "unknown_tokens": len(other) + 2 * (kind == "wordpiece"),
        "characters": len("".join(text.split())),
        "unknown_in_long_words": long,
        "unknown_in_other_words": len("".join(other)),
    }
    told = capsys.readouterr().err
    assert "[UNK]" in told and "such as '.', '!', '龘'" in told
    assert ("longer than 100 characters, such as" in told) == (kind == "wordpiece")
    assert counted("some words here\n" * 30 + "\nsome words", tokenizer, tmp_path / "b")["unknown_tokens"] == 0
    assert "[UNK]" not in capsys.readouterr().err


@KINDS
def test_characters_of_unknown_words_are_counted_alike_one_by_one_and_together(kind: Any) -> None:
    tokenizer = train(["some words, 酒店", RUN + RUN], kind=kind)
    texts = ["", f"{LONG} 龘", "words", f"한국어 {LONG[:101]}{'龘'} 𠀀x", "[MASK]☃[UNK]", "café ☃", "\ud800", "wo☃☃ ☃"] * 2
    together = tokenizer.encode_flat(texts).unknown
    for text, counts, found in zip(texts, together.tolist(), tokenizer.unknown_words(texts), strict=True):
        sums = [sum(len(word.text) for word in found if word.too_long is long) for long in (True, False)]
        assert counts == sums == tokenizer.encode_flat([text]).unknown[0].tolist()
    assert together[1].tolist() == ([140, 1] if kind == "wordpiece" else [0, 1]) and together[2].tolist() == [0, 0]


def test_pages_without_a_space_are_learned_from(tmp_path: Path) -> None:
    """A chunk of thousands of characters was left out as a whole, whatever words its punctuation made of it."""
    page = ",".join([RUN] * 60)
    assert len(page) > 1000 and " " not in page
    assert RUN[:3] in words(train(page), RUN) and train(page).unk_id not in train(page).encode(page).ids


def test_text_that_fills_the_memory_is_thinned_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly a run of a script without spaces comes twice: without those that came once nothing would be left."""
    monkeypatch.setattr(vocabulary, "_BLOCK", 100)
    monkeypatch.setattr(vocabulary, "_MOST_CHARACTERS", 2000)
    runs = [RUN[i % 28 :] + RUN * (i % 3) + "กขค"[i % 3] * (i % 50) for i in range(300)]
    chunks = vocabulary._count_chunks(runs, 100, False)
    assert 1000 < sum(map(len, chunks)) <= 2000
    tokenizer = train(runs)
    assert tokenizer.unk_id not in tokenizer.encode(RUN + RUN).ids and len(tokenizer.encode(RUN).ids) < 5
