"""Files of raw text: which ones a source means, and the documents in them.

A file holds one paragraph a line and a blank line between documents; the end of a file ends a document. Everything
streams: no more than one document is in memory.
"""

import glob
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from bert_jax.errors import InputError
from bert_jax.storage.files import on_disk
from bert_jax.storage.streams import open_bytes

SUFFIXES = (".txt", ".txt.gz", ".txt.xz")
LONGEST_DOCUMENT = 1 << 17
"""A document is cut after so many characters and a line after so many bytes: a file without breaks need not fit in memory."""

_DROPPED = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def list_files(source: str | Path) -> list[Path]:
    """The text files that a file name, a folder (with its subfolders) or a glob means, sorted.

    Raises:
        InputError: there is no such file or folder, or it holds no .txt, .txt.gz or .txt.xz file.
    """
    place = on_disk(source, "The corpus")
    if place.is_file():
        if not place.name.endswith(SUFFIXES):
            raise InputError(f"The corpus file {source} is not one of {', '.join(SUFFIXES)}: rename it or convert it to plain UTF-8 text.")
        return [place]
    if place.is_dir():
        found: Iterable[Path] = place.rglob("*")
    elif glob.has_magic(str(source)):
        # Brackets in the names of folders that are there are no pattern.
        folder = next(parent for parent in place.parents if parent.is_dir())
        found = folder.glob(str(place.relative_to(folder)))
    else:
        raise InputError(f"The corpus {source} does not exist: name a text file, a folder, a glob, a tfds: data set or demo.")
    files = sorted(path for path in found if path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file())
    if not files:
        raise InputError(f"The corpus {source} holds no text: not one file there ends in {', '.join(SUFFIXES)}.")
    return files


def read_documents(
    files: Iterable[Path],
    encoding_errors: Literal["strict", "replace"] = "strict",
    on_read: Callable[[int], None] | None = None,
) -> Iterator[list[str]]:
    """The documents of the files, in order, each a list of its paragraphs without surrounding white space.

    Args:
        files: what `list_files` found.
        encoding_errors: whether bytes that are not UTF-8 are an error or become U+FFFD.
        on_read: called with the number of (compressed) bytes each time some were read from a file.

    Raises:
        InputError: a file cannot be read, is not UTF-8, or is a .gz or .xz file that is damaged or unpacks without end.
    """
    for path in files:
        paragraphs: list[str] = []
        size = 0
        for line in _lines(path, encoding_errors, on_read):
            paragraph = line.strip()
            if paragraph:
                paragraphs.append(paragraph)
                size += len(line)
            if paragraphs and (not paragraph or size >= LONGEST_DOCUMENT):
                yield paragraphs
                paragraphs, size = [], 0
        if paragraphs:
            yield paragraphs


def count_dropped(text: str) -> int:
    """Characters that are no text and never become tokens: NUL and its like, and U+FFFD, for which bytes that are not UTF-8 were read."""
    return len(_DROPPED.findall(text))


def _lines(path: Path, encoding_errors: str, on_read: Callable[[int], None] | None) -> Iterator[str]:
    """The decoded lines of a file; a line longer than a document may be comes in pieces."""
    offset = 0
    rest = b""
    with open_bytes(path, on_read) as stream:
        while line := stream.readline(LONGEST_DOCUMENT):
            line = rest + line
            cut = len(line) if line.endswith(b"\n") or len(line) < LONGEST_DOCUMENT else _last_break(line)
            line, rest = line[:cut], line[cut:]
            yield _decode(line, path, offset, encoding_errors)
            offset += cut
        if rest:
            yield _decode(rest, path, offset, encoding_errors)


def _last_break(line: bytes) -> int:
    """Where to cut a piece of an endless line: after its last space, else before its last character."""
    space = line.rfind(b" ")
    if space > 0:
        return space + 1
    cut = len(line) - 1
    while cut > len(line) - 4 and line[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _decode(line: bytes, path: Path, offset: int, encoding_errors: str) -> str:
    if offset == 0 and line.startswith(_BYTE_ORDER_MARK):
        line, offset = line[len(_BYTE_ORDER_MARK) :], len(_BYTE_ORDER_MARK)
    try:
        return line.decode("utf-8", errors=encoding_errors)
    except UnicodeDecodeError as error:
        packed = "" if path.name.endswith(".txt") else " of the unpacked text"
        raise InputError(
            f"The corpus file {path} is not UTF-8 at byte {offset + error.start:,}{packed} ({error.reason}): convert it "
            "(for example with `iconv -t UTF-8`), or set corpus.encoding_errors=replace to read such bytes as U+FFFD."
        ) from error
