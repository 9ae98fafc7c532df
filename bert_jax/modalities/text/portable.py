"""A tokenizer as plain values, for a program in another language: what its normalization does to every character.

Libraries disagree about what is a letter, a mark or punctuation, by the version of Unicode that they know, so none of it is left to the
other program.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import models, normalizers, pre_tokenizers

from bert_jax.errors import InputError
from bert_jax.modalities.text.tokenizer import Tokenizer

_EXAMINED = [
    code for code in itertools.chain(range(0x40000), range(0xE0000, 0xE1000), (0xF0000, 0x100000)) if not 0xD800 <= code < 0xE000
]
"""Code points; planes 4 to 13 are unassigned, and of planes 15 and 16, which are private, all characters are like the first."""
_PRIVATE = 0xFFFD
"""How many characters of a private plane follow its first one."""
_HANGUL = range(0xAC00, 0xD7A4)
"""Syllables, whose decomposition (Unicode 3.12) every program knows."""
_MARK = "0"
"""Put between characters; normalization makes it of no other one, and words are not split at it."""


def portable(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what encodes texts as a tokenizer does, as JSON values.

    `removed`, `spaced` (words of their own), `blanks` (which become a space), `marks` (punctuation) and `gaps` (white space of what was
    normalized) are code points, as the first and last of each range. `mapped` and `mapped_to` are the other characters that
    normalization replaces, and by what; `hangul` says whether it decomposes those syllables.

    Raises:
        InputError: the vocabulary is of words or bytes, or it has tokens that are matched in another way than [MASK] is.
    """
    if tokenizer.kind not in ("wordpiece", "characters"):
        raise InputError(f"A page cannot read a vocabulary of {tokenizer.kind}. Share a model of word pieces or characters.")
    backend = tokenizer.backend
    added = backend.get_added_tokens_decoder()
    for token in added.values():
        if token.single_word or token.lstrip or token.rstrip or token.normalized:
            raise InputError(
                f"The vocabulary has the token {token.content!r}, which is matched in a way that a page cannot. Share another model."
            )
    found = _normalized(*_settings(backend.normalizer))
    others = {code: text for code, text in found.items() if text not in ("", " ", f" {chr(code)} ")}
    hangul = any(code in others for code in _HANGUL)
    mapped = {code: text for code, text in others.items() if code not in _HANGUL}
    pieces = _pieces()

    def ranges_of(holds: Callable[[str], bool]) -> list[int]:
        return _ranges(code for code, text in found.items() if holds(text))

    return {
        "tokens": [backend.id_to_token(i) or "" for i in range(tokenizer.vocab_size)],
        "characters": isinstance(backend.model, models.BPE),
        "longest": tokenizer.max_word_length or 0,
        "special": [*tokenizer.special_ids],
        "added": [[token.content, i] for i, token in added.items()],
        "removed": ranges_of(lambda text: text == ""),
        "blanks": ranges_of(lambda text: text == " "),
        "spaced": _ranges(code for code, text in found.items() if text == f" {chr(code)} "),
        "mapped": "".join(map(chr, mapped)),
        "mapped_to": [*mapped.values()],
        "hangul": hangul,
        "marks": _ranges(code for code, kind in pieces if kind == "mark"),
        "gaps": _ranges(code for code, kind in pieces if kind == "gap"),
    }


def _settings(normalizer: normalizers.BertNormalizer) -> tuple[bool, bool, bool | None, bool]:
    return normalizer.clean_text, normalizer.handle_chinese_chars, normalizer.strip_accents, normalizer.lowercase


@functools.cache
def _normalized(*settings: Any) -> dict[int, str]:
    """Return what becomes of each character that normalization changes."""
    codes = [code for code in _EXAMINED if chr(code) != _MARK]
    text = _MARK + _MARK.join(map(chr, codes)) + _MARK
    found = normalizers.BertNormalizer(*settings).normalize_str(text).split(_MARK)[1:-1]
    return {code: text for code, text in zip(codes, found, strict=True) if text != chr(code)}


@functools.cache
def _pieces() -> list[tuple[int, str]]:
    """Return the characters at which words are split: white space, which is left out, and others, which are words."""
    text = _MARK + _MARK.join(map(chr, _EXAMINED)) + _MARK
    covered, found = 0, []
    for _, (start, stop) in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text):
        found += [(_EXAMINED[gap // 2], "gap") for gap in range(covered, start)]
        if stop == start + 1 and start % 2:
            found.append((_EXAMINED[start // 2], "mark"))
        covered = stop
    return found


def _ranges(codes: Iterable[int]) -> list[int]:
    found: list[int] = []
    for code in sorted(codes):
        last = code + _PRIVATE if code in (0xF0000, 0x100000) else code
        if found and code == found[-1] + 1:
            found[-1] = last
        else:
            found += [code, last]
    return found
