"""Tags of words: how schemes mark where an entity begins and ends, and the entities that a sequence of tags describes.

Everything is converted to IOB2, also called BIO: the first word of an entity has the tag B-TYPE, its other words I-TYPE, and a word
outside of entities O. Tags without prefixes that are not IO, such as parts of speech, are kept as they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

Scheme: TypeAlias = Literal["bio", "bioes", "io", "plain"]

OUTSIDE = "O"
_BEGINS, _ENDS = ("B", "S", "U"), ("E", "S", "L", "U")
"""Prefixes of an entity's first and last word, in BIOES and, with other letters, BILOU. The words between have I."""
_PREFIXES = {"bio": ("B", "I"), "bioes": ("B", "I", "E", "S", "L", "U", "M")}
_MIDDLE = ("I", "M")


class Entity(NamedTuple):
    """An entity: its type, and the indices of its first word and of the word after its last one."""

    type: str
    start: int
    end: int


def parts(tag: str) -> tuple[str, str]:
    """Return the prefix and the type of a tag such as B-LOC; the prefix of a tag without one is empty."""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash and kind and prefix in _PREFIXES["bioes"] else ("", tag)


def detect(tags: Iterable[str]) -> Scheme:
    """Return the scheme of all tags of a file; one in which they are not `allowed` if some have prefixes and others do not."""
    found = set(tags)
    prefixes = {parts(tag)[0] for tag in found if tag != OUTSIDE}
    if begins := prefixes - {""}:
        return "bio" if begins <= set(_PREFIXES["bio"]) else "bioes"
    # A file may have both O and tags of another kind; only then is there something to be outside of.
    return "io" if OUTSIDE in found else "plain"


def to_bio(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], list[int]]:
    """Convert a sequence of tags to IOB2.

    Returns:
        The tags, and the indices of those that are impossible after the one before them and were repaired: a word inside an entity that
        has not begun begins one.
    """
    if scheme == "plain":
        return list(tags), []
    converted, repaired = [], []
    former = ""  # the type of the entity that the previous word is in and has not ended
    for index, tag in enumerate(tags):
        if tag == OUTSIDE:
            impossible, now = scheme == "bioes" and former != "", ""
            converted.append(OUTSIDE)
        else:
            # Types alone are also written as I-TYPE.
            prefix, kind = parts(tag) if scheme != "io" else ("I", tag.removeprefix("I-"))
            continues = prefix not in _BEGINS and kind == former
            impossible = scheme != "io" and not continues and (prefix not in _BEGINS or (scheme == "bioes" and former != ""))
            converted.append(f"{'I' if continues else 'B'}-{kind}")
            now = "" if prefix in _ENDS else kind
        if impossible:
            repaired.append(index)
        former = now
    if scheme == "bioes" and former:
        repaired.append(len(tags) - 1)
    return converted, repaired


def allowed(tag: str, scheme: Scheme) -> bool:
    """Return whether a tag exists in a scheme."""
    if scheme in ("plain", "io") or tag == OUTSIDE:
        return bool(tag)
    return parts(tag)[0] in _PREFIXES[scheme]


def strict_entities(tags: Sequence[str]) -> Iterator[Entity]:
    """Yield the entities of IOB2 tags, as seqeval does in strict mode: an I-TYPE that continues no entity is not in any."""
    start, kind = 0, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, found = parts(tag)
        if kind and not (prefix == "I" and found == kind):
            yield Entity(kind, start, index)
            kind = ""
        if prefix == "B":
            start, kind = index, found


def grouped_entities(tags: Sequence[str]) -> Iterator[Entity]:
    """Yield the entities of predicted tags of any scheme, as the pipelines of `transformers` do.

    A tag that continues nothing begins an entity, and adjacent words with the same tag without a prefix are one.
    """
    start, kind, ended = 0, "", False
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, found = parts(tag) if tag != OUTSIDE else ("", "")
        if kind and (ended or found != kind or prefix in _BEGINS):
            yield Entity(kind, start, index)
            kind = ""
        if found and not kind:
            start, kind = index, found
        ended = prefix in _ENDS


def names(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the label names of a model for these tags: O first, then by type, B before I."""
    return tuple(sorted(set(tags), key=lambda tag: (tag != OUTSIDE, parts(tag)[1], parts(tag)[0])))
