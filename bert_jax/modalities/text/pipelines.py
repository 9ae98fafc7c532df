"""The kinds of text vocabularies as `tokenizers` pipelines: what splits a text, which model finds its tokens, and how they are joined.

Only bytes need their own splitting, which keeps whitespace: UTF-8 is read and written without loss.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from bert_jax.modalities.text.chinese import CHINESE

Kind = Literal["wordpiece", "characters", "words", "bytes"]

BYTE_TOKENS = tuple(chr(byte) if 0x21 <= byte <= 0x7E else f"<0x{byte:02X}>" for byte in range(256))
"""The token of each byte: a visible ASCII character stands for itself, and the others have the names that `byte_fallback` expects."""

CHARACTERS_OF_BYTES = tuple(int(byte & 0xC0 != 0x80 and chr(byte) not in " \t\n\r\f\v") for byte in range(256))
"""1 for each byte that a character starts with, except for whitespace."""

# A word with the whitespace that follows it. Words are those of BERT's pre-tokenizer, whose punctuation includes all ASCII symbols.
_MARK = r"\p{P}$+<=>^`|~"
_WORDS = Regex(rf"[{CHINESE}]\s*|[{_MARK}]\s*|[^\s{_MARK}{CHINESE}]+\s*|\s+")


def pipeline(
    kind: Kind, vocabulary: Mapping[str, int], normalizer: normalizers.BertNormalizer, max_word_length: int
) -> tokenizers.Tokenizer:
    """Return a tokenizer of this kind; only word pieces limit the length of a word, in characters."""
    backend = tokenizers.Tokenizer(_model(kind, dict(vocabulary), max_word_length))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Split(_WORDS, "isolated") if kind == "bytes" else pre_tokenizers.BertPreTokenizer()
    if kind != "words":
        backend.decoder = {
            "wordpiece": decoders.WordPiece(cleanup=False),
            "characters": decoders.Fuse(),
            "bytes": decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]),
        }[kind]
    return backend


def _model(kind: Kind, vocabulary: dict[str, int], max_word_length: int) -> models.Model:
    if kind == "wordpiece":
        return models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=max_word_length)
    if kind == "words":
        return models.WordLevel(vocabulary, unk_token="[UNK]")
    # A BPE model without merges makes every character, or byte, a token but still keeps track of words.
    return models.BPE(vocabulary, [], unk_token="[UNK]", byte_fallback=kind == "bytes")


def kind_of(backend: tokenizers.Tokenizer) -> Kind:
    """Return the kind of a tokenizer whose description has one."""
    model = backend.model
    if isinstance(model, models.BPE):
        return "bytes" if model.byte_fallback else "characters"
    return "words" if isinstance(model, models.WordLevel) else "wordpiece"


def described_kind(content: Mapping[str, Any]) -> Kind | None:
    """Return the kind that the content of a `tokenizer.json` describes, or None if it splits text in another way.

    Raises:
        KeyError, TypeError: the content describes no model.
    """
    model, normalizer, splits = content["model"], content.get("normalizer") or {}, content.get("pre_tokenizer") or {}
    kind: Kind | None = None
    if model["type"] == "WordPiece" and model["continuing_subword_prefix"] == "##":
        kind = "wordpiece"
    elif model["type"] == "WordLevel" and model["unk_token"] == "[UNK]":
        kind = "words"
    elif model["type"] == "BPE" and not model["merges"]:
        kind = "bytes" if model.get("byte_fallback") and model["vocab"].keys() >= set(BYTE_TOKENS) else "characters"
    as_expected = splits == _BYTE_SPLITS if kind == "bytes" else splits.get("type") == "BertPreTokenizer"
    return kind if as_expected and normalizer.get("type") == "BertNormalizer" else None


_BYTE_SPLITS = json.loads(pipeline("bytes", {}, normalizers.BertNormalizer(), 0).to_str())["pre_tokenizer"]
