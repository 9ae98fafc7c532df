"""Questions about passages, with their answers: files in the layout of SQuAD (also CMRC 2018 and DRCD), and tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bert_jax.data.data_sets import is_data_set
from bert_jax.data.tables import JsonColumn, file_format, read_rows
from bert_jax.errors import InputError
from bert_jax.storage.files import on_disk
from bert_jax.storage.streams import open_bytes

NOWHERE = -1
"""The start of an answer that is not in its passage."""

_START_KEYS = ("answer_start", "start")
_MOST_SHOWN = 60
"""Characters of an answer in a message."""


class TrueAnswer(NamedTuple):
    """An answer as a file gives it, and where it starts in the passage, in characters; `NOWHERE` if it is not in there."""

    text: str
    start: int


class Asked(NamedTuple):
    """A question about a passage. `where` is its place in messages, and `line` its line in a table or its number, from 1, in a .json file.

    Without answers, the passage does not answer it.
    """

    where: str
    line: int
    question: str
    passage: str
    answers: tuple[TrueAnswer, ...]


class Columns(NamedTuple):
    """The columns of a table, or keys of a .jsonl file."""

    question: str = "question"
    passage: str = "passage"
    answers: str = "answers"


@dataclass
class Faults:
    """What was wrong with the answers of a file."""

    moved: int = 0
    """Answers that were not at their offset, but elsewhere in the passage."""
    nowhere: int = 0
    """Answers that are not in the passage."""
    left_out: int = 0
    """Questions of the training file that are not used for training: they are empty, or none of their answers is in the passage."""

    def remarks(self, source: str) -> tuple[str, ...]:
        """Return what to report, as sentences."""
        counted = {
            "of its answers are not at their offset and were found nearby": self.moved,
            "of its answers are not in their passage": self.nowhere,
            "of its questions are not used for training: they are empty, or none of their answers is in the passage": self.left_out,
        }
        return tuple(f"{source}: {count:,} {what}." for what, count in counted.items() if count)


@dataclass(frozen=True)
class QuestionFiles:
    """Reads files of questions.

    Args:
        columns: the columns of tables.
        misplaced: what to do with an answer that is not at its offset: `search` for it nearby, or `refuse` the file.
        training: leave out empty questions, and count those of which no answer is in the passage: nothing can be learned from them, but
            cross-validation scores them.
        faults: counts what was wrong.
    """

    columns: Columns
    misplaced: Literal["search", "refuse"]
    training: bool
    faults: Faults

    def read(self, source: str, split: str = "train") -> Iterator[Asked]:
        """Yield the questions of a .json file in the layout of SQuAD, or of a table, which is read by `bert_jax.data.tables.read_rows`.

        In a table, the answers are a list in JSON: of texts, or of objects with `text` and `start` (or `answer_start`); or one object of
        lists, as in Hugging Face data sets; or a single text. Without an offset, an answer is where it first occurs.

        Raises:
            InputError: the file cannot be read or is malformed; a question or passage is empty; or an answer is not in its place and
                that is refused.
        """
        is_json = not is_data_set(source) and file_format(Path(source)) == ".json"
        empty = True
        for one in squad_questions(source) if is_json else self._table(source, split):
            empty = False
            asked = self._checked(one)
            if self.training:
                empty_question = not asked.question.strip()
                nowhere = bool(asked.answers) and all(answer.start == NOWHERE for answer in asked.answers)
                self.faults.left_out += empty_question or nowhere
                if empty_question:
                    continue
            elif not asked.question.strip():
                raise InputError(f"{asked.where} has an empty question, which has no answer to score: fill it in or remove it.")
            yield asked
        if empty:
            raise InputError(f"{source} contains no questions.")

    def _checked(self, one: Given) -> Asked:
        """Return a question after checking its texts and locating its answers."""
        where, line, question, passage, answers, _ = one
        for text in (question, passage, *(answer.text for answer in answers)):
            if not _is_unicode(text):
                raise InputError(f"{where} has a text with an unpaired surrogate, which is not a character: {text[:_MOST_SHOWN]!a}.")
        if not passage.strip():
            raise InputError(f"{where} has no passage: its text is empty. Fill it in or remove the question.")
        located = tuple(self._located(answer, passage, where) for answer in answers if answer.text.strip())
        return Asked(where, line, question, passage, located)

    def _located(self, answer: _GivenAnswer, passage: str, where: str) -> TrueAnswer:
        text = answer.text.strip()
        start = answer.start
        if start is not None:
            start += len(answer.text) - len(answer.text.lstrip())
            if start >= 0 and passage.startswith(text, start):
                return TrueAnswer(text, start)
        found = nearest(text, passage, start or 0)
        if start is not None and self.misplaced == "refuse":
            there = passage[max(0, start) : max(0, start) + len(text)]
            raise InputError(
                f"{where} has the answer {_shown(text)} at character {answer.start} of its passage, but there is {_shown(there)}"
                + (f", and the answer is at {found}" if found >= 0 else ", and it is nowhere else")
                + ". Correct it, or set --config.finetune.task.misplaced=search to look for such answers nearby."
            )
        self.faults.nowhere += found < 0
        self.faults.moved += found >= 0 and start is not None
        return TrueAnswer(text, found)

    def _table(self, source: str, split: str) -> Iterator[Given]:
        columns = {
            "finetune.data.text": self.columns.question,
            "finetune.data.text_pair": self.columns.passage,
            "finetune.task.answers": JsonColumn(self.columns.answers),
        }
        for line, (question, passage, answers) in read_rows(source, columns, split):
            where = f"{source} line {line}"
            yield Given(where, line, question, passage, _answers(_json(answers, where, self.columns.answers), where), None)


class _GivenAnswer(NamedTuple):
    text: str
    start: int | None


class Given(NamedTuple):
    """A question as a file gives it, with its id in a file in the layout of SQuAD; see `Asked`."""

    where: str
    line: int
    question: str
    passage: str
    answers: tuple[_GivenAnswer, ...]
    id: str | int | None


def squad_questions(source: str) -> Iterator[Given]:
    """Yield the questions of a file in the layout of SQuAD, as they are.

    Raises:
        InputError: the file cannot be read or has another layout.
    """
    number = 0
    articles = _list(_content(source), "data", source)
    for article_number, article in enumerate(articles, 1):
        title = f" ({article['title']!r})" if isinstance(article, Mapping) and isinstance(article.get("title"), str) else ""
        where = f"{source} article {article_number}{title}"
        for paragraph_number, paragraph in enumerate(_list(article, "paragraphs", where), 1):
            inside = f"{where}, paragraph {paragraph_number},"
            questions = _list(paragraph, "qas", inside)
            passage = _text(paragraph, "context", inside)
            for question_number, question in enumerate(questions, 1):
                number += 1
                yield _squad_question(question, passage, inside, question_number, number)


def nearest(text: str, passage: str, start: int) -> int:
    """Return where the text occurs in the passage, nearest to `start`; `NOWHERE` if it does not."""
    before, after = passage.rfind(text, 0, max(0, start) + len(text)), passage.find(text, max(0, start))
    found = [position for position in (before, after) if position >= 0]
    return min(found, key=lambda position: abs(position - start), default=NOWHERE)


def _content(source: str) -> Any:
    with open_bytes(on_disk(source, "The file of questions")) as file:
        content = file.read()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 (byte {error.start:,}): convert it, for example with `iconv -t UTF-8`.") from None
    except RecursionError:
        raise InputError(f"{source} is not usable JSON: it is nested too deeply. Check that it is a file of questions.") from None
    except ValueError as error:
        raise InputError(
            f"{source} is not JSON ({error}): download it again, or name it .jsonl if every line is an object of its own."
        ) from error


def _squad_question(question: Any, passage: str, where: str, number: int, line: int) -> Given:
    if not isinstance(question, Mapping):
        raise InputError(f"{where} question {number} is not an object with the keys question and answers: correct the file.")
    name = question.get("id")
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise InputError(f"{where} question {number} has no id: add one, a string or an integer.")
    where = f"{where} question {name!r}"
    answers = _answers(question.get("answers"), where)
    if (impossible := question.get("is_impossible", False)) not in (True, False):
        raise InputError(f"{where} has is_impossible={impossible!r}: use true or false.")
    if impossible and answers:
        raise InputError(f"{where} has answers although is_impossible is true: remove the answers, or set it to false.")
    return Given(where, line, _text(question, "question", where), passage, answers, name)


def _list(owner: Any, key: str, where: str) -> Sequence[Any]:
    if not isinstance(owner, Mapping) or not isinstance(owner.get(key), list):
        keys = f"; its keys are {', '.join(map(repr, [*owner][:20]))}" if isinstance(owner, Mapping) else ""
        raise InputError(
            f"{where} has no list {key!r}{keys}. The layout of SQuAD is data > paragraphs (context) > qas (id, question, answers): convert "
            "the file, or use a .jsonl file with question, passage and answers in every line."
        )
    found: list[Any] = owner[key]
    return found


def _text(owner: Mapping[str, Any], key: str, where: str) -> str:
    text = owner.get(key)
    if not isinstance(text, str):
        problem = f"no {key!r}" if text is None else f"a {key!r} that is not text but {type(text).__name__}"
        raise InputError(f"{where} has {problem}: add it to the file, or remove the entry.")
    return text


def _json(text: str, where: str, column: str) -> Any:
    """Return the answers of a row: a list or an object in JSON, or a single text."""
    if not text.lstrip().startswith(("[", "{")):
        return [text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} has answers in the column {column!r} that are not JSON ({error}): write a list of texts, or of objects with text "
            "and start."
        ) from error


def _answers(given: Any, where: str) -> tuple[_GivenAnswer, ...]:
    """Return answers from a list of texts, a list of objects, an object of lists, or None."""
    if isinstance(given, Mapping) and isinstance(texts := given.get("text"), list):
        starts = next((given[key] for key in _START_KEYS if key in given), [None] * len(texts))
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise InputError(f"{where} has answers with different numbers of texts and starts: give each text one start.")
        given = [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]
    if given is None:
        return ()
    if not isinstance(given, list):
        raise InputError(f"{where} has answers that are not a list but {type(given).__name__}: write a list, which may be empty.")
    return tuple(_answer(one, where) for one in given)


def _answer(given: Any, where: str) -> _GivenAnswer:
    if not isinstance(given, Mapping):
        given = {"text": given}
    text, start = given.get("text"), next((given[key] for key in _START_KEYS if key in given), None)
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = str(text)  # in some files, the answer 1066 is a number
    if not isinstance(text, str):
        raise InputError(f"{where} has an answer whose text is not a string ({str(text)[:_MOST_SHOWN]!r}): add its text, or remove it.")
    if start is not None and (not isinstance(start, int) or isinstance(start, bool)):
        raise InputError(f"{where} has the answer {_shown(text)} with the start {start!r}: use a number of characters, or leave it out.")
    return _GivenAnswer(text, start)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
