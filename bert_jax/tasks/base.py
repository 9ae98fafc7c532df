"""The interface of a task: what a model learns, what it answers, and what is shown of it.

`bert_jax.tasks.TASKS` lists those that come along; a program hands in others (`load(path, tasks=[...])`). Importing a task imports
neither JAX nor Flax, so that `--help` and configurations stay fast; its functions do, where they need them.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from bert_jax.config import FinetuneConfig, TaskOptions
from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.display import Curve, Figure, Json, Matrix, Panel, Table, integer, number, shortened
from bert_jax.tasks.published import Published

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.config import ComputeConfig
    from bert_jax.data.labelled import Labelled, LabelReader
    from bert_jax.data.queries import BatchShapes, Queries
    from bert_jax.modalities.text.tokenizer import Tokenizer
    from bert_jax.model.directory import ModelDescription
    from bert_jax.training.objective import Objective

O = TypeVar("O", bound=TaskOptions)  # noqa: E741
Lines = Sequence[Json]
Answers: TypeAlias = "Sequence[Any] | np.ndarray"
"""One for each text."""


class Forward(Protocol):
    """A model on its devices: `bert_jax.inference.forward.Forward`."""

    model: Any
    params: Any
    shapes: BatchShapes

    def of_examples(self, queries: Queries, work: Callable[[Any], Any]) -> Finish[np.ndarray]:
        """What `work` makes of a batch [B, E, ...], for each example [n, ...]."""

    def vectors(self, queries: Queries, modes: tuple[str, ...], layer: int | None, skipped: int = 0) -> Finish[np.ndarray]:
        """Pooled hidden states of each example, float32 [n, D * modes]."""

    def at_masked(self, queries: Queries, head: Callable[..., Any]) -> Finish[Any]:
        """What `head(hidden, rows, columns, which)` makes of the masked tokens, for each of them [c, ...]."""

    def encode(self, batch: Any) -> Any:
        """The hidden states [B, L, D] of a batch."""


@dataclass(frozen=True)
class Loaded:
    """A trained model as a question sees it."""

    forward: Forward
    tokenizer: Tokenizer
    description: ModelDescription


class Ask(Protocol):
    """Works on texts chunk by chunk: what `start` makes of each chunk, end to end."""

    def __call__(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None,
        start: Callable[[Queries], Finish[Answers]],
        masked: bool = False,
        most_tokens: int = 0,
    ) -> list[Answers]: ...


class Question(ABC):
    """Something that a model answers about texts: a method of the loaded model, and a command.

    Attributes:
        name: of the method; the command has dashes.
        help: what the command does.
        examples: arguments of the command, for its help.
        parts: the heads that it needs, by the top-level names of their parameters.
        pairs: whether each text has a second one.
        masked: texts are asked about their [MASK]s, around which they are cut.
        options: names of its own keyword arguments, which `add_options` adds to the command.
        vectors: its answers are vectors, which a .npy file can hold.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]] = ()
    pairs: ClassVar[Literal["none", "optional", "required"]] = "none"
    masked: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()
    vectors: ClassVar[bool] = False

    def add_options(self, command: argparse.ArgumentParser) -> None:  # noqa: B027  # most have none
        """Adds the flags of its options to its command."""

    def fault(self, description: ModelDescription) -> str:
        """Why a model of its task, with the heads that it needs, cannot answer it all the same; empty where it can."""
        del description
        return ""

    @abstractmethod
    def start(self, model: Loaded, **options: Any) -> Callable[[Queries], Finish[Answers]]:
        """Checks the options, and gives what sends a chunk of texts to the devices.

        Raises:
            InputError: an option that the model cannot follow.
        """

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[str], pairs: Iterable[str] | None, **options: Any) -> Answers:
        """The answers of all texts, in their order."""
        return [answer for chunk in ask(texts, pairs, self.start(model, **options), masked=self.masked) for answer in chunk]

    @abstractmethod
    def record(self, answer: Any) -> dict[str, Any]:
        """An answer as JSON values, for a line of a file."""

    @abstractmethod
    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Lines for a person about records, which hold `text` and, of pairs, `text_pair` too."""

    def width(self, model: Loaded, **options: Any) -> int:
        """How many numbers each of its vectors has."""
        del model, options
        return 0

    def most_tokens(self, model: Loaded) -> int:
        """The tokens to which it cuts a text."""
        return model.description.encoder.max_positions


class Task(ABC):
    """What a model has learned.

    Attributes:
        kind: its name in files.
        noun: a model of it, for messages, such as "a classifier".
        stage: the folder of a run where such a model is.
        best: whether the model is its best checkpoint, not its newest.
        questions: what its models answer.
        published: the classes of `transformers` that its models can be written as and read from; the first has all of its parts.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    stage: ClassVar[str]
    best: ClassVar[bool]
    questions: ClassVar[tuple[Question, ...]] = ()
    published: ClassVar[tuple[Published, ...]] = ()

    @abstractmethod
    def model(self, description: ModelDescription, vocab_size: int, compute: ComputeConfig, head_dropout: float = 0.0) -> Any:
        """The Flax module for a token table of so many rows."""

    def unpublished(self, description: ModelDescription) -> str:
        """Why no class of `transformers` computes what this model does, as the end of a sentence about it; empty where one does."""
        del description
        return ""

    def figures(self, result: Json) -> list[Figure]:
        """The numbers of a finished stage (`result.json`)."""
        del result
        return []

    def curves(self, result: Json) -> list[Curve]:
        """What to draw of its metrics."""
        del result
        return [Curve("Loss", "loss")]

    def tables(self, result: Json) -> list[Table | Matrix]:
        """Tables below the curves."""
        del result
        return []

    def panels(self, examples: Mapping[str, Lines]) -> list[Panel]:
        """The examples of a run (`examples.json`), as far as they are its own."""
        del examples
        return []

    def example_lines(self, examples: Mapping[str, Lines]) -> list[str]:
        """The same as lines of a terminal."""
        del examples
        return []

    def summary_lines(self, result: Json) -> list[str]:
        """The numbers of a finished stage as lines of a terminal."""
        shown = [figure for figure in self.figures(result) if figure.value]
        return [f"{figure.name:20}{figure.value}" + f" ({figure.beside})" * bool(figure.beside) for figure in shown]


class Scorer(Protocol):
    """Takes in predictions of test examples, batch by batch."""

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Predictions [k, ...] of some examples, int64 [k]."""

    def result(self) -> dict[str, Any]:
        """The scores, as JSON values."""

    def line(self, example: int) -> dict[str, Any]:
        """What `predictions.jsonl` says of an example, beside its text."""


class Need(NamedTuple):
    """A head of the pre-trained model, the option that asks for it, and an override that does without."""

    part: str
    option: str
    otherwise: str


class FinetuningTask(Task, Generic[O]):
    """What an encoder is fine-tuned for, on labelled texts or pairs of texts.

    Attributes:
        name: on the command line, as `finetune.task=NAME`.
        options: its options.
        scores: names of the scores that are compared with training from scratch; the first is the one it is judged by.
        metric: the held-out metric by which the best checkpoint is chosen, unless `score` says otherwise.
    """

    name: ClassVar[str]
    options: type[O]
    scores: ClassVar[tuple[str, ...]]
    metric: ClassVar[str]
    stage = "finetune"
    best = True

    @abstractmethod
    def labels(self, options: O) -> LabelReader:
        """Reads its labels out of the columns of a table."""

    @abstractmethod
    def describe(self, options: O, labels: Sequence[str]) -> dict[str, Any]:
        """The fields of `ModelDescription` that are its own; `labels` are the names of the labels, if they have names."""

    @abstractmethod
    def measure(self, predictions: Any, batch: Any) -> Any:
        """The metric `loss`, and others, of what the model gives for a batch; see `bert_jax.training.objective.ExampleObjective`."""

    def objective(self, model: Any) -> Objective:
        """What a training step computes; by default `measure` over the labelled examples."""
        from bert_jax.training.objective import ExampleObjective

        return ExampleObjective(model, self.measure)

    def predict(self, model: Any, params: Any, batch: Any) -> Any:
        """Predictions [B, E, ...] for the examples of a batch, inside jit; by default the model's output."""
        return model.apply({"params": params}, batch)

    def score(self, held_out: Mapping[str, float]) -> float:
        """How good held-out metrics are; higher is better."""
        return held_out[self.metric]

    @abstractmethod
    def scorer(self, labelled: Labelled, options: O) -> Scorer:
        """Compares predictions with the targets of the test examples."""

    def needs(self, options: O) -> tuple[Need, ...]:
        """Heads of the pre-trained model that training starts from, such as the pooler."""
        del options
        return ()

    def flops(self, description: ModelDescription, stage: FinetuneConfig) -> int:
        """Floating-point operations of a training step; by default those of the encoder."""
        from bert_jax.model.flops import training_flops

        return training_flops(description.encoder, 0, stage.batch_size, stage.length, masked=0, examples=0)

    def remarks(self, labelled: Labelled) -> tuple[str, ...]:
        """What a person should know of the labels, in sentences, before training."""
        del labelled
        return ()

    def about_data(self, labelled: Labelled) -> dict[str, Any]:
        """What `result.json` says of the labels, beside the scores."""
        del labelled
        return {}

    def figures(self, result: Json) -> list[Figure]:
        """Every score, with what pre-training gave, and how many examples there were."""
        found = []
        for name in self.scores:
            score, scratch = number(result, name), number(result, f"from_scratch_{name}")
            beside = "" if score is None or scratch is None else f"from scratch {scratch:.3f}"
            found.append(Figure(f"Test {name.replace('_', ' ')}", "" if score is None else f"{score:.3f}", beside))
        examples = integer(number(result, "train_examples"))
        return [*found, Figure("Labelled examples", examples, f"tested on {integer(number(result, 'test_examples'))}")]

    def curves(self, result: Json) -> list[Curve]:
        """The metric by which the best checkpoint is chosen, and the loss."""
        return [Curve(self.metric.replace("_", " ").capitalize(), self.metric), *super().curves(result)]

    def example(self, line: Json) -> dict[str, Any]:
        """A line of `predictions.jsonl` as an example of `examples.json`."""
        return {name: value for name, value in line.items() if name != "text_pair"} | {"text": _both(line)}

    def example_lines(self, examples: Mapping[str, Lines]) -> list[str]:
        """What was predicted of each example."""
        lines = [
            f"  {'  '.join(f'{name} {value}' for name, value in one.items() if name != 'text')}  {shortened(str(one['text']))}"
            for one in examples.get(self.name, ())
        ]
        return ["", "Test texts and their predictions:", *lines] if lines else []


def _both(line: Json) -> str:
    return str(line["text"]) + (f" | {line['text_pair']}" if "text_pair" in line else "")
