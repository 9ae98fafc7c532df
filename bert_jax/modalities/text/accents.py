"""Detect whether stripping accents, as BERT's uncased models do, would change the meaning of a corpus.

Stripping is canonical decomposition (NFD) followed by the removal of combining marks. It turns é into e, but also Japanese パ into ハ
and Cyrillic й into и, removes the tones of Thai words and the vowels of Hindi words, and splits Korean syllables into letters.
"""

import heapq
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from tokenizers import normalizers, pre_tokenizers

KEPT_ABOVE = 0.001
"""Accents are kept if more than this fraction of a corpus's characters is non-Latin and would change."""

_EXAMPLES = 3
_MAX_CANDIDATES = 1000
_LONGEST_EXAMPLE = 20
_SELECTORS = {*map(chr, range(0xFE00, 0xFE10)), *map(chr, range(0xE0100, 0xE01F0))}
"""Variation selectors; they change the appearance of a character or emoji, not its meaning."""


def words_that_need_accents(chunks: Mapping[str, int], words: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return example words with their stripped forms if stripping would change too much of the text, else an empty list.

    Args:
        chunks: counts of pieces of text without whitespace; combining marks that are not specific to a script follow their letter.
        words: the same, or a sample of the text in larger pieces, from which to choose the examples.
    """
    kept, stripped = (normalizers.BertNormalizer(lowercase=True, strip_accents=strip) for strip in (False, True))
    beyond_ascii = [chunk for chunk in chunks if not chunk.isascii()]
    characters = {character for character in set().union(*beyond_ascii) if not "\ud800" <= character <= "\udfff"}
    latin = {character for character in characters if "LATIN" in unicodedata.name(character, "")}
    changed = {c for c in characters - latin - _SELECTORS if kept.normalize_str(c) != stripped.normalize_str(c)}
    if not changed:
        return []
    # A combining mark that is not specific to a script (such as U+0301) takes the script of its letter.
    marks = {character for character in changed if unicodedata.name(character, "").startswith("COMBINING")}
    on_latin = f"[A-Za-z{_set(latin)}][{_set(marks)}]+|" if marks else ""
    pattern = re.compile(f"{on_latin}([{_set(changed)}])")
    changes = sum(chunks[chunk] * sum(map(bool, pattern.findall(chunk))) for chunk in beyond_ascii)
    if changes <= KEPT_ABOVE * sum(len(chunk) * count for chunk, count in chunks.items()):
        return []
    candidates = [word for word in words if any(pattern.findall(word))] or beyond_ascii
    return _examples(heapq.nlargest(_MAX_CANDIDATES, candidates, lambda word: words.get(word, 0)), pattern, kept, stripped)


def words_in_two_forms(chunks: Mapping[str, int]) -> list[str]:
    """Return examples of words that occur both composed (NFC) and decomposed, if there are more than a few.

    With accents kept, the two forms are different words.

    Args:
        chunks: counts of pieces of text without whitespace.
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
    """Return short words that would change, most frequent first, preferably of different scripts."""
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
    """Return the stripped form of a word, with spaces between letters that a terminal would otherwise render as the same syllable."""
    return " ".join(stripped) if unicodedata.normalize("NFC", stripped) == word else stripped


def _set(characters: Iterable[str]) -> str:
    """Return the characters escaped for use inside a character class of a regular expression."""
    return "".join(map(re.escape, sorted(characters)))
