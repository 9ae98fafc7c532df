"""Questions and passages as windows of tokens, and the answers as their labels."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bert_jax.data.labelled import LabelledExamples
from bert_jax.data.labelled_batches import EncodedExamples
from bert_jax.data.pairs import Examples
from bert_jax.data.windows import Texts, Windows, read_texts
from bert_jax.errors import InputError, TextError
from bert_jax.tasks.answering.files import NOWHERE

START, END = 1, 2
"""The bits of the label of a token at which the answer starts or ends."""

_LONGEST_QUESTION = 64
"""Tokens of a question that are read (Devlin et al. 2019, code of SQuAD); at most half of a window."""


@dataclass(frozen=True)
class PassageWindows(Windows):
    """Windows of passages, each after its question."""

    passages: Sequence[str] = field(kw_only=True)
    """The passage of each question."""
    passage_ranges: np.ndarray = field(kw_only=True)
    """int64 [questions, 2], the tokens of each passage; questions about the same passage share them."""
    read: Texts = field(kw_only=True)
    """The tokens of all questions and passages."""


@dataclass(frozen=True)
class EncodedQuestions(EncodedExamples):
    """Windows of passages with their answers; `items` count the tokens of passages, each window's after those of the one before it."""

    questions: np.ndarray = field(kw_only=True)
    """int64 [w], the question of each window."""
    sizes: np.ndarray = field(kw_only=True)
    """int64 [w], the number of tokens of the passage in each window."""
    offsets: np.ndarray = field(kw_only=True)
    """int32 [items, 2], start and end (exclusive) of each token in its passage, in characters."""


def encode_passages(questions: Sequence[str], passages: Sequence[str], reader: Any, positions: int) -> PassageWindows:
    """Convert questions and their passages to windows of at most `positions` tokens. Only questions may be truncated, at their ends.

    Raises:
        TextError: a question or a passage has no readable characters, or is not a string.
    """
    for index, pair in enumerate(zip(questions, passages, strict=True)):
        if not all(isinstance(text, str) for text in pair):
            raise TextError(index, f"and its pair are {' and '.join(type(text).__name__ for text in pair)}: pass a question and a passage.")
    distinct = {passage: index for index, passage in enumerate(dict.fromkeys(passages))}
    read = read_texts([*questions, *distinct], reader)
    asked = read.ranges[: len(questions)].copy()
    about = read.ranges[len(questions) :][[distinct[passage] for passage in passages]]
    for ranges, what in ((asked, "is an empty question"), (about, "has an empty passage")):
        if empty := np.flatnonzero(ranges[:, 0] == ranges[:, 1]).tolist():
            problem = f"{what}: it contains no readable characters. Leave it out."
            raise TextError(empty[0], problem, problems=dict.fromkeys(empty, problem))
    longest = min(_LONGEST_QUESTION, (positions - 3) // 2)
    lengths = asked[:, 1] - asked[:, 0]
    asked[:, 1] = asked[:, 0] + np.minimum(lengths, longest)
    windows = Windows.of(read.ids, about, positions, asked)
    fields = {one.name: getattr(windows, one.name) for one in dataclasses.fields(windows)}
    fields |= {"truncated": int((lengths > longest).sum())}
    return PassageWindows(**fields, passages=passages, passage_ranges=about, read=read)


def encode_asked(examples: LabelledExamples, reader: Any, length: int) -> EncodedQuestions:
    """Convert labeled questions to windows of at most `length` tokens, each with the first of its answers that is in the passage.

    A window that does not hold all of the answer is labeled as one without an answer. If none of a question's windows does, because the
    answer is too long or not in the passage, they have the weight 0.

    Raises:
        InputError: a question or a passage has no readable characters.
    """
    if reader.units:
        raise InputError(f"The task answer needs an encoder of text; this one reads {reader.nouns.input}s: choose another finetune.task.")
    passages: list[str] = examples.pairs or []
    try:
        windows = encode_passages(examples.texts, passages, reader, length)
    except TextError as error:
        raise InputError(f"The question {examples.texts[error.index]!r} {error.problem}") from None
    both = np.stack([windows.examples.a, windows.examples.b], 1).reshape(-1, 2)
    # Windows overlap and questions share passages, so each window gets a copy of its tokens.
    sizes = both[:, 1] - both[:, 0]
    ends = np.cumsum(sizes)
    places = np.repeat(both[:, 0] - ends + sizes, sizes) + np.arange(sizes.sum())
    in_passage = np.repeat(np.tile([False, True], len(windows.texts)), sizes)
    copies = np.stack([ends - sizes, ends], 1).reshape(-1, 2, 2)
    shown, own = windows.shown, windows.texts
    first, last = (place[own] for place in _answer_tokens(windows, examples.targets))
    inside = np.flatnonzero((first >= shown[:, 0]) & (first <= last) & (last < shown[:, 1]))
    moved = copies[inside, 1, 0] - shown[inside, 0]
    labels = np.zeros(len(places), np.int32)
    labels[first[inside] + moved] |= START
    labels[last[inside] + moved] |= END
    usable = ~np.array([*map(bool, examples.targets)], np.bool_)
    usable[own[inside]] = True
    return EncodedQuestions(
        Examples(copies[:, 0], copies[:, 1], np.zeros(len(own), np.int32), usable[own].astype(np.float32)),
        windows.tokens[places], windows.read.word_starts[places], windows.truncated,
        token_labels=labels, items=np.where(in_passage, np.cumsum(in_passage) - 1, -1),
        questions=own, sizes=sizes[1::2], offsets=windows.read.offsets[places[in_passage]],
    )  # fmt: skip


def _answer_tokens(windows: PassageWindows, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last token of each question's answer, int64 [n]; -1 if it has none in the passage."""
    offsets = windows.read.offsets
    first, last = (np.full(len(targets), -1, np.int64) for _ in range(2))
    for question, (answers, (begin, end)) in enumerate(zip(targets, windows.passage_ranges.tolist(), strict=True)):
        placed = [(start, start + len(text)) for text, start in answers if start != NOWHERE]
        for start, stop in placed[:1]:
            first[question] = begin + np.searchsorted(offsets[begin:end, 1], start, side="right")
            last[question] = begin + np.searchsorted(offsets[begin:end, 0], stop, side="left") - 1
    return first, last
