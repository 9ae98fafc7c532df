"""The question that question answering models answer."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish
from bert_jax.runtime.terminal import percent
from bert_jax.tasks.display import Json
from bert_jax.tasks.question import Ask, Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.reader import Reader
    from bert_jax.data.tables import Row
    from bert_jax.tasks.answering.passages import PassageWindows
    from bert_jax.tasks.answering.spans import Spans

HEAD = "span"
MAX_ANSWER_TOKENS = "max_answer_tokens"
THRESHOLD = "no_answer_threshold"
"""The names of what a model's result says about how it answers."""
_MAX_ANSWER_TOKENS = 30
"""For models without such a result, which were imported (Devlin et al. 2019, code of SQuAD)."""


@dataclass(frozen=True)
class Answer:
    """The part of a passage that answers a question: `text` is `start` to `end` (exclusive, in characters) of it."""

    text: str
    start: int
    end: int
    probability: float


class AnswerQuestion(Question):
    """The part of each passage that answers a question, or None if the passage does not answer it."""

    name = "answer"
    help = "answer questions with parts of passages"
    windowed = True
    examples = (
        "runs/answers/finetune '房间怎么样？' '服务不错,房间很干净,早餐一般。'",
        "runs/answers/finetune questions.jsonl --text question --text-pair passage --output answers.jsonl",
        "runs/answers/finetune questions.json --output found.json",
    )
    parts = (HEAD,)
    pairs = "required"
    sides = "a question and a passage"
    options = ("threshold", "max_answer_tokens")
    formats: ClassVar[Mapping[str, str]] = {".json": "in the layout of SQuAD"}
    by_id = "answer"

    def rows(self, path: Path, result: Json) -> Iterator[Row]:
        """Yield the questions of a file in the layout of SQuAD with passages and ids; the number of a question stands for its line."""
        del result
        from bert_jax.data.tables import Row
        from bert_jax.tasks.answering.files import squad_questions

        return (Row(one.line, (one.question, one.passage, one.id)) for one in squad_questions(str(path)))

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add --threshold and --max-answer-tokens."""
        command.add_argument(
            "--threshold", type=float, metavar="SCORE",
            help="give no answer if the score of no answer exceeds that of the best answer by more than this (default: tuned on the dev "
            "set, if the model was trained on questions without answers)",
        )  # fmt: skip
        command.add_argument(
            "--max-answer-tokens", type=int, metavar="N", help="maximum number of tokens in an answer (default: as in training)"
        )

    def encode(self, texts: Sequence[Any], pairs: Sequence[Any] | None, reader: Reader, positions: int, /) -> PassageWindows:
        """Convert questions and passages to windows, so that no passage is truncated.

        Raises:
            TextError: a question or a passage is not a string, or has no readable characters.
        """
        from bert_jax.tasks.answering.passages import encode_passages

        if pairs is None:
            raise InputError("answer needs a passage for each question: give one as the second text.")
        return encode_passages(texts, pairs, reader, positions)

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[Any], pairs: Iterable[Any] | None, **options: Any) -> list[Answer | None]:
        """Return the answers to all questions, in input order."""
        start = self.start(model, **options)
        return [answer for chunk in ask(texts, pairs, start, self.encode, self.max_tokens(model)) for answer in chunk]

    def max_tokens(self, model: Loaded) -> int:
        """Return the length of windows in training, for which the threshold was tuned."""
        return min(model.description.length, super().max_tokens(model))

    def start(
        self, model: Loaded, threshold: float | None = None, max_answer_tokens: int | None = None, **_: Any
    ) -> Callable[[PassageWindows], Finish[list[Answer | None]]]:
        """Return a function that answers a chunk of questions."""
        from bert_jax.tasks.answering.outputs import span_logits

        forward, result = model.forward, model.result
        level = result.get(THRESHOLD) if threshold is None else threshold
        longest = int(result.get(MAX_ANSWER_TOKENS, _MAX_ANSWER_TOKENS)) if max_answer_tokens is None else max_answer_tokens
        if level is not None and math.isnan(level):
            raise InputError("threshold=nan is not a number: give one, such as 0.")
        if longest < 1:
            raise InputError(f"max_answer_tokens={longest} leaves no answer: give a number of at least 1.")

        def start(windows: PassageWindows) -> Finish[list[Answer | None]]:
            finish = forward.per_token(windows, lambda batch: span_logits(forward.model, forward.params, batch))
            return lambda: _answers(windows, finish(), longest, level)

        return start

    def record(self, answer: Answer | None) -> dict[str, Any]:
        """Return a record with `answer`, which may be null, and its `start`, `end` and `probability`."""
        if answer is None:
            return {"answer": None}
        return {"answer": answer.text, "start": answer.start, "end": answer.end, "probability": round(answer.probability, 6)}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return the answer with its probability, and the question, one line per record."""
        found = ("no answer" if one["answer"] is None else f"{percent(one['probability'])}  {one['answer']}" for one in records)
        return [f"{answer}  ({one['text']})" for answer, one in zip(found, records, strict=True)]


def answers(passages: Sequence[str], best: Spans, offsets: np.ndarray) -> list[Answer]:
    """Return the answers to questions.

    Args:
        passages: the passage of each question.
        best: the best span of tokens for each question.
        offsets: int32 [t, 2], start and end of each token of the windows in its passage.
    """
    places = zip(passages, offsets[best.first, 0].tolist(), offsets[best.last, 1].tolist(), best.probabilities.tolist(), strict=True)
    return [Answer(passage[start:end], start, end, probability) for passage, start, end, probability in places]


def _answers(windows: PassageWindows, found: np.ndarray, max_tokens: int, threshold: float | None) -> list[Answer | None]:
    """Return the answer to each question, if any, from the logits of all tokens of the windows, float32 [t, 4]."""
    import numpy as np

    from bert_jax.tasks.answering.spans import best_spans

    shown = windows.shown
    sizes = shown[:, 1] - shown[:, 0]
    steps = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    best = best_spans(found[np.repeat(windows.cells[:, 0], sizes) + steps], sizes, windows.texts, max_tokens)
    possible = answers(windows.passages, best, windows.read.offsets[np.repeat(shown[:, 0], sizes) + steps])
    if threshold is None:
        return [*possible]
    return [answer if margin <= threshold else None for answer, margin in zip(possible, best.none_margins.tolist(), strict=True)]
