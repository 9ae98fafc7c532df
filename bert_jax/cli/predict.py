"""Runs the commands that use a trained model, on texts or paths from the command line or a file."""

import argparse
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bert_jax.data.nouns import Nouns
from bert_jax.data.tables import TABLES, BadRow, ListColumn, Row, file_format
from bert_jax.errors import InputError, Interrupted, as_typed
from bert_jax.inference import CHUNK, Bert, TextError, TruncationWarning, load
from bert_jax.inference.answer_files import (
    SIDES,
    Answer,
    AnswerFile,
    Output,
    OwnRows,
    Terminal,
    check_ids,
    check_output,
    count_texts,
    json_line,
    read_texts,
)
from bert_jax.model import directory as model_directory
from bert_jax.runtime.programs import keep_programs
from bert_jax.runtime.progress import WorkProgress
from bert_jax.storage.files import on_disk, resolve_path
from bert_jax.tasks.question import Question

_MOST_REPORTED = 20
"""Number of invalid lines that are reported individually; further ones are only counted."""


@dataclass(frozen=True)
class _Request:
    """A model, the question it answers, and the question's options."""

    bert: Bert
    question: Question
    options: dict[str, Any]
    identity: dict[str, Any]
    """Identifies the options, as JSON values."""


@dataclass(frozen=True)
class _Texts:
    """The input of a command: a file, or texts from the command line."""

    source: Path | None
    columns: dict[str, str]
    given: list[Row]
    count: int
    identity: Any
    """Identifies the input, as JSON values."""
    own: OwnRows | None = None
    """Reads the file, if its layout is that of the task."""

    def rows(self, noun: str) -> Iterator[Row | BadRow]:
        """Yield every row; `noun` is what a row has one or two of."""
        return read_texts(self.source, self.columns, noun, self.own) if self.source else iter(self.given)


def answer(group: Sequence[Question], flags: argparse.Namespace) -> None:
    """Answer a question about the texts given on the command line or in a file, and print the answers or write them to a file.

    Args:
        group: the questions of the command's name, each of models of another task.
        flags: the parsed command line.
    """
    question = group[0]
    # The model has its own defaults for options that are not given.
    options = {name: value for one in group for name in one.options if (value := getattr(flags, name)) is not None}
    if flags.output:
        check_output(flags.output, question.vectors, bool(question.by_id))
    texts = _texts(flags, question)
    command = flags.parser.prog.split()[-1]
    directory = flags.model
    model = {"directory": str(directory.resolve()), "sha256": model_directory.fingerprint(directory)}
    # An unfinished file of an earlier version was computed with the defaults, and names no engine.
    model |= {name: value for name, value in (("engine", flags.engine), ("dtype", flags.dtype)) if value not in ("jax", None)}
    keep_programs()
    bert = load(directory, engine=flags.engine, dtype=flags.dtype)
    for text in () if texts.source or bert.tokenizer.units else filter(_is_file, flags.texts):
        print(as_typed(f"{text} is a file, but it is read as a text: to read its lines, name it with --input."), file=sys.stderr)
    # No progress line if the answers are printed to the terminal: they would overwrite each other.
    show_progress = bool(texts.source) and (bool(flags.output) or not sys.stdout.isatty())
    files = {name: on_disk(options[name], "The path") for name in question.files}
    given = {name: _all_texts(file, flags.text, bert) for name, file in files.items()}
    identity = options | {name: _identity(file) for name, file in files.items()}
    request = _Request(bert, bert.question(question.name), _prepared(bert, question.name, options | given), identity)
    with _output(flags, request, texts, {"command": command, "model": model}) as output:
        try:
            with WorkProgress(command, f"{bert.tokenizer.nouns.input}s", texts.count, show_progress, output.written.rows) as progress:
                report = progress.message if show_progress else partial(print, file=sys.stderr)
                for answers, truncated in _answer_chunks(request, texts, output.written.rows, report):
                    output.append(answers, truncated)
                    progress.update(len(answers))
        except KeyboardInterrupt:
            if not flags.output:
                raise
            raise Interrupted(f"the same command resumes after {output.written.rows:,} of {texts.count:,} lines") from None
        _finish(texts, output, flags.output, bert.tokenizer.nouns, bert.max_tokens(question.name))


def _texts(flags: argparse.Namespace, question: Question) -> _Texts:
    """Return the texts that the command line gives or names."""
    pair, second = getattr(flags, "pair", False), getattr(flags, "text_pair", None)
    columns = {"--text": ListColumn(flags.text) if question.lists else flags.text} | ({"--text-pair": second} if second else {})
    if bool(flags.texts) == bool(flags.input):
        raise InputError("Give either texts or paths (or a file of them) as arguments, or a file with --input, but not both.")
    if source := flags.input or _named_file(flags.texts, question.formats):
        if pair:
            raise InputError(f"--pair is for two texts, but {source} is a file: name the column of the second text with --text-pair.")
        if flags.output and flags.output.resolve() == source.resolve():
            raise InputError(f"--output {flags.output} is the file to read: name another one.")
        is_own = file_format(source) in question.formats
        own = partial(question.rows, result=model_directory.finished(flags.model) or {}) if is_own else None
        # Before the model is loaded, which takes longer than finding out that the file cannot be read.
        if flags.output and flags.output.suffix == ".json":
            check_ids(source, own, flags.output)
        columns = {} if own else columns
        return _Texts(source, columns, [], count_texts(source, columns, own), _identity(source), own)
    if flags.output and flags.output.suffix == ".json":
        check_ids(None, None, flags.output)
    of_pairs = pair or question.pairs == "required"
    if second and not of_pairs:
        raise InputError("--text-pair names a column of a file. For a pair of texts, give both as arguments, with --pair.")
    if of_pairs and len(flags.texts) != 2:
        command = flags.parser.prog.split()[-1]
        given = f"{len(flags.texts)} argument{'s' * (len(flags.texts) != 1)}"
        raise InputError(f"{command} takes {question.sides}, not {given}. Quote each one.")
    rows = [Row(0, tuple(flags.texts))] if of_pairs else [Row(0, (text,)) for text in flags.texts]
    return _Texts(None, columns, rows, len(rows), [flags.texts] if pair else flags.texts)


def _identity(source: Path) -> dict[str, Any]:
    """Identify the content of a file, as JSON values."""
    state = source.stat()
    return {"path": str(source.resolve()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}


def _prepared(bert: Bert, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options after work that need not be repeated, and report how many texts were truncated in it."""
    with warnings.catch_warnings(action="ignore", category=TruncationWarning):
        options = bert.prepared(name, **options)
    if bert.truncated:
        nouns = bert.tokenizer.nouns
        limit = f"the model's limit of {bert.max_tokens(name)} {nouns.token}s"
        print(f"{bert.truncated:,} of the {nouns.input}s to search were truncated to {limit}.", file=sys.stderr)
    return options


def _all_texts(source: Path, column: str, bert: Bert) -> list[Any]:
    """Return all texts of a file.

    Raises:
        InputError: a line cannot be read.
    """
    count_texts(source, {"--text": column})
    texts = []
    for row in read_texts(source, {"--text": column}, bert.tokenizer.nouns.input):
        if isinstance(row, BadRow):
            raise InputError(f"{source} line {row.line} {row.problem}")
        texts.append(bert.tokenizer.listed(row.values[0], source.parent))
    return texts


def _named_file(texts: list[str], formats: Iterable[str]) -> Path | None:
    """Return the path of the input file if `texts` is the name of one, otherwise None; `formats` are further suffixes of such files."""
    named = [text for text in texts if file_format(Path(text)) in (".txt", *TABLES, *formats)]
    files = [text for text in named if _is_file(text)]
    if files and len(texts) > 1:
        raise InputError(f"{files[0]} is a file, but it is not the only argument. Give a single file, or only texts or paths.")
    # `reviws.tsv` is a misspelled file name, which reading it will report, rather than a text.
    misspelled = named == texts and texts[0].isascii() and " " not in texts[0]
    return resolve_path(texts[0]) if files or (misspelled and len(texts) == 1) else None


def _is_file(text: str) -> bool:
    try:
        return resolve_path(text).is_file()
    except (OSError, InputError):  # too long for a file name, or not a valid path
        return False


def _output(flags: argparse.Namespace, request: _Request, texts: _Texts, origin: dict[str, Any]) -> Output:
    """Open the destination of the answers, and report whether an unfinished file is resumed or started over."""
    if not flags.output:
        return Terminal(_json_lines if flags.json else partial(_readable_lines, request.question.show))
    belongs_to = origin | {"input": texts.identity, "columns": texts.columns, "options": request.identity}
    by_id = request.question.by_id
    output = AnswerFile(flags.output, belongs_to, (texts.count, request.bert.width(request.question.name, **request.options)), by_id)
    if output.refused:
        print(as_typed(f"starting over: {output.refused}"), file=sys.stderr)
    elif output.written.rows:
        print(f"resuming after {output.written.rows:,} lines", file=sys.stderr)
    return output


def _answer_chunks(request: _Request, texts: _Texts, skip: int, report: Callable[[str], None]) -> Iterator[tuple[list[Answer], int]]:
    """Yield, chunk by chunk, the records of all rows after the first `skip`, and how many of the chunk's texts were truncated."""
    rows = itertools.islice(texts.rows(request.bert.tokenizer.nouns.input), skip, None)
    invalid = 0
    while chunk := list(itertools.islice(rows, CHUNK)):
        truncated = request.bert.truncated
        with warnings.catch_warnings(action="ignore", category=TruncationWarning):
            answers = _answer_rows(request, texts.source, chunk)
        errors = [answer for answer in answers if "error" in answer]
        for answer in errors[: max(0, _MOST_REPORTED - invalid)]:
            report(as_typed(f"{texts.source} line {answer['line']}: {answer['error']}"))
        if invalid <= _MOST_REPORTED < invalid + len(errors):
            report("further invalid lines are counted but not listed")
        invalid += len(errors)
        yield answers, request.bert.truncated - truncated


def _answer_rows(request: _Request, source: Path | None, rows: list[Row | BadRow]) -> list[Answer]:
    """Return a record for each row: its texts and the model's answer, or an error that says what is wrong with the row."""
    reader = request.bert.tokenizer
    values = {index: row.values for index, row in enumerate(rows) if isinstance(row, Row)}
    if source and file_format(source) in TABLES:
        values = {index: tuple(map(request.question.given, own)) for index, own in values.items()}
    records: dict[int, Answer] = {
        index: {"line": row.line, "error": row.problem} for index, row in enumerate(rows) if isinstance(row, BadRow)
    }
    while len(records) < len(rows):
        typed = zip(*(own[:SIDES] for own in values.values()), strict=True)
        texts, *pairs = ([reader.listed(text, source.parent) if source else text for text in column] for column in typed)
        try:
            answers = request.bert.ask(request.question.name, texts, pairs[0] if pairs else None, **request.options)
            found = [request.question.record(answer) for answer in answers]
        except TextError as error:
            if not source:
                raise InputError(f"The {error.noun} {texts[error.index]!r} {error.problem}") from None
            indices = list(values)
            for number, problem in error.problems.items():
                index = indices[number]
                del values[index]
                records[index] = {"line": rows[index].line, "error": problem}
            continue
        for (index, own), record in zip(values.items(), found, strict=True):
            line = ({"line": rows[index].line} if source else {}) | ({"id": own[SIDES]} if len(own) > SIDES else {})
            records[index] = line | dict(zip(("text", "text_pair"), map(str, own), strict=False)) | record
    return [records[index] for index in range(len(rows))]


def _finish(texts: _Texts, output: Output, path: Path | None, nouns: Nouns, positions: int) -> None:
    """Complete the output and report what it holds."""
    written = output.written
    if written.rows != texts.count:
        raise InputError(
            f"{texts.source} changed while it was being read ({texts.count:,} rows, then {written.rows:,}). Run the same command again."
        )
    if written.truncated:
        limit = f"the model's limit of {positions} {nouns.token}s"
        print(f"{written.truncated:,} of {texts.count:,} {nouns.input}s were truncated to {limit}.", file=sys.stderr)
    answered = written.rows - written.bad
    if not answered:
        output.discard()
        raise InputError(
            f"None of the {written.rows:,} lines of {texts.source} could be answered, for the reasons above"
            + (f", so {path} was not written." if path else ".")
            + " Fix them and run the same command again."
        )
    output.complete()
    if path or written.bad:
        counts = f"{answered:,} answer{'s' * (answered != 1)}, {written.bad:,} invalid line{'s' * (written.bad != 1)}"
        print(as_typed(counts + (f" in {path}" if path else "")), file=sys.stderr)


def _json_lines(answers: list[Answer]) -> list[str]:
    return [json_line(answer, sys.stdout.encoding or "utf-8") for answer in answers]


def _readable_lines(show: Callable[[list[Answer]], list[str]], answers: list[Answer]) -> list[str]:
    """Return the lines that show the answers to a person; errors have already been reported."""
    answered = [answer for answer in answers if "error" not in answer]
    return show(answered) if answered else []
