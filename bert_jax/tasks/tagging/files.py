"""Reads tagged words: from files in columns (CoNLL and CoNLL-U), from lists in .jsonl files, and from data sets."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_jax.data.data_sets import is_data_set
from bert_jax.data.tables import TABLES, ListColumn, Row, file_format, read_lines, read_rows
from bert_jax.errors import InputError
from bert_jax.storage.files import on_disk
from bert_jax.tasks.tagging.words import Words

_DOCUMENT = "-DOCSTART-"
"""In CoNLL-2003, the only word of a line that begins a document."""
_UNIVERSAL = (2, 4)
"""The columns FORM and UPOS of CoNLL-U, counted from 1."""


class Tagged(NamedTuple):
    """The words of a text with their tags, and the file and the line of each word."""

    words: Sequence[str]
    tags: Sequence[str]
    source: str
    lines: Sequence[int]

    def place(self, index: int) -> str:
        """Return where a word is, for messages."""
        return f"{self.source} line {self.lines[index]} (word {index + 1}, {self.words[index]!r})"


def read_tagged(source: str, columns: Mapping[str, str], split: str, numbers: tuple[int, ...] = ()) -> Iterator[Row]:
    """Yield the words of each text (`Words`) and its tags (`Tagged`).

    Args:
        source: a .tsv, .csv or .jsonl file or a data set, in which both columns hold lists; or any other file, which has a word per
            line, columns that are separated by tabs or spaces, and blank lines between texts.
        columns: the names of the columns of lists; the first holds the words.
        split: the split to read if the name of a data set does not include one.
        numbers: the columns of the word and of its tag in other files, counted from 1; by default the first and the last, or FORM and
            UPOS in a .conllu file.

    Raises:
        InputError: a second text is configured, a line has too few columns, a list is malformed, or a text has more tags than words or
            fewer; see also `read_rows`.
    """
    if len(columns) > 2:
        raise InputError("The task tag reads single texts, not pairs: leave finetune.data.text_pair empty.")
    if is_data_set(source) or file_format(Path(source)) in TABLES:
        yield from _lists(source, columns, split)
    else:
        yield from _columns(source, numbers)


def _lists(source: str, columns: Mapping[str, str], split: str) -> Iterator[Row]:
    names = {option: ListColumn(column) for option, column in columns.items()}
    for line, values in read_rows(source, names, split):
        where = f"{source} line {line}"
        words, tags = (_list(value, column, where) for value, column in zip(values, columns.values(), strict=True))
        if len(words) != len(tags):
            raise InputError(f"{where} has {len(words)} words but {len(tags)} tags: give each word one tag.")
        yield Row(line, (Words(tuple(words)), Tagged(words, tags, source, [line] * len(words))))


def _list(text: str, column: str, where: str) -> list[str]:
    try:
        # Only lists: the word 1984 is JSON, too.
        found = json.loads(text) if text.lstrip().startswith("[") else text.split()
    except (ValueError, RecursionError):
        found = text.split()
    if not isinstance(found, list) or not all(isinstance(one, str | int | float) for one in found):
        raise InputError(f"{where} has no list of strings in the column {column!r}: give a JSON list, or words with spaces between them.")
    return [str(one) for one in found]


def read_words(path: Path, word_column: int = 1) -> Iterator[Row]:
    """Yield the words of each text (`Words`): those in a column, counted from 1, or FORM in a .conllu file.

    Raises:
        InputError: the file cannot be read or has no words, or a line has too few columns.
    """
    column = _UNIVERSAL[0] if file_format(path) == ".conllu" else word_column
    for text in _texts(str(path), path, column, 0, tagged=False):
        yield Row(text[0][0], (Words(tuple(fields[column - 1] for _, fields in text)),))


def _columns(source: str, numbers: tuple[int, ...]) -> Iterator[Row]:
    path = on_disk(source, "The file")
    word_column, tag_column = numbers or (_UNIVERSAL if file_format(path) == ".conllu" else (1, 0))
    for text in _texts(source, path, word_column, tag_column, tagged=True):
        words = tuple(fields[word_column - 1] for _, fields in text)
        tags, lines = tuple(fields[tag_column - 1].strip() for _, fields in text), tuple(line for line, _ in text)
        yield Row(lines[0], (Words(words), Tagged(words, tags, source, lines)))


def _texts(source: str, path: Path, word_column: int, tag_column: int, tagged: bool) -> Iterator[list[tuple[int, list[str]]]]:
    """Yield the words of each text: the line and the columns of each, which has a tag if `tagged`; column 0 is the last one."""
    universal = file_format(path) == ".conllu"
    text: list[tuple[int, list[str]]] = []
    found = False
    for line, (content,) in read_lines(path, blank=True):
        if not content.strip(" \t"):
            found |= bool(text)
            if text and not _is_document(text, word_column):
                yield text
            text = []
            continue
        if universal and content.startswith("#"):
            continue
        fields = content.split("\t") if "\t" in content else content.split(" ")
        fields = fields if universal or "\t" in content else [one for one in fields if one]
        # Ranges such as 3-4 and empty nodes such as 8.1 are not words of the sentence.
        if universal and ("-" in fields[0] or "." in fields[0]):
            continue
        if len(fields) < max(word_column, tag_column, 1 + tagged):
            wanted = (
                f" and its tag in {f'column {tag_column}' if tag_column else 'the last one'}: correct the line, or name the columns with "
                "--config.finetune.task.conll_columns=WORD,TAG."
            )
            raise InputError(
                f"{source} line {line} has {len(fields)} column{'s' * (len(fields) != 1)} ({content[:40]!r}), but the word is in column "
                f"{word_column}{wanted if tagged else ': correct the line.'}"
            )
        text.append((line, fields))
    if text and not _is_document(text, word_column):
        yield text
    if not found and not text:
        raise InputError(f"{source} contains no words: it is empty.")


def _is_document(text: Sequence[tuple[int, list[str]]], word_column: int) -> bool:
    """Return whether the only word marks the beginning of a document."""
    return len(text) == 1 and text[0][1][word_column - 1] == _DOCUMENT

