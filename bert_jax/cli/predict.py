"""The commands that use a trained model, on texts of the command line or of a file."""

import argparse
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bert_jax.data.tables import TABLES, BadRow, Row, file_format
from bert_jax.errors import InputError, Interrupted, as_typed
from bert_jax.inference import CHUNK, Bert, TextError, TruncationWarning, load
from bert_jax.inference.answer_files import Answer, AnswerFile, Output, Terminal, check_output, count_texts, json_line, read_texts
from bert_jax.model import directory as model_directory
from bert_jax.runtime.progress import WorkProgress
from bert_jax.storage.files import resolve_path
from bert_jax.tasks.base import Question

_TOLD = 20
"""Bad lines of a file that are told one by one; the others are only counted."""


@dataclass(frozen=True)
class _Asked:
    """A model, what it is asked, and the options of the question."""

    bert: Bert
    question: Question
    options: dict[str, Any]


@dataclass(frozen=True)
class _Texts:
    """What a command works on: a file, or texts of the command line."""

    source: Path | None
    columns: dict[str, str]
    rows: Iterator[Row | BadRow]
    count: int
    identity: Any
    """What tells them from others, as JSON values."""


def answer(question: Question, flags: argparse.Namespace) -> None:
    """Answers for the texts of the command line or those of a file, printed or written."""
    # For options that are not given the model has values of its own.
    options = {name: value for name in question.options if (value := getattr(flags, name)) is not None}
    if flags.output:
        check_output(flags.output, question.vectors)
    texts = _texts(flags, question)
    command = flags.parser.prog.split()[-1]
    directory = flags.model
    model = {"directory": str(directory.resolve()), "sha256": model_directory.fingerprint(directory)}
    bert = load(directory)
    # Answers and a live line would fight for the terminal.
    watched = bool(texts.source) and (bool(flags.output) or not sys.stdout.isatty())
    asked = _Asked(bert, question, options)
    with _output(flags, asked, texts, {"command": command, "model": model}) as output:
        try:
            with WorkProgress(command, "texts", texts.count, watched, output.written.rows) as progress:
                tell = progress.message if watched else partial(print, file=sys.stderr)
                for answers, truncated in _answers(asked, texts, output.written.rows, tell):
                    output.append(answers, truncated)
                    progress.update(len(answers))
        except KeyboardInterrupt:
            if not flags.output:
                raise
            raise Interrupted(f"the same command goes on after {output.written.rows:,} of {texts.count:,} lines") from None
        _finish(texts, output, flags.output, bert.most_tokens(question.name))


def _texts(flags: argparse.Namespace, question: Question) -> _Texts:
    """The texts that the command line names."""
    of_pairs, must_hold = question.pairs == "required", "[MASK]" * question.masked
    columns = {"--text": flags.text} | ({"--text-pair": flags.text_pair} if getattr(flags, "text_pair", None) else {})
    if bool(flags.texts) == bool(flags.input):
        raise InputError("Give texts or a file of them, or name a file with --input, one of the two.")
    if source := flags.input or _named_file(flags.texts):
        count = count_texts(source, columns)
        state = source.stat()
        identity = {"path": str(source.resolve()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
        return _Texts(source, columns, read_texts(source, columns, must_hold), count, identity)
    if of_pairs and len(flags.texts) != 2:
        raise InputError(f"{flags.parser.prog.split()[-1]} takes two sentences, A and B, not {len(flags.texts)}: quote each of them.")
    rows = [Row(0, tuple(flags.texts))] if of_pairs else [Row(0, (text,)) for text in flags.texts]
    return _Texts(None, columns, iter(rows), len(rows), flags.texts)


def _named_file(texts: list[str]) -> Path | None:
    """The file that stands in the place of texts, if one does."""
    named = [text for text in texts if file_format(Path(text)) in (".txt", *TABLES)]
    files = [text for text in named if _is_file(text)]
    if files and len(texts) > 1:
        raise InputError(f"{files[0]} is a file, and not the only text: give one file alone, or texts.")
    # `reviws.tsv` is a slip, which the reader will name, and no text.
    slip = named == texts and texts[0].isascii() and " " not in texts[0]
    return resolve_path(texts[0]) if files or (slip and len(texts) == 1) else None


def _is_file(text: str) -> bool:
    try:
        return resolve_path(text).is_file()
    except (OSError, InputError):  # too long for a name, or a text that no path looks like
        return False


def _output(flags: argparse.Namespace, asked: _Asked, texts: _Texts, made_by: dict[str, Any]) -> Output:
    """Where the answers go; says what becomes of an unfinished file."""
    if not flags.output:
        return Terminal(_json_lines if flags.json else partial(_shown, asked.question.show))
    belongs_to = made_by | {"input": texts.identity, "columns": texts.columns, "options": asked.options}
    output = AnswerFile(flags.output, belongs_to, (texts.count, asked.bert.width(asked.question.name, **asked.options)))
    if output.refused:
        print(as_typed(f"starts afresh: {output.refused}"), file=sys.stderr)
    elif output.written.rows:
        print(f"continues after {output.written.rows:,} lines", file=sys.stderr)
    return output


def _answers(asked: _Asked, texts: _Texts, skip: int, tell: Callable[[str], None]) -> Iterator[tuple[list[Answer], int]]:
    """Chunk by chunk the records of all rows but the first `skip`, and how many of them were cut."""
    rows = itertools.islice(texts.rows, skip, None)
    bad = 0
    while chunk := list(itertools.islice(rows, CHUNK)):
        truncated = asked.bert.truncated
        with warnings.catch_warnings(action="ignore", category=TruncationWarning):
            answers = _answered(asked, texts.source, chunk)
        faults = [answer for answer in answers if "error" in answer]
        for answer in faults[: max(0, _TOLD - bad)]:
            tell(as_typed(f"{texts.source} line {answer['line']}: {answer['error']}"))
        if bad <= _TOLD < bad + len(faults):
            tell("more bad lines are only counted")
        bad += len(faults)
        yield answers, asked.bert.truncated - truncated


def _answered(asked: _Asked, source: Path | None, rows: list[Row | BadRow]) -> list[Answer]:
    """A record for each row: its texts and what the model says of them, or what is wrong with it."""
    values = {index: row.values for index, row in enumerate(rows) if isinstance(row, Row)}
    records: dict[int, Answer] = {
        index: {"line": row.line, "error": row.problem} for index, row in enumerate(rows) if isinstance(row, BadRow)
    }
    while len(records) < len(rows):
        texts, *pairs = (list(column) for column in zip(*values.values(), strict=True))
        try:
            answers = asked.bert.answer(asked.question.name, texts, pairs[0] if pairs else None, **asked.options)
            found = [asked.question.record(answer) for answer in answers]
        except TextError as error:
            if not source:
                raise InputError(f"The text {texts[error.index]!r} {error.problem}") from None
            index = list(values)[error.index]
            del values[index]
            records[index] = {"line": rows[index].line, "error": error.problem}
            continue
        for (index, own), record in zip(values.items(), found, strict=True):
            line = {"line": rows[index].line} if source else {}
            records[index] = line | dict(zip(("text", "text_pair"), own, strict=False)) | record
    return [records[index] for index in range(len(rows))]


def _finish(texts: _Texts, output: Output, path: Path | None, positions: int) -> None:
    """Ends the output and says what is in it."""
    written = output.written
    if written.rows != texts.count:
        raise InputError(f"{texts.source} was changed while it was read ({texts.count:,} rows, then {written.rows:,}): run again.")
    if written.truncated:
        print(f"{written.truncated:,} of {texts.count:,} texts were cut to the {positions} tokens that the model takes.", file=sys.stderr)
    answered = written.rows - written.bad
    if not answered:
        output.discard()
        raise InputError(
            f"None of the {written.rows:,} lines of {texts.source} could be answered, for the reasons above"
            + (f", so {path} is not written: mend them." if path else ": mend them.")
        )
    output.complete()
    if path or written.bad:
        print(as_typed(f"{answered:,} answers and {written.bad:,} bad lines" + (f" in {path}" if path else "")), file=sys.stderr)


def _json_lines(answers: list[Answer]) -> list[str]:
    lines = [json_line(answer) for answer in answers]
    try:
        "".join(lines).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON has escapes for what the terminal does not know
        lines = [json.dumps(json.loads(line)) for line in lines]
    return lines


def _shown(show: Callable[[list[Answer]], list[str]], answers: list[Answer]) -> list[str]:
    """What a person sees of them; what is wrong with the others was told."""
    good = [answer for answer in answers if "error" not in answer]
    return show(good) if good else []
