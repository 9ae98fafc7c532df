"""Split Chinese, English and mixed text into sentences or clauses, and text of other scripts at their own full stops."""

import re
from typing import Literal

WORD_MARK = "\u200b"
"""Zero-width space, which separates words in pre-segmented text; BERT's normalizer removes it."""

_ENDS = ".!?…。！？｡"
_CLAUSE_ENDS = ",;，；"
# Armenian, Hebrew, Arabic, Urdu, Devanagari and most scripts of India, Tibetan, Burmese, Ethiopic, Khmer, Mongolian.
_ENDS_OF_OTHER_SCRIPTS = "։׃؟۔।॥།༎။።፧។៕᠃"
_CERTAIN = frozenset("。！？｡，；" + _ENDS_OF_OTHER_SCRIPTS)
_CLOSERS = "\"')\\]}”’」』）】》〉〕］｝"
_CONTINUES = frozenset(",;:，、；：)]}”’」』）】》〉〕］｝")
_EDGES = " \t\r\n\f\v\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200C)))


def _pattern(ends: str) -> re.Pattern[str]:
    # Possessive quantifiers that match every run of marks, so that no text is slow; `_is_end` then decides if a run ends a sentence.
    return re.compile(rf"([{ends}][{ends}{WORD_MARK}]*+)([{_CLOSERS}{WORD_MARK}]*+)([\s{WORD_MARK}]*+)|\n")


Ends = Literal["sentences", "clauses", "all_scripts"]

_PATTERNS = {
    "sentences": _pattern(_ENDS),
    "clauses": _pattern(_ENDS + _CLAUSE_ENDS),
    "all_scripts": _pattern(_ENDS + _ENDS_OF_OTHER_SCRIPTS),
}

_TITLES = frozenset("Mr Mrs Ms Messrs Mmes Dr Prof Rev Hon Gen Col Maj Capt Lt Sgt Adm Gov Sen Rep Pres St Mt Ft fig Fig eq Eq".split())
_ABBREVIATIONS = frozenset(
    "Jr Sr Inc Ltd Co Corp Bros etc vs viz al approx ca cf ed eds vol Vol vols no No nos Nos p pp ch Ch sec Sec art Art "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mon Tue Tues Wed Thu Thurs Fri Sat Sun dept Dept est Ave Blvd Rd".split()
)
_STARTERS = frozenset(
    "The This That These Those There Then A An He She It They We You I His Her Its Their Our My In On At As After Before When While "
    "But And Or If So For However Although Because Since Not No What Why How Who Where".split()
)
_DOTTED = re.compile(r"[^\W\d_]{1,2}(\.[^\W\d_]{1,2})+")
_WORD_BEFORE = re.compile(r"[^\s\"'(\[{“‘—–-]*\Z")
_WORD_AFTER = re.compile(r"[\"'(\[{“‘]*([^\W\d_]*)")


def split_sentences(text: str, ends: Ends = "sentences") -> list[str]:
    """Split a paragraph into sentences, without the whitespace between them.

    "clauses" also splits at commas and semicolons, and "all_scripts" at the full stops of other scripts. A line break ends a
    sentence; the periods of abbreviations, initials, decimals and list numbers do not. Closing quotes and brackets directly
    after the end of a sentence belong to that sentence.
    """
    sentences = []
    start = quotes_until = 0
    quote_open = False
    for match in _PATTERNS[ends].finditer(text):
        marks, closers, space = match.groups()
        end = match.end()
        if marks:
            end -= len(space)
            if closers and closers[0] == '"':
                quote_open ^= text.count('"', quotes_until, match.end(1)) % 2 == 1
                quotes_until = match.end(1)
                if not quote_open and not space and match.end() < len(text):
                    end = match.end(1)  # a straight quote that opens the next sentence
            if "\n" not in space and not _is_end(text, start, match, marks, closers, space):
                continue
        sentences.append(text[start:end].strip(_EDGES))
        start = end
    sentences.append(text[start:].strip(_EDGES))
    return [sentence for sentence in sentences if sentence]


def _is_end(text: str, start: int, match: re.Match[str], marks: str, closers: str, space: str) -> bool:
    following = text[match.end() : match.end() + 1]
    if not following or following in _CONTINUES:
        return not following
    at = match.start()
    before = text[at - 1] if at > start else " "
    if WORD_MARK in (before, marks[-1], closers[-1:], space[-1:]):
        before = text[max(start, at - 8) : at].rstrip(WORD_MARK)[-1:]
        marks, closers, space = (part.replace(WORD_MARK, "") for part in (marks, closers, space))
    if not _CERTAIN.isdisjoint(marks):
        return True
    if _is_wide(before):
        return bool(space) or _is_wide(following) or marks not in ".,;"
    if not space:
        return _is_wide(following)
    if marks == ".":
        return not following.islower() and not _is_abbreviation(text, start, match)
    return marks in ",;" or not following.islower() or (marks[-1] in "!?" and not closers)


def _is_wide(character: str) -> bool:
    # From the first CJK block upward: scripts and punctuation written without spaces.
    return character >= "\u2e80"


def _is_abbreviation(text: str, start: int, match: re.Match[str]) -> bool:
    word = _WORD_BEFORE.search(text, max(start, match.start() - 20), match.start())[0]  # type: ignore[index]  # \Z always matches
    if word in _TITLES:
        return True
    if word.isdecimal():
        begin = match.start() - len(word)
        return begin - start < 8 and not text[start:begin].strip(_EDGES)
    if word in _ABBREVIATIONS or _DOTTED.fullmatch(word) or (len(word) == 1 and word.isupper()):
        after = _WORD_AFTER.match(text, match.end())
        return after is None or after[1] not in _STARTERS
    return False
