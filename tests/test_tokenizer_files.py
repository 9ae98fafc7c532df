"""The files of a tokenizer in every combination, beside AutoTokenizer; and what is refused."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import normalizers, pre_tokenizers, processors

from bert_jax.errors import InputError
from bert_jax.modalities.text.tokenizer import SPECIAL_TOKENS, Tokenizer

WORDS = (
    "[unused1] [unused2] c ##a ##f ##é ##e cafe café Café na ##ï ##i ##ve À É Î à é î a e i 中 文 中文 ##文 the movie # [ ] un ##used ##1 "
    "##us ##ed , . _ mov ##ie , ne ##w y york x"
).split()
VOCABULARY = {token: i for i, token in enumerate(dict.fromkeys((*SPECIAL_TOKENS, *WORDS)))}
TEXTS = [
    "Café ÀÉÎ 中文 naïve",
    "café the movie",
    "[unused1] the movie",
    "a [unused1]e, [UNUSED1] x[NEW]y [new]",
    "The Movie, NEW YORK new york",
    "xmoviex 中movie文 a_movie movie",
    "中newmovie文 newmovie a,newmovie_",
    "[MASK] [mask] Á e\u0301 \x00a\u200db",
    "x" * 101 + " a",
]
NEW = len(VOCABULARY)


def write(directory: Path, settings: dict[str, Any] | None, **files: Any) -> None:
    """Writes a Hugging Face directory of tokenizer files; `vocab` writes a vocab.txt, `normalizer` a tokenizer.json with one."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "bert"} | files.pop("config", {})))
    if files.pop("vocab", False):
        (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    if (normalizer := files.pop("normalizer", None)) is not None:
        (directory / "tokenizer.json").write_text(tokenizer_json(normalizer, files.pop("added", ())), encoding="utf-8")
    if settings is not None:
        files["tokenizer_config"] = settings
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def tokenizer_json(normalizer: dict[str, Any], added: Any = ()) -> str:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(**normalizer)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", VOCABULARY["[SEP]"]), ("[CLS]", VOCABULARY["[CLS]"]))
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.add_tokens(list(added))
    return backend.to_str()


def assert_as_auto_tokenizer(directory: Path, texts: list[str] = TEXTS) -> Tokenizer:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    ours, theirs = Tokenizer.load(directory), transformers.AutoTokenizer.from_pretrained(directory)
    for text, encoding in zip(texts, ours.encode_batch(texts), strict=True):
        assert [ours.cls_id, *encoding.ids.tolist(), ours.sep_id] == theirs(text)["input_ids"], (text, ours.tokens(encoding.ids))
    assert ours.vocab_size == len(theirs)
    assert not {*theirs.all_special_ids} & {*ours.ordinary_ids.tolist()}
    return ours


CHOICES = {"do_lower_case": (True, False), "strip_accents": (None, True, False), "tokenize_chinese_chars": (True, False)}
THEIRS = ("lowercase", "strip_accents", "handle_chinese_chars")
NORMALIZERS = [dict(zip(THEIRS, values, strict=True)) for values in itertools.product(*CHOICES.values())]
SETTINGS = [
    {name: value for name, value in zip(CHOICES, values, strict=True) if value != "absent"}
    for values in itertools.product(*(("absent", *choices) for choices in CHOICES.values()))
]


OPPOSITES = [NORMALIZERS[0], NORMALIZERS[-1] | {"strip_accents": True}]


def test_settings_count_as_for_auto_tokenizer(tmp_path: Path) -> None:
    """BertTokenizer's, a setting that is not named at its default, whatever tokenizer.json says."""
    for normalizer, settings in itertools.product(OPPOSITES, SETTINGS):
        write(tmp_path, settings, normalizer=normalizer)
        assert_as_auto_tokenizer(tmp_path, TEXTS[:1])


@pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast"])
def test_relatives_of_bert_tokenizer_follow_the_settings(tmp_path: Path, kind: str) -> None:
    for normalizer, settings in zip(OPPOSITES, (SETTINGS[0], {"do_lower_case": False}), strict=True):
        write(tmp_path, {"tokenizer_class": kind} | settings, normalizer=normalizer)
        assert_as_auto_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    write(tmp_path, {"tokenizer_class": kind, "strip_accents": False}, vocab=True)
    assert_as_auto_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_saved_tokenizer_counts_as_it_is(tmp_path: Path, kind: str) -> None:
    for normalizer in NORMALIZERS:
        settings = {name: not normalizer[theirs] for name, theirs in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents"))}
        write(tmp_path, {"tokenizer_class": kind} | settings, normalizer=normalizer)
        assert_as_auto_tokenizer(tmp_path, TEXTS[:1])


def test_without_settings_a_tokenizer_speaks_for_itself(tmp_path: Path) -> None:
    write(tmp_path, None, normalizer={"lowercase": False, "strip_accents": True, "handle_chinese_chars": False})
    ours = Tokenizer.load(tmp_path)
    assert ours.tokens(ours.encode("Café 中文").ids) == ["[UNK]", "中文"]
    assert ours.tokens(ours.encode("É cafe").ids) == ["[UNK]", "cafe"]


def test_words_of_bert_tokenizer_are_as_long_as_it_reads_them(tmp_path: Path) -> None:
    for kind in ("BertTokenizer", "PreTrainedTokenizerFast"):
        write(tmp_path, {"tokenizer_class": kind}, normalizer={})
        content = json.loads((tmp_path / "tokenizer.json").read_text())
        content["model"]["max_input_chars_per_word"] = 4
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        ours = assert_as_auto_tokenizer(tmp_path)
        assert (ours.encode("movie").ids.tolist() == [ours.unk_id]) == (kind == "PreTrainedTokenizerFast")
        ours.save(tmp_path / "saved")
        assert assert_as_auto_tokenizer(tmp_path / "saved").encode("movie").ids.tolist() == ours.encode("movie").ids.tolist()


NEW_TOKENS = {"content": "[NEW]", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
DECLARATIONS: dict[str, dict[str, Any]] = {
    "decoder": {"settings": {"added_tokens_decoder": {str(VOCABULARY["[unused1]"]): NEW_TOKENS | {"content": "[unused1]"}}}},
    "a new token in the decoder": {"settings": {"added_tokens_decoder": {str(NEW): NEW_TOKENS}}},
    "additional": {"settings": {"additional_special_tokens": ["[unused1]", "[NEW]"]}},
    "extra": {"settings": {"extra_special_tokens": ["[unused1]"]}},
    "extra with names": {"settings": {"extra_special_tokens": {"entity_token": "[unused1]", "other_token": "[NEW]"}}},
    "a name of its own": {"settings": {"entity_token": "[unused1]"}},
    "bos and eos": {"settings": {"eos_token": "[EOS]", "bos_token": "[NEW]"}},
    "map": {"special_tokens_map": {"additional_special_tokens": ["[unused1]", "[NEW]"], "mask_token": NEW_TOKENS | {"content": "[MASK]"}}},
    "map and settings": {
        "settings": {"additional_special_tokens": ["[unused1]"]},
        "special_tokens_map": {"additional_special_tokens": ["[NEW]"]},
    },
    "extra in both": {"settings": {"extra_special_tokens": ["[unused1]"]}, "special_tokens_map": {"extra_special_tokens": ["[NEW]"]}},
    "added": {"added_tokens": {"[NEW]": NEW, "movie": VOCABULARY["movie"]}},
    "added and special": {"added_tokens": {"[NEW]": NEW}, "special_tokens_map": {"additional_special_tokens": ["[NEW]", "[unused1]"]}},
    "the decoder alone counts": {
        "settings": {"added_tokens_decoder": {"0": NEW_TOKENS | {"content": "[PAD]"}}},
        "added_tokens": {"[NEW]": NEW},
        "special_tokens_map": {"additional_special_tokens": ["[unused1]"]},
        "added": [tokenizers.AddedToken("new york")],
    },
    "tokenizer.json": {"added": [tokenizers.AddedToken("[NEW]", special=True), tokenizers.AddedToken("[unused1]", special=True)]},
    "normalized": {"added": [tokenizers.AddedToken("[NEW]", normalized=True), tokenizers.AddedToken("New York", normalized=True)]},
    "whole words": {"added": [tokenizers.AddedToken("movie", single_word=True, normalized=True)]},
    "whole words as they are written": {"added": [tokenizers.AddedToken("newmovie", single_word=True, normalized=False)]},
    "with spaces": {"added": [tokenizers.AddedToken("movie", lstrip=True, rstrip=True), tokenizers.AddedToken("york new", special=True)]},
}


@pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("name", DECLARATIONS)
def test_declared_tokens_are_tokens(tmp_path: Path, name: str, kind: str) -> None:
    files = dict(DECLARATIONS[name])
    write(tmp_path, {"tokenizer_class": kind} | files.pop("settings", {}), normalizer={}, **files)
    ours = assert_as_auto_tokenizer(tmp_path)
    flat = ours.encode_flat(TEXTS).ids.tolist()
    assert flat == [i for encoding in ours.encode_batch(TEXTS) for i in encoding.ids.tolist()]
    ours.save(tmp_path / "saved")
    assert assert_as_auto_tokenizer(tmp_path / "saved").fingerprint == ours.fingerprint
    if kind == "BertTokenizer":
        (tmp_path / "tokenizer.json").unlink()
        write(tmp_path, None, vocab=True)
        assert_as_auto_tokenizer(tmp_path)


def test_a_declared_token_is_one_token(tmp_path: Path) -> None:
    write(tmp_path, {"additional_special_tokens": ["[unused1]"]}, normalizer={})
    ours = Tokenizer.load(tmp_path)
    assert ours.tokens(ours.encode("[unused1] the movie").ids) == ["[unused1]", "the", "movie"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"settings": {"tokenizer_class": "BertJapaneseTokenizer"}}, "tokenizer_config.json names the tokenizer BertJapaneseTokenizer"),
    ({"config": {"tokenizer_class": "BertJapaneseTokenizer"}}, "config.json names the tokenizer BertJapaneseTokenizer"),
    ({"settings": {"cls_token": "<s>"}}, "cls_token to '<s>'"),
    ({"special_tokens_map": {"mask_token": {"content": "<mask>"}}}, "mask_token to '<mask>'"),
    ({"settings": {"split_special_tokens": True}}, "split_special_tokens"),
    ({"settings": {"added_tokens_decoder": [1]}}, "added_tokens_decoder that is not a JSON object"),
    ({"settings": {"added_tokens_decoder": {"x": "[NEW]"}}}, "the id 'x'"),
    ({"settings": {"added_tokens_decoder": {"7": {"content": 7}}}}, "neither a string nor an object"),
    ({"settings": {"extra_special_tokens": "[NEW]"}}, "not a JSON list"),
    ({"added_tokens": {"[NEW]": None}}, r"added_tokens.json declares a token with the id 'None'"),
    ({"special_tokens_map": {"additional_special_tokens": [["[NEW]"]]}}, "neither a string nor an object"),
]


@pytest.mark.parametrize(("files", "message"), REFUSED)
def test_what_no_bert_tokenizer_does_is_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    files = dict(files)
    write(tmp_path, files.pop("settings", {}), normalizer={}, **files)
    with pytest.raises(InputError, match=message) as error:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(error.value)
