"""The interface of a task: what a model learns, which questions it answers, and how its results are displayed.

`bert_jax.tasks.TASKS` lists the built-in tasks; a program passes its own with `load(path, tasks=[...])`. Importing a task must not
import JAX or Flax, so that `--help` and configurations load quickly; its functions import them where needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from bert_jax.config import FinetuneConfig, TaskOptions
from bert_jax.tasks.display import Curve, Figure, Json, Panel, Shown, integer, nouns, number, shortened
from bert_jax.tasks.published import Published
from bert_jax.tasks.question import Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.config import ComputeConfig
    from bert_jax.data.labelled import Labelled, LabelledExamples, LabelReader, ReadRows
    from bert_jax.data.labelled_batches import EncodedExamples
    from bert_jax.model.directory import ModelDescription
    from bert_jax.model.flops import StepFlops
    from bert_jax.training.augmentation import Augment
    from bert_jax.training.objective import Objective

O = TypeVar("O", bound=TaskOptions)  # noqa: E741
Lines = Sequence[Json]


class Task(ABC):
    """A task that a model is trained for.

    Attributes:
        kind: the task's name in files.
        noun: a noun phrase for its models in messages, such as "a classifier".
        stage: the folder of a run that contains its models.
        best: whether the best checkpoint is used as the model, instead of the newest.
        questions: the questions that its models answer.
        published: the `transformers` classes that its models can be exported to and imported from; the first one has all parts.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    stage: ClassVar[str]
    best: ClassVar[bool]
    questions: ClassVar[tuple[Question, ...]] = ()
    published: ClassVar[tuple[Published, ...]] = ()

    @abstractmethod
    def model(self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0) -> Any:
        """Return the Flax module for a token table with `vocab_size` rows."""

    def why_not_exportable(self, description: ModelDescription) -> str:
        """Return why no `transformers` class is equivalent to this model, as the predicate of a sentence; empty if there is one."""
        del description
        return ""

    def figures(self, result: Json) -> list[Figure]:
        """Return the main results of a finished stage (`result.json`)."""
        del result
        return []

    def curves(self, result: Json) -> list[Curve]:
        """Return the metrics to plot."""
        del result
        return [Curve("Loss", "loss")]

    def tables(self, result: Json) -> list[Shown]:
        """Return the tables shown below the curves."""
        del result
        return []

    def panels(self, examples: Json) -> list[Panel]:
        """Return the task's own examples from those of a run (`examples.json`)."""
        del examples
        return []

    def example_lines(self, examples: Json) -> list[str]:
        """Return the task's own examples as lines for the terminal."""
        del examples
        return []

    def summary_lines(self, result: Json) -> list[str]:
        """Return the main results of a finished stage as lines for the terminal."""
        shown = [figure for figure in self.figures(result) if figure.value]
        column = max([18, *(len(figure.name) for figure in shown)]) + 2
        return [f"{figure.name:{column}}{figure.value}" + f" ({figure.comparison})" * bool(figure.comparison) for figure in shown]


class Scorer(Protocol):
    """Accumulates predictions for the test examples, batch by batch."""

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Add the predictions `found` [k, ...] for the examples (or `EncodedExamples.items`) with these indices, int64 [k]."""

    def result(self) -> dict[str, Any]:
        """Return the scores as JSON values."""

    def line(self, example: int) -> dict[str, Any]:
        """Return the fields of an example's line in `predictions.jsonl`, other than its text."""


@runtime_checkable
class Tuned(Protocol):
    """A scorer that first chooses something on the held-out examples, such as a threshold."""

    def tune(self, targets: np.ndarray | None, found: np.ndarray) -> None:
        """Choose it by the predictions `found` [n, ...] for held-out examples with these `targets` [n, ...]; tuples may be left out.

        Called before the predictions of a model are added, so several times if those of several models are scored together.
        """


class Need(NamedTuple):
    """A required head of the pre-trained model, the option that requires it, and an override that avoids it."""

    part: str
    option: str
    otherwise: str


class FinetuningTask(Task, Generic[O]):
    """A task for which an encoder is fine-tuned on labeled texts or pairs of texts.

    Attributes:
        name: the task's name on the command line (`finetune.task=NAME`).
        options: the class of the task's options.
        scores: names of the scores that are compared with training from scratch; the first is the primary score.
        titles: titles of scores in the report; by default, their names.
        metric: the held-out metric that selects the best checkpoint, unless `score` is overridden.
    """

    name: ClassVar[str]
    options: type[O]
    scores: ClassVar[tuple[str, ...]]
    titles: ClassVar[Mapping[str, str]] = MappingProxyType({})
    metric: ClassVar[str]
    stage = "finetune"
    best = True

    @abstractmethod
    def labels(self, options: O) -> LabelReader:
        """Return the reader that extracts the labels from the columns of a table."""

    def read_rows(self, options: O) -> ReadRows | None:
        """Return the function that reads labeled rows of the task's own file formats; None for those of every task."""
        del options
        return None

    def encode(self, examples: LabelledExamples, reader: Any, length: int) -> EncodedExamples:
        """Tokenize labeled examples for rows of `length` tokens; by default, each is truncated to a row."""
        from bert_jax.data.labelled_batches import encode_examples

        return encode_examples(examples, reader, length)

    @abstractmethod
    def describe(self, options: O, labels: Sequence[str]) -> dict[str, Any]:
        """Return the task's own fields of `ModelDescription`; `labels` are the label names, if any."""

    def description(self, stage: FinetuneConfig, encoder: ModelDescription, labels: Sequence[str]) -> ModelDescription:
        """Return the description of the model that the stage trains, on the encoder of another one; `describe` has the task's own fields.

        Raises:
            InputError: the task's options do not fit the stage.
        """
        from bert_jax.model.directory import ModelDescription

        own = self.describe(cast(O, stage.task), labels)
        return ModelDescription(self.kind, encoder.encoder, stage.length, spare_rows=encoder.spare_rows, input=encoder.input, **own)

    def inputs(self, examples: LabelledExamples) -> tuple[LabelledExamples, int]:
        """Return the examples as rows hold them, and how many consecutive ones belong together: they are put in the same batch.

        By default, an example is a text or a pair, and belongs to no other. Predictions are made for the examples returned.
        """
        return examples, 1

    @abstractmethod
    def objective(self, model: Any, options: O, labelled: Labelled, augmentation: Augment | None = None) -> Objective:
        """Return the training objective, which changes training batches by `augmentation`."""

    def initialized(self, params: Any, train: LabelledExamples) -> Any:
        """Return the initial parameters, given random ones; by default, these. The head may start with what is right on average."""
        del train
        return params

    def predict(self, model: Any, params: Any, batch: Any) -> Any:
        """Return predictions [B, E, ...] or [B, L, ...] for a batch; called inside jit. By default, the model's output."""
        return model.apply({"params": params}, batch)

    def gathered(
        self, stage: FinetuneConfig, examples: LabelledExamples, reader: Any, items: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Convert predictions for all examples to what the scorer takes, such as those of several windows to one of their text.

        Args:
            stage: the configuration of the stage.
            examples: the dev or the test examples.
            reader: the vocabulary.
            items: int64 [k], what each prediction is about: an example, or one of `EncodedExamples.items`.
            found: [k, ...], the predictions.

        Returns:
            The arguments of `Scorer.add`; by default, `items` and `found`.
        """
        del stage, examples, reader
        return items, found

    def score(self, held_out: Mapping[str, float]) -> float:
        """Return the score that selects the best checkpoint from held-out metrics; higher is better."""
        return held_out[self.metric]

    def item_counts(self, examples: LabelledExamples) -> Sequence[int]:
        """Return how many predictions each example has in `Scorer.add`, such as one per word; by default, one per input."""
        return [self.inputs(examples)[1]] * len(examples)

    @abstractmethod
    def scorer(self, labelled: Labelled, options: O) -> Scorer:
        """Return the scorer that compares predictions with the targets of the test examples."""

    def needs(self, options: O) -> tuple[Need, ...]:
        """Return the heads that the pre-trained model must have, such as the pooler."""
        del options
        return ()

    def flops(self, description: ModelDescription, stage: FinetuneConfig) -> StepFlops:
        """Return the FLOPs of a training step; by default, those of the encoder."""
        from bert_jax.model.flops import training_flops

        del stage
        return training_flops(description.encoder, 0, masked=0, examples=0, units=description.input.units)

    def memory_advice(self, stage: FinetuneConfig) -> str:
        """Return advice for a step that does not fit in memory, ending in `or `, if the task has a setting of its own for that."""
        del stage
        return ""

    def linear_scores(self, labelled: Labelled, features: Callable[[], tuple[Any, Any]]) -> dict[str, float]:
        """Return scores of a linear model; none if the task has no such model.

        Args:
            features: returns the plain features [n, F] of the training and of the test examples.
        """
        del labelled, features
        return {}

    def remarks(self, labelled: Labelled) -> tuple[str, ...]:
        """Return remarks about the labels, as sentences, to report before training."""
        del labelled
        return ()

    def encoder_remarks(self, options: O, encoder: ModelDescription) -> tuple[str, ...]:
        """Return remarks about the pre-trained model, as sentences, to report before training."""
        del options, encoder
        return ()

    def data_fields(self, labelled: Labelled) -> dict[str, Any]:
        """Return fields about the labels to add to the scores in `result.json`."""
        del labelled
        return {}

    def figures(self, result: Json) -> list[Figure]:
        """Return every score, compared with training from scratch and with a linear model, and the number of examples."""
        figures = []
        for name in self.scores:
            score, others = number(result, name), {"from scratch": f"from_scratch_{name}", "linear model": f"linear_{name}"}
            compared = [f"{other} {found:.3f}" for other, key in others.items() if (found := number(result, key)) is not None]
            title = self.titles.get(name, f"Test {name.replace('_', ' ')}")
            figures.append(Figure(title, "" if score is None else f"{score:.3f}", ", ".join(compared)))
        examples = integer(number(result, "train_examples"))
        return [*figures, Figure("Labeled examples", examples, f"tested on {integer(number(result, 'test_examples'))}")]

    def curves(self, result: Json) -> list[Curve]:
        """Return the metric that selects the best checkpoint, and the loss."""
        return [Curve(self.metric.replace("_", " ").capitalize(), self.metric), *super().curves(result)]

    def example(self, line: Json) -> dict[str, Any]:
        """Convert a line of `predictions.jsonl` to an example of `examples.json`."""
        return {name: value for name, value in line.items() if name != "text_pair"} | {"text": _full_text(line)}

    def example_lines(self, examples: Json) -> list[str]:
        """Return each example with its prediction."""
        lines = [
            f"  {'  '.join(f'{name} {value}' for name, value in one.items() if name != 'text')}  {shortened(str(one['text']))}"
            for one in examples.get(self.name, ())
        ]
        return ["", f"Test {nouns(examples).input}s and their predictions:", *lines] if lines else []


class MeasuredTask(FinetuningTask[O]):
    """A task whose objective depends only on the model's outputs and the labels of a batch."""

    @abstractmethod
    def measure(self, predictions: Any, batch: Any) -> Any:
        """Return `loss` and other metrics of the model's output for a batch; see `bert_jax.training.objective.ExampleObjective`."""

    def objective(self, model: Any, options: O, labelled: Labelled, augmentation: Augment | None = None) -> Objective:
        """Return `measure` over the labeled examples."""
        del options, labelled
        from bert_jax.training.objective import ExampleObjective

        return ExampleObjective(model, self.measure, augmentation=augmentation)


def _full_text(line: Json) -> str:
    return str(line["text"]) + (f" | {line['text_pair']}" if "text_pair" in line else "")
