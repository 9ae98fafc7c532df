"""The commands that use a trained model, on texts of the command line or of a file."""

import argparse
import itertools
import json
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
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

_TOLD = 20
"""Bad lines of a file that are told one by one; the others are only counted."""


@dataclass(frozen=True)
class _Task:
    """What a command makes of texts."""

    answers: Callable[[Bert, list[str], Any], list[Answer]]
    show: Callable[[list[Answer]], list[str]]
    options: Mapping[str, Any]
    """What was asked for, of the arguments of the model's method."""
    must_hold: str = ""
    of_pairs: bool = False
    """Whether texts of the command line are two sentences, A and B."""


@dataclass(frozen=True)
class _Texts:
    """What a command works on: a file, or texts of the command line."""

    source: Path | None
    columns: dict[str, str]
    rows: Iterator[Row | BadRow]
    count: int
    identity: Any
    """What tells them from others, as JSON values."""


def fill_mask(flags: argparse.Namespace) -> None:
    """The likeliest tokens of every [MASK]."""
    options = _given(flags, "top_k", "words")

    def answers(bert: Bert, texts: list[str], _: None) -> list[Answer]:
        return [
            {"masks": [[{"token": p.token, "id": p.id, "probability": round(p.probability, 6)} for p in mask] for mask in masks]}
            for masks in bert.fill_mask(texts, **options)
        ]

    _run(flags, _Task(answers, _show_masks, options, must_hold="[MASK]"))


def next_sentence(flags: argparse.Namespace) -> None:
    """The probability that B follows A."""

    def answers(bert: Bert, texts: list[str], pairs: list[str]) -> list[Answer]:
        return [{"probability": round(probability, 6)} for probability in bert.next_sentence(texts, pairs)]

    _run(flags, _Task(answers, _show_pairs, {}, of_pairs=True))


def embed(flags: argparse.Namespace) -> None:
    """Vectors."""
    options = _given(flags, "pooling", "layer", "normalize", "prompt", "prompt_name")

    def answers(bert: Bert, texts: list[str], _: None) -> list[Answer]:
        return [{"embedding": vector} for vector in bert.embed(texts, **options)]

    _run(flags, _Task(answers, _show_vectors, options))


def classify(flags: argparse.Namespace) -> None:
    """The likeliest class, and the probability of each."""

    def answers(bert: Bert, texts: list[str], pairs: list[str] | None) -> list[Answer]:
        return [
            {"label": found.label, "probabilities": {label: round(p, 6) for label, p in found.probabilities.items()}}
            for found in bert.classify(texts, pairs)
        ]

    _run(flags, _Task(answers, _show_classes, {}))


def score(flags: argparse.Namespace) -> None:
    """How likely the model holds each text."""

    def answers(bert: Bert, texts: list[str], _: None) -> list[Answer]:
        return [{"score": round(found, 6)} for found in bert.score(texts)]

    _run(flags, _Task(answers, _show_scores, {}))


def _given(flags: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that were given; for the others the model has values of its own."""
    return {name: value for name in names if (value := getattr(flags, name)) is not None}


def _run(flags: argparse.Namespace, task: _Task) -> None:
    """Answers for the texts of the command line or those of a file, printed or written."""
    if flags.output:
        check_output(flags.output, vectors=task.show is _show_vectors)
    texts = _texts(flags, task)
    command = flags.parser.prog.split()[-1]
    directory = flags.model
    model = {"directory": str(directory.resolve()), "sha256": model_directory.fingerprint(directory)}
    bert = load(directory)
    # Answers and a live line would fight for the terminal.
    watched = bool(texts.source) and (bool(flags.output) or not sys.stdout.isatty())
    size = bert.vector_size(task.options.get("pooling"))
    with _output(flags, task, texts, {"command": command, "model": model}, size) as output:
        try:
            with WorkProgress(command, "texts", texts.count, watched, output.written.rows) as progress:
                tell = progress.message if watched else partial(print, file=sys.stderr)
                for answers, truncated in _answers(bert, task, texts, output.written.rows, tell):
                    output.append(answers, truncated)
                    progress.update(len(answers))
        except KeyboardInterrupt:
            if not flags.output:
                raise
            raise Interrupted(f"the same command goes on after {output.written.rows:,} of {texts.count:,} lines") from None
        _finish(texts, output, flags.output, bert.embedding_length if task.show is _show_vectors else bert.config.max_positions)


def _texts(flags: argparse.Namespace, task: _Task) -> _Texts:
    """The texts that the command line names."""
    columns = {"--text": flags.text} | ({"--text-pair": flags.text_pair} if getattr(flags, "text_pair", None) else {})
    if bool(flags.texts) == bool(flags.input):
        raise InputError("Give texts or a file of them, or name a file with --input, one of the two.")
    if source := flags.input or _named_file(flags.texts):
        count = count_texts(source, columns)
        state = source.stat()
        identity = {"path": str(source.resolve()), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
        return _Texts(source, columns, read_texts(source, columns, task.must_hold), count, identity)
    if task.of_pairs and len(flags.texts) != 2:
        raise InputError(f"next-sentence takes two sentences, A and B, not {len(flags.texts)}: quote each of them.")
    rows = [Row(0, tuple(flags.texts))] if task.of_pairs else [Row(0, (text,)) for text in flags.texts]
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


def _output(flags: argparse.Namespace, task: _Task, texts: _Texts, made_by: dict[str, Any], width: int) -> Output:
    """Where the answers go; says what becomes of an unfinished file."""
    if not flags.output:
        return Terminal(_json_lines if flags.json else partial(_shown, task.show))
    belongs_to = made_by | {"input": texts.identity, "columns": texts.columns, "options": dict(task.options)}
    output = AnswerFile(flags.output, belongs_to, (texts.count, width))
    if output.refused:
        print(as_typed(f"starts afresh: {output.refused}"), file=sys.stderr)
    elif output.written.rows:
        print(f"continues after {output.written.rows:,} lines", file=sys.stderr)
    return output


def _answers(bert: Bert, task: _Task, texts: _Texts, skip: int, tell: Callable[[str], None]) -> Iterator[tuple[list[Answer], int]]:
    """Chunk by chunk the records of all rows but the first `skip`, and how many of them were cut."""
    rows = itertools.islice(texts.rows, skip, None)
    bad = 0
    while chunk := list(itertools.islice(rows, CHUNK)):
        truncated = bert.truncated
        with warnings.catch_warnings(action="ignore", category=TruncationWarning):
            answers = _answered(bert, task, texts.source, chunk)
        faults = [answer for answer in answers if "error" in answer]
        for answer in faults[: max(0, _TOLD - bad)]:
            tell(as_typed(f"{texts.source} line {answer['line']}: {answer['error']}"))
        if bad <= _TOLD < bad + len(faults):
            tell("more bad lines are only counted")
        bad += len(faults)
        yield answers, bert.truncated - truncated


def _answered(bert: Bert, task: _Task, source: Path | None, rows: list[Row | BadRow]) -> list[Answer]:
    """A record for each row: its texts and what the model says of them, or what is wrong with it."""
    values = {index: row.values for index, row in enumerate(rows) if isinstance(row, Row)}
    records: dict[int, Answer] = {
        index: {"line": row.line, "error": row.problem} for index, row in enumerate(rows) if isinstance(row, BadRow)
    }
    while len(records) < len(rows):
        texts, *pairs = (list(column) for column in zip(*values.values(), strict=True))
        try:
            found = task.answers(bert, texts, pairs[0] if pairs else None)
        except TextError as error:
            if not source:
                raise InputError(f"The text {texts[error.index]!r} {error.problem}") from None
            index = list(values)[error.index]
            del values[index]
            records[index] = {"line": rows[index].line, "error": error.problem}
            continue
        for (index, own), answer in zip(values.items(), found, strict=True):
            line = {"line": rows[index].line} if source else {}
            records[index] = line | dict(zip(("text", "text_pair"), own, strict=False)) | answer
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


def _show_masks(answers: list[Answer]) -> list[str]:
    """Below each text a column for every mask."""
    lines = []
    for answer in answers:
        lines.append(answer["text"])
        columns = [_column(mask) for mask in answer["masks"]]
        lines += ["  " + "    ".join(cells) for cells in zip(*columns, strict=True)]
    return lines


def _column(mask: list[dict[str, Any]]) -> list[str]:
    width = max(_width(prediction["token"]) for prediction in mask)
    return [_padded(prediction["token"], width) + "  " + _percent(prediction["probability"]) for prediction in mask]


def _show_pairs(answers: list[Answer]) -> list[str]:
    return [f"{_percent(answer['probability'])}  {answer['text']} | {answer['text_pair']}" for answer in answers]


def _show_classes(answers: list[Answer]) -> list[str]:
    width = max(_width(label) for label in answers[0]["probabilities"])
    return [
        f"{_padded(answer['label'], width)}  {_percent(answer['probabilities'][answer['label']])}  {answer['text']}"
        + (f" | {answer['text_pair']}" if "text_pair" in answer else "")
        for answer in answers
    ]


def _show_vectors(answers: list[Answer]) -> list[str]:
    return [
        f"{answer['text']}\n  {' '.join(f'{x:.3f}' for x in answer['embedding'][:8])} … "
        f"({len(answer['embedding'])} numbers; all of them with --json or --output)"
        for answer in answers
    ]


def _show_scores(answers: list[Answer]) -> list[str]:
    return [f"{answer['score']:8.2f}  {answer['text']}" for answer in answers]


def _percent(probability: float) -> str:
    return f"{100 * probability:5.1f} %"


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
