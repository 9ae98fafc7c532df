"""Extractive question answering: the part of a passage that answers a question, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from bert_jax.tasks import display
from bert_jax.tasks.answering.options import AnsweringOptions
from bert_jax.tasks.answering.questions import HEAD, AnswerQuestion
from bert_jax.tasks.base import MeasuredTask
from bert_jax.tasks.display import Curve, Example, Guess, Json, Mark, Marked, Panel, Shown, Table, number
from bert_jax.tasks.published import ENCODER, Published

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.config import ComputeConfig, FinetuneConfig
    from bert_jax.data.labelled import Labelled, LabelledExamples, ReadRows
    from bert_jax.model.bert import TokenModel
    from bert_jax.model.directory import ModelDescription
    from bert_jax.tasks.answering.labels import AnswerReader
    from bert_jax.tasks.answering.passages import EncodedQuestions
    from bert_jax.tasks.answering.scores import AnswerScorer


class AnsweringTask(MeasuredTask[AnsweringOptions]):
    """The start and the end of the answer among the tokens of a passage, or [CLS] for none (Devlin et al. 2019, sections 4.2 and 4.3).

    Long passages are read in windows.
    """

    name, kind, noun = "answer", "answering", "a question answering model"
    options = AnsweringOptions
    metric, scores = "accuracy", ("f1", "exact_match")
    titles: ClassVar[Mapping[str, str]] = {"f1": "Test F1 of answers", "exact_match": "Test exact match of answers"}
    questions = (AnswerQuestion(),)
    # transformers 5 has no pipeline for it.
    published = (Published("ForQuestionAnswering", (*ENCODER, HEAD)),)

    def model(self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0) -> TokenModel:
        """Return the Flax module."""
        from bert_jax.model.bert import TokenModel

        return TokenModel(vocab_size, description.encoder, compute, 2, HEAD, head_dropout, input=description.input)

    def labels(self, options: AnsweringOptions) -> AnswerReader:
        """Return the reader of answers."""
        from bert_jax.tasks.answering.labels import AnswerReader

        return AnswerReader(options)

    def read_rows(self, options: AnsweringOptions) -> ReadRows:
        """Return the function that reads questions and passages."""
        from bert_jax.tasks.answering.labels import read_asked

        return partial(read_asked, options=options)

    def encode(self, examples: LabelledExamples, reader: Any, length: int) -> EncodedQuestions:
        """Tokenize questions and passages as windows of at most `length` tokens."""
        from bert_jax.tasks.answering.passages import encode_asked

        return encode_asked(examples, reader, length)

    def describe(self, options: AnsweringOptions, labels: Sequence[str]) -> dict[str, Any]:
        """Return nothing: the model has two outputs without names."""
        return {}

    def measure(self, predictions: Any, batch: Any) -> Any:
        """Return the cross-entropy, and the share of windows whose answer is right."""
        from bert_jax.tasks.answering.outputs import span_metrics

        return span_metrics(predictions, batch)

    def predict(self, model: Any, params: Any, batch: Any) -> Any:
        """Return the logits of each token and of its example's [CLS], float32 [B, L, 4]."""
        from bert_jax.tasks.answering.outputs import span_logits

        return span_logits(model, params, batch)

    def gathered(
        self, stage: FinetuneConfig, examples: LabelledExamples, reader: Any, items: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the best answer to each question, from the logits of the tokens of all its windows."""
        from bert_jax.tasks.answering.scores import judged

        assert isinstance(stage.task, AnsweringOptions)
        return judged(stage.task, examples, self.encode(examples, reader, stage.length), items, found)

    def scorer(self, labelled: Labelled, options: AnsweringOptions) -> AnswerScorer:
        """Return a scorer for exact match and F1."""
        from bert_jax.tasks.answering.scores import AnswerScorer

        return AnswerScorer(labelled, options)

    def data_fields(self, labelled: Labelled) -> dict[str, Any]:
        """Return the number of training questions that have an answer."""
        return {"answerable_train_examples": sum(map(bool, labelled.train.targets))}

    # --- Display ---

    def curves(self, result: Json) -> list[Curve]:
        """Return the share of windows whose answer is right, and the loss."""
        return [Curve("Windows with the right answer", "accuracy", percent=True), Curve("Loss", "loss")]

    def tables(self, result: Json) -> list[Shown]:
        """Return the scores of questions with and without an answer, if there are both."""
        total, answerable = (number(result, name) for name in ("test_examples", "answerable_test_examples"))
        if total is None or answerable is None or number(result, "has_answer_f1") is None:
            return []
        rows = [
            (title, *(display.percent(number(result, part + name)) for name in ("exact_match", "f1")), display.integer(count))
            for title, part, count in (("with an answer", "has_answer_", answerable), ("without", "no_answer_", total - answerable))
        ]
        return [Table("Questions with and without an answer", ("questions", "exact match", "F1", "test questions"), rows)]

    def example(self, line: Json) -> dict[str, Any]:
        """Return the line: its question and its passage are shown apart."""
        return dict(line)

    def panels(self, examples: Mapping[str, Sequence[Json]]) -> list[Panel]:
        """Return questions with their passages, in which the answer of the model is marked, and the true answers where it is wrong."""
        shown = []
        for one in examples.get(self.name) or []:
            predicted, true = one.get("predicted"), [str(text) for text in one.get("answers") or ()]
            right = bool(one.get("exact_match"))
            marks = [] if predicted is None else [Mark(int(one["start"]), int(one["end"]), "", right)]
            guesses = [] if predicted is None else [Guess(str(predicted), display.probability(one.get("probability")), right)]
            texts: list[str | Marked] = [str(one["text"])]
            texts.append(Marked(str(one["text_pair"]), marks, "" if predicted is not None else "no answer found"))
            texts += [] if right else ["Expected: " + (", ".join(dict.fromkeys(true)) or "no answer")]
            shown.append(Example(texts, (guesses,) if guesses else ()))
        return [Panel("Answered questions", shown)]

    def example_lines(self, examples: Mapping[str, Sequence[Json]]) -> list[str]:
        """Return questions with the answers of the model and the true ones, one line per question."""
        lines = [
            f"  {display.shortened(str(one['text']))}  {_shown(one['predicted'])}"
            + f" (true: {_shown(next(iter(one['answers']), None))})"
            for one in examples.get(self.name, ())
        ]
        return ["", "Test questions and their answers:", *lines] if lines else []


def _shown(answer: str | None) -> str:
    return "no answer" if answer is None else display.shortened(answer, 40)


ANSWERING = AnsweringTask()
