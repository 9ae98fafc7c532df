"""Find the raw text files of a source, and read the documents in them.

A file has one paragraph per line and a blank line between documents; the end of a file ends a document. Files are
streamed, with at most one document in memory.
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
"""Maximum characters of a document and bytes of a line; longer ones are split, so that a file without breaks need not fit in memory."""

_DROPPED = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ud800-\udfff]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def list_files(source: str | Path) -> list[Path]:
    """Return the text files that a file name, a folder (searched recursively) or a glob refers to, sorted.

    Raises:
        InputError: there is no such file or folder, or it contains no .txt, .txt.gz or .txt.xz file.
    """
    location = on_disk(source, "The corpus")
    if location.is_file():
        if not location.name.endswith(SUFFIXES):
            raise InputError(f"The corpus file {source} is not one of {', '.join(SUFFIXES)}: rename it or convert it to plain UTF-8 text.")
        return [location]
    if location.is_dir():
        found: Iterable[Path] = location.rglob("*")
    elif glob.has_magic(str(source)):
        # Brackets in the names of existing folders are not part of a pattern.
        folder = next(parent for parent in location.parents if parent.is_dir())
        found = folder.glob(str(location.relative_to(folder)))
    else:
        raise InputError(f"The corpus {source} does not exist: name a text file, a folder, a glob, a data set (tfds: or hf:) or demo.")
    files = sorted(path for path in found if path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file())
    if not files:
        raise InputError(f"The corpus {source} contains no text: it has no files that end in {', '.join(SUFFIXES)}.")
    return files


def read_documents(
    files: Iterable[Path],
    encoding_errors: Literal["strict", "replace"] = "strict",
    on_read: Callable[[int], None] | None = None,
) -> Iterator[list[str]]:
    """Yield the documents of the files in order, each as a list of paragraphs without surrounding whitespace.

    Args:
        files: the result of `list_files`.
        encoding_errors: whether bytes that are not UTF-8 raise an error or become U+FFFD.
        on_read: called after each read with the number of bytes (before decompression) that were read.

    Raises:
        InputError: a file cannot be read or is not UTF-8, or a .gz or .xz file is damaged or has an implausible compression ratio.
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
    """Count the characters that never become tokens: control characters, and U+FFFD, which replaces bytes that are not UTF-8."""
    return len(_DROPPED.findall(text))


def _lines(path: Path, encoding_errors: str, on_read: Callable[[int], None] | None) -> Iterator[str]:
    """Yield the decoded lines of a file; lines longer than `LONGEST_DOCUMENT` bytes are split into pieces."""
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
    """Return where to split an overlong line: after its last space, or else before its last character."""
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
        packed = "" if path.name.endswith(".txt") else " of the decompressed text"
        raise InputError(
            f"The corpus file {path} is not UTF-8 at byte {offset + error.start:,}{packed} ({error.reason}): convert it "
            "(for example with `iconv -t UTF-8`), or set corpus.encoding_errors=replace to read such bytes as U+FFFD."
        ) from error
