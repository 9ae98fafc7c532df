"""Whether stripping accents, as BERT's uncased models do, would take the meaning out of a corpus.

Stripping is a canonical decomposition (NFD) that drops the marks. For é that is an e; but a Japanese パ becomes ハ, a Thai word loses
its tone, a Hindi word its vowels, a Cyrillic й becomes и, and a Korean syllable falls apart into its letters.
"""

import heapq
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from tokenizers import normalizers, pre_tokenizers

KEPT_ABOVE = 0.001
"""Share of a corpus's characters that are outside Latin script and would change, above which accents are kept."""

_EXAMPLES = 3
_LOOKED_AT = 1000
_LONGEST_EXAMPLE = 20
_SELECTORS = {*map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0))}
"""They choose how an emoji or a character looks, not what it means."""


def words_that_need_accents(chunks: Mapping[str, int], words: Mapping[str, int]) -> list[tuple[str, str]]:
    """Examples of words, each with what stripping makes of it, where it would change too much; none where it may be done.

    Args:
        chunks: pieces of text without white space, and how often each occurs; a mark of all scripts stands behind its letter.
        words: the same, or some of the text in larger pieces, to take examples from.
    """
    kept, stripped = (normalizers.BertNormalizer(lowercase=True, strip_accents=strip) for strip in (False, True))
    beyond_ascii = [chunk for chunk in chunks if not chunk.isascii()]
    characters = {character for character in set().union(*beyond_ascii) if not "\ud800" <= character <= "\udfff"}
    latin = {character for character in characters if "LATIN" in unicodedata.name(character, "")}
    changed = {c for c in characters - latin - _SELECTORS if kept.normalize_str(c) != stripped.normalize_str(c)}
    if not changed:
        return []
    # A mark of all scripts (U+0301) is of the script of its letter.
    marks = {character for character in changed if unicodedata.name(character, "").startswith("COMBINING")}
    on_latin = f"[A-Za-z{_set(latin)}][{_set(marks)}]+|" if marks else ""
    pattern = re.compile(f"{on_latin}([{_set(changed)}])")
    changes = sum(chunks[chunk] * sum(map(bool, pattern.findall(chunk))) for chunk in beyond_ascii)
    if changes <= KEPT_ABOVE * sum(len(chunk) * count for chunk, count in chunks.items()):
        return []
    candidates = [word for word in words if any(pattern.findall(word))] or beyond_ascii
    return _examples(heapq.nlargest(_LOOKED_AT, candidates, lambda word: words.get(word, 0)), pattern, kept, stripped)


def words_in_two_forms(chunks: Mapping[str, int]) -> list[str]:
    """Words that stand there composed (NFC) and decomposed too, where they are more than a few; kept accents make them two words.

    Args:
        chunks: pieces of text without white space, and how often each occurs.
    """
    twins = Counter[str]()
    for chunk, count in chunks.items():
        if not chunk.isascii() and not unicodedata.is_normalized("NFC", chunk):
            composed = unicodedata.normalize("NFC", chunk)
            if composed in chunks:
                twins[composed] += len(chunk) * count
    if twins.total() <= KEPT_ABOVE * sum(len(chunk) * count for chunk, count in chunks.items()):
        return []
    return [chunk for chunk, _ in twins.most_common(_EXAMPLES)]


def _examples(
    chunks: list[str], pattern: re.Pattern[str], kept: normalizers.BertNormalizer, stripped: normalizers.BertNormalizer
) -> list[tuple[str, str]]:
    """Short words that would change, the most frequent first, of different scripts where there are some."""
    words: dict[str, str] = {}
    for chunk in chunks:
        for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(kept.normalize_str(chunk.encode(errors="replace").decode())):
            letters = [letter for letter in pattern.findall(word) if letter]
            if letters and 1 < len(word) <= _LONGEST_EXAMPLE:
                words.setdefault(word, unicodedata.name(letters[0]).split()[0])
    words = words or {chunks[0][:_LONGEST_EXAMPLE]: ""}
    first_of_script = {script: word for word, script in reversed(words.items())}
    chosen = list(dict.fromkeys([*reversed(first_of_script.values()), *words]))[:_EXAMPLES]
    return [(word, _visible(word, stripped.normalize_str(word))) for word in chosen]


def _visible(word: str, stripped: str) -> str:
    """What stripping makes of a word; letters that a terminal would draw as the same syllable stand apart."""
    return " ".join(stripped) if unicodedata.normalize("NFC", stripped) == word else stripped


def _set(characters: Iterable[str]) -> str:
    """The inside of a regular expression's set; of nothing, a character that is never there."""
    return "".join(map(re.escape, sorted(characters)))
