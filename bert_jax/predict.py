"""The commands that use a trained model, on texts of the command line or of a file."""

import argparse
import itertools
import json
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bert_jax.data.tables import Row, numbered_lines, read_rows
from bert_jax.errors import InputError
from bert_jax.inference import CHUNK, Bert, TextError, TruncationWarning, load
from bert_jax.progress import WorkProgress

Answer: TypeAlias = dict[str, Any]
"""What is known of a text, as JSON values; `embedding` is an array."""

_TABLES = (".tsv", ".csv", ".jsonl")


def fill_mask(flags: argparse.Namespace) -> None:
    """The likeliest tokens of every [MASK]."""

    def answers(bert: Bert, texts: list[str], _: None) -> list[Answer]:
        return [
            {"masks": [[{"token": p.token, "id": p.id, "probability": round(p.probability, 6)} for p in mask] for mask in masks]}
            for masks in bert.fill_mask(texts, flags.top_k)
        ]

    _run(flags, [(text,) for text in flags.texts], answers, _show_masks, must_hold="[MASK]")


def next_sentence(flags: argparse.Namespace) -> None:
    """The probability that B follows A."""

    def answers(bert: Bert, texts: list[str], pairs: list[str]) -> list[Answer]:
        return [{"probability": round(probability, 6)} for probability in bert.next_sentence(texts, pairs)]

    if len(flags.texts) not in (0, 2):
        raise InputError(f"next-sentence takes two sentences, A and B, not {len(flags.texts)}: quote each of them.")
    _run(flags, [tuple(flags.texts)], answers, _show_pairs)


def embed(flags: argparse.Namespace) -> None:
    """Vectors."""

    def answers(bert: Bert, texts: list[str], _: None) -> list[Answer]:
        return [{"embedding": vector} for vector in bert.embed(texts, flags.pooling)]

    _run(flags, [(text,) for text in flags.texts], answers, _show_vectors)


def classify(flags: argparse.Namespace) -> None:
    """The likeliest class, and the probability of each."""

    def answers(bert: Bert, texts: list[str], pairs: list[str] | None) -> list[Answer]:
        return [
            {"label": found.label, "probabilities": {label: round(p, 6) for label, p in found.probabilities.items()}}
            for found in bert.classify(texts, pairs)
        ]

    _run(flags, [(text,) for text in flags.texts], answers, _show_classes)


def _run(
    flags: argparse.Namespace,
    texts: Sequence[tuple[str, ...]],
    answers: Callable[[Bert, list[str], Any], list[Answer]],
    show: Callable[[list[Answer]], list[str]],
    must_hold: str = "",
) -> None:
    """Answers for the texts of the command line or those of the file, printed or written."""
    if bool(flags.texts) == bool(flags.input):
        raise InputError("Give texts on the command line or a file of them with --input, one of the two.")
    source = flags.input
    columns = {"--text": flags.text} | ({"--text-pair": flags.text_pair} if getattr(flags, "text_pair", None) else {})
    # A fault in the last line is better known before the first hour than after it.
    count = sum(1 for _ in _read(source, columns, must_hold)) if source else len(texts)
    rows = _read(source, columns, must_hold) if source else (Row(0, text) for text in texts)
    bert = load(flags.model)
    watched = bool(flags.output) or not sys.stdout.isatty()
    with (
        warnings.catch_warnings(action="ignore", category=TruncationWarning),
        _writer(flags, show, (count, bert.config.width)) as write,
        WorkProgress(flags.parser.prog.split()[-1], "texts", count, show=bool(source) and watched) as progress,
    ):
        while chunk := list(itertools.islice(rows, CHUNK)):
            write(_answered(bert, chunk, answers, source))
            progress.update(len(chunk))
    if bert.truncated:
        print(f"{bert.truncated:,} of {count:,} texts were cut to the model's {bert.config.max_positions} positions.", file=sys.stderr)


def _answered(bert: Bert, rows: list[Row], answers: Callable[[Bert, list[str], Any], list[Answer]], source: Path | None) -> list[Answer]:
    """The answers of some rows, with the texts they are for."""
    texts, *pairs = (list(values) for values in zip(*(row.values for row in rows), strict=True))
    try:
        found = answers(bert, texts, pairs[0] if pairs else None)
    except TextError as error:
        row = rows[error.index]
        raise InputError(
            f"{source} line {row.line} {error.problem}" if source else f"The text {texts[error.index]!r} {error.problem}"
        ) from None
    return [
        ({"line": row.line} if source else {}) | dict(zip(("text", "text_pair"), row.values, strict=False)) | answer
        for row, answer in zip(rows, found, strict=True)
    ]


def _read(path: Path, columns: Mapping[str, str], must_hold: str) -> Iterator[Row]:
    """The texts of a file: of a table by its columns, of any other every line that is not blank.

    Raises:
        InputError: a fault in the file, named with its line.
    """
    kinds = [suffix for suffix in path.suffixes if suffix not in (".gz", ".xz")]
    if kinds and kinds[-1] in _TABLES:
        rows = read_rows(str(path), columns, split="")
    elif len(columns) > 1:
        raise InputError(f"{path} cannot hold pairs of texts: give them in two columns of a {', '.join(_TABLES)} file.")
    else:
        rows = (Row(number, (line.rstrip("\r\n"),)) for number, line in numbered_lines(path) if line.strip())
    row = None
    for row in rows:
        if not all(text.strip() for text in row.values):
            raise InputError(f"{path} line {row.line} has an empty text: fill it in or remove the line.")
        if must_hold not in row.values[0]:
            raise InputError(f"{path} line {row.line} has no {must_hold}: write {must_hold} where a token is to be filled in.")
        yield row
    if row is None:
        raise InputError(f"{path} holds no text.")


@contextmanager
def _writer(
    flags: argparse.Namespace, show: Callable[[list[Answer]], list[str]], shape: tuple[int, int]
) -> Iterator[Callable[[list[Answer]], None]]:
    """What takes the answers: the terminal or the file of --output, which appears when it is whole (until then .part)."""
    if flags.output is None:
        yield lambda answers: print("\n".join(map(_json, answers) if flags.json else show(answers)))
        return
    path: Path = flags.output
    vectors = show is _show_vectors
    if path.suffix != ".jsonl" and not (vectors and path.suffix == ".npy"):
        raise InputError(f"--output {path} does not end in .jsonl{' or .npy' * vectors}: name such a file.")
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise InputError(f"--output {path} cannot be written: {reason}.")
    part = path.with_name(path.name + ".part")
    if path.suffix == ".npy":
        array = np.lib.format.open_memmap(part, "w+", np.float32, shape)
        starts = itertools.count(0, CHUNK)

        def fill(answers: list[Answer]) -> None:
            start = next(starts)
            array[start : start + len(answers)] = [answer["embedding"] for answer in answers]

        yield fill
        array.flush()
    else:
        with part.open("w", encoding="utf-8") as file:
            yield lambda answers: file.writelines(_json(answer) + "\n" for answer in answers)
    part.replace(path)
    print(f"{shape[0]:,} answers in {path}", file=sys.stderr)


def _json(answer: Answer) -> str:
    return json.dumps(answer, ensure_ascii=False, default=lambda vector: vector.tolist())


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


def _percent(probability: float) -> str:
    return f"{100 * probability:5.1f} %"


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
