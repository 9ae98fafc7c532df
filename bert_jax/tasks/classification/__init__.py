"""Classification of texts, or pairs of texts, into one of several classes, such as sentiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from bert_jax.config.checks import require
from bert_jax.runtime.ahead import Finish
from bert_jax.runtime.terminal import padded, percent, width
from bert_jax.tasks import display
from bert_jax.tasks.display import Curve, Example, Figure, Guess, Json, Matrix, Panel, Shown, Table
from bert_jax.tasks.influence import Influence
from bert_jax.tasks.pooled import PARTS, PooledOptions, PooledTask, published, text_of
from bert_jax.tasks.question import Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.labelled import Labelled
    from bert_jax.data.queries import Queries
    from bert_jax.tasks.classification.labels import ClassLabels
    from bert_jax.tasks.classification.scores import ClassScorer
    from bert_jax.training.augmentation import Augment
    from bert_jax.training.objective import Objective


@dataclass(frozen=True)
class ClassificationOptions(PooledOptions):
    """Options of single-label classification: each example has exactly one of several classes."""

    name: Literal["classification"] = field(default="classification", init=False)
    label: str = "label"
    """Name of the column that contains the class."""
    labels: tuple[str, ...] = ()
    """The values of the label column, in class order. If empty, they are taken from the training file and sorted; labels such as `1` and
    `1.0` in the same file are then rejected as two spellings of one label. In a .jsonl file, `true` and `"true"` are the same label."""

    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` gives every class the same share in the loss, however many training examples it has."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes, in the loss."""

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "it must be at least 0 and less than 1.")
        require(len(self.labels) != 1, "labels", self.labels, "name at least two labels, or none to use those in the file.")
        for label in self.labels:
            require(bool(label.strip()), "labels", label, "every class needs a name.")
            require(label == label.strip(), "labels", label, "remove the surrounding whitespace; labels are read from files without it.")
        repeated = [label for label, count in Counter(self.labels).items() if count > 1]
        require(not repeated, "labels", ", ".join(repeated), "name each class once.")

    def columns(self) -> Mapping[str, str]:
        """Return the column of the class."""
        return {"label": self.label}


@dataclass(frozen=True)
class Classification:
    """The most probable class of a text, and the probability of every class."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Classify(Question):
    """The class of each text, or of each pair of texts."""

    name = "classify"
    help = "classify texts, images or recordings"
    examples = (
        "runs/demo/finetune '房间很干净' '再也不来了'",
        "runs/demo/finetune reviews.tsv --text text --output classified.jsonl",
        "runs/images_labeled/finetune photos/0.png photos/1.png",
        "runs/audio_labeled/finetune clips.csv --text path --output classified_clips.jsonl",
    )
    parts = PARTS
    pairs = "optional"

    def start(self, model: Loaded, **options: Any) -> Callable[[Queries], Finish[list[Classification]]]:
        """Return a function that classifies a chunk of texts."""
        from bert_jax.tasks.classification.objective import class_probabilities

        labels, forward = model.description.labels, model.forward

        def classes(probabilities: np.ndarray) -> list[Classification]:
            best = probabilities.argmax(1).tolist()
            rows = zip(best, probabilities.tolist(), strict=True)
            return [Classification(labels[top], row[top], dict(zip(labels, row, strict=True))) for top, row in rows]

        def start(queries: Queries) -> Finish[list[Classification]]:
            finish = forward.per_example(queries, partial(class_probabilities, forward.model, forward.params))
            return lambda: classes(finish())

        return start

    def portable(self, model: Loaded) -> Json:
        """Return the function."""
        return {"as": "classes"}

    def record(self, answer: Classification) -> dict[str, Any]:
        """Return a record with `label` and `probabilities`."""
        return {"label": answer.label, "probabilities": {label: round(p, 6) for label, p in answer.probabilities.items()}}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return the class, its probability and the text, one line per record."""
        columns = max(width(label) for label in records[0]["probabilities"])
        return [
            f"{padded(one['label'], columns)}  {percent(one['probabilities'][one['label']])}  {text_of(one)}" for one in records
        ]


class ClassificationTask(PooledTask[ClassificationOptions]):
    """Classification with cross-entropy loss (Devlin et al. 2019, section 4.1)."""

    name, kind, noun = "classify", "classification", "a classifier"
    options = ClassificationOptions
    metric, scores = "accuracy", ("accuracy", "macro_f1")
    questions = (Classify(), Influence())
    published = (published("single_label_classification"),)

    def labels(self, options: ClassificationOptions) -> ClassLabels:
        """Return the reader that extracts classes from the label column."""
        from bert_jax.tasks.classification.labels import ClassLabels

        return ClassLabels(options.label, options.labels)

    def describe(self, options: ClassificationOptions, labels: Sequence[str]) -> dict[str, Any]:
        """Return the class names and the pooling."""
        return {"labels": tuple(labels), "pooling": options.pooling}

    def objective(
        self, model: Any, options: ClassificationOptions, labelled: Labelled, augmentation: Augment | None = None
    ) -> Objective:
        """Return cross-entropy with the options' class weights and label smoothing."""
        from bert_jax.tasks.classification.objective import balanced, measure
        from bert_jax.training.objective import ExampleObjective

        targets, names = labelled.train.targets, labelled.label_names
        weights = balanced(targets, len(names)) if options.class_weights == "balanced" else ()
        loss = partial(measure, class_weights=weights, smoothing=options.label_smoothing)
        return ExampleObjective(model, loss, augmentation=augmentation)

    def predict(self, model: Any, params: Any, batch: Any) -> Any:
        """Return the probability of each class, float32 [B, E, C]."""
        from bert_jax.tasks.classification.objective import class_probabilities

        return class_probabilities(model, params, batch)

    def scorer(self, labelled: Labelled, options: ClassificationOptions) -> ClassScorer:
        """Return a scorer for accuracy, macro F1 and confusions."""
        from bert_jax.tasks.classification.scores import ClassScorer

        return ClassScorer(labelled.test.targets, labelled.label_names)

    def linear_scores(self, labelled: Labelled, features: Callable[[], tuple[Any, Any]]) -> dict[str, float]:
        """Return the accuracy of logistic regression."""
        from bert_jax.tasks.classification.linear import linear_accuracy

        train, test = features()
        return {"accuracy": linear_accuracy(train, labelled.train.targets, test, labelled.test.targets)}

    def remarks(self, labelled: Labelled) -> tuple[str, ...]:
        """Report labels that differ only in case, and classes without training or test examples."""
        from bert_jax.tasks.classification.labels import class_counts, remarks

        names = labelled.label_names
        counts = {role: class_counts(getattr(labelled, role).targets, len(names)) for role in ("train", "test")}
        return remarks(names, counts)

    def data_fields(self, labelled: Labelled) -> dict[str, Any]:
        """Return the classes without a training example."""
        from bert_jax.tasks.classification.labels import absent, class_counts

        untrained = absent(labelled.label_names, class_counts(labelled.train.targets, len(labelled.label_names)))
        return {"untrained_classes": untrained} if untrained else {}

    # --- Display ---

    def figures(self, result: Json) -> list[Figure]:
        """Return accuracy, accuracy from scratch, macro F1 and the number of examples."""
        accuracy, scratch = display.number(result, "accuracy"), display.number(result, "from_scratch_accuracy")
        gain = "" if accuracy is None or scratch is None else f"{100 * (accuracy - scratch):+.1f} points from pre-training"
        tested = f"tested on {display.integer(display.number(result, 'test_examples'))}"
        return [
            Figure("Test accuracy", display.percent(accuracy), gain),
            Figure("Test accuracy from scratch", display.percent(scratch), "same fine-tuning, random initialization"),
            Figure("Test accuracy of a linear model", display.percent(display.number(result, "linear_accuracy")), "same examples"),
            Figure("Macro F1", display.percent(display.number(result, "macro_f1")), "mean over the classes that occur"),
            Figure("Labeled examples", display.integer(display.number(result, "train_examples")), tested),
        ]

    def curves(self, result: Json) -> list[Curve]:
        """Return accuracy and loss."""
        return [Curve("Accuracy", "accuracy", percent=True), Curve("Loss", "loss")]

    def tables(self, result: Json) -> list[Shown]:
        """Return the scores of each class and the confusion matrix or, if there are many classes, the largest confusions."""
        from bert_jax.tasks.classification.scores import FEW_CLASSES, confusions_of_matrix

        scored = [one for one in result.get("classes") or () if isinstance(one, Mapping)]
        most = sorted(scored, key=lambda one: -(display.number(one, "examples") or 0))[:FEW_CLASSES]
        title = "Classes" if len(scored) == len(most) else f"The {len(most)} classes with the most examples"
        each = display.rates(title, "class", "examples", most)
        rows = result.get("confusion") or []
        labels = [str(label) for label in result.get("labels") or range(len(rows))]
        if rows and len(rows) <= FEW_CLASSES:
            return [Matrix("Confusion matrix", "Rows: true classes. Columns: predicted classes.", labels, rows), *each]
        # Earlier versions stored the matrix even for many classes.
        largest = confusions_of_matrix(rows, labels) if rows else result.get("largest_confusions") or []
        title = f"Largest confusions of {display.integer(len(labels))} classes"
        columns = ("true class", "predicted class", f"{display.nouns(result).input}s", "share of true class")
        return [*([Table(title, columns, list(map(_confusion, largest)))] if largest else []), *each]

    def example(self, line: Json) -> dict[str, Any]:
        """Return an example with the predicted class, its probability and the true class."""
        return {
            "text": super().example(line)["text"],
            "label": line["predicted"],
            "probability": line["probabilities"][line["predicted"]],
            "expected": line["label"],
        }

    def panels(self, examples: Json) -> list[Panel]:
        """Return texts with their predicted classes."""

        def example(values: Json) -> Example:
            expected, label = values.get("expected"), str(values.get("label", ""))
            correct = None if expected is None else str(expected) == label
            note = f" (true class: {expected})" if correct is False else ""
            guess = Guess(label, display.probability(values.get("probability")), correct, note)
            return Example((str(values.get("text", "")),), ((guess,),), [*map(str, values.get("pictures") or ())])

        return [Panel(f"Classified {display.nouns(examples).input}s", [example(values) for values in examples.get("classify") or []])]

    def example_lines(self, examples: Json) -> list[str]:
        """Return texts with their predicted classes, one line per text."""
        lines = []
        for one in examples.get("classify", ()):
            verdict = "correct" if one["label"] == one["expected"] else "wrong"
            lines.append(f"  {one['label']} {one['probability']:.0%} ({verdict})  {display.shortened(one['text'])}")
        return ["", f"Test {display.nouns(examples).input}s and their predicted classes:", *lines] if lines else []

    def summary_lines(self, result: Json) -> list[str]:
        """Return accuracy, accuracy from scratch and the number of classes without a training example."""
        others = {"from scratch": "from_scratch_accuracy", "linear model": "linear_accuracy"}
        compared = "; ".join(f"{name}: {result[key]:.1%}" for name, key in others.items() if key in result)
        lines = [
            f"Classification      {result['accuracy']:.1%} accuracy on {result['test_examples']:,} test {display.nouns(result).input}s, "
            f"trained on {result['train_examples']:,}{f' ({compared})' if compared else ''}"
        ]
        if untrained := result.get("untrained_classes"):
            lines.append(f"                    {len(untrained):,} of {len(result['labels']):,} classes had no training example")
        return lines


def _confusion(one: Json) -> tuple[str, ...]:
    """Return a row of the table of largest confusions."""
    count, examples = display.number(one, "count"), display.number(one, "of")
    share = display.percent(count / examples if count is not None and examples else None)
    return str(one.get("label", "")), str(one.get("predicted", "")), display.integer(count), share


CLASSIFICATION = ClassificationTask()
