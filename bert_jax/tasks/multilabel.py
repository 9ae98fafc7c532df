"""Multi-label classification: any number of labels for a text or a pair of texts, such as the emotions that it expresses."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bert_jax.config.checks import require
from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish
from bert_jax.runtime.terminal import percent
from bert_jax.tasks import display
from bert_jax.tasks.base import MeasuredTask
from bert_jax.tasks.display import Curve, Example, Guess, Json, Panel, Shown
from bert_jax.tasks.influence import Influence
from bert_jax.tasks.pooled import PARTS, PooledOptions, PooledTask, published, text_of
from bert_jax.tasks.question import Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.labelled import Labelled, Parsed
    from bert_jax.data.queries import Queries

_THRESHOLD = 0.5
"""Used if none was tuned, as for imported models."""


@dataclass(frozen=True)
class MultilabelOptions(PooledOptions):
    """Options of multi-label classification: each example has any number of several labels."""

    name: Literal["multilabel"] = field(default="multilabel", init=False)
    label: str = "labels"
    """Name of the column that contains the labels: a list in a .jsonl file, or text in which `separator` stands between labels."""
    separator: str = ","
    """What stands between labels in the column."""
    labels: tuple[str, ...] = ()
    """All labels, in order. If empty, they are taken from the training file and sorted."""
    unlabeled: Literal["refuse", "keep"] = "refuse"
    """What to do about examples without any label: raise an error, or keep them as examples of which no label is true."""

    def __post_init__(self) -> None:
        require(len(self.labels) != 1, "labels", self.labels, "name at least two labels, or none to use those in the file.")
        for label in self.labels:
            trimmed = bool(label.strip()) and label == label.strip()
            require(trimmed, "labels", label, "labels must not be empty, or begin or end with whitespace.")
        repeated = [label for label, count in Counter(self.labels).items() if count > 1]
        require(not repeated, "labels", ", ".join(repeated), "name each label once.")
        require(bool(self.separator), "separator", self.separator, "use the character between labels, such as a comma.")

    def columns(self) -> Mapping[str, str]:
        """Return the column of the labels."""
        return {"label": self.label}


class LabelSets:
    """Reads sets of labels from a column; see `bert_jax.data.labelled.LabelReader`."""

    def __init__(self, options: MultilabelOptions) -> None:
        self._options = options

    def columns(self) -> Mapping[str, str]:
        """Return the column, by the option that names it."""
        from bert_jax.data.tables import ListColumn

        return {"finetune.task.label": ListColumn(self._options.label)}

    def parse(self, values: Sequence[str], where: str) -> tuple[str, ...]:
        """Return the labels of a row.

        Raises:
            InputError: the list is malformed, names a label twice or, unless such examples are kept, is empty.
        """
        text, column = values[0].strip(), self._options.label
        found: Any = None
        if text.startswith("["):
            try:
                found = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where} has a list in the column {column!r} that is not JSON ({error}): correct the line.") from error
        if found is None:
            found = text.split(self._options.separator) if text else []
        if not all(isinstance(label, str | int) and not isinstance(label, bool) and str(label).strip() for label in found):
            raise InputError(
                f"{where} has the labels {text!r} in the column {column!r}, one of which is empty or not text: correct the line."
            )
        labels = tuple(str(label).strip() for label in found)
        if len(set(labels)) < len(labels):
            raise InputError(f"{where} names a label twice in the column {column!r}: {text!r}. Correct the line.")
        if not labels and self._options.unlabeled == "refuse":
            raise InputError(
                f"{where} has no label in the column {column!r}. Fill it in, remove the line, or set --config.finetune.task.unlabeled=keep "
                "if no label applies to it."
            )
        return labels

    def targets(self, parsed: Mapping[str, Parsed]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Return which labels each example has, int8 [n, C], and their names.

        Raises:
            InputError: a label is unknown, or there are fewer than two.
        """
        import numpy as np

        train = parsed["train"]
        names = self._options.labels or tuple(sorted({label for labels in train.values for label in labels}))
        if len(names) < 2:
            raise InputError(f"The examples of {train.source} have {len(names)} different labels, too few. Check finetune.task.label.")
        index = {name: position for position, name in enumerate(names)}
        found = {}
        for role, part in parsed.items():
            targets: np.ndarray = np.zeros((len(part.values), len(names)), np.int8)
            for row, (line, labels) in enumerate(zip(part.lines, part.values, strict=True)):
                if unknown := [label for label in labels if label not in index]:
                    origin = "finetune.task.labels does not name" if self._options.labels else f"{train.source} does not have"
                    raise InputError(
                        f"{part.source} line {line} has the label {unknown[0]!r} in the column {self._options.label!r}, which {origin}. "
                        "Correct the line, or name all labels in finetune.task.labels."
                    )
                targets[row, [index[label] for label in labels]] = 1
            found[role] = targets
        return found, names

    def keep(self, kept: np.ndarray, rest: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample unchanged."""
        return kept, rest


@dataclass(frozen=True)
class LabelSet:
    """The labels of a text whose probability reaches the threshold, most probable first, and the probability of every label."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]


class ClassifyMany(Question):
    """The labels of each text, or of each pair of texts."""

    name = "classify"
    help = "classify texts"
    examples = ("runs/mentions/finetune '房间很干净' --threshold 0.3",)
    parts = PARTS
    pairs = "optional"
    options = ("threshold",)

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add --threshold."""
        command.add_argument(
            "--threshold",
            type=float,
            metavar="P",
            help="for a model of several labels per text: the probability from which a label counts (default: tuned on the dev set)",
        )

    def start(self, model: Loaded, threshold: float | None = None, **_: Any) -> Callable[[Queries], Finish[list[LabelSet]]]:
        """Return a function that labels a chunk of texts."""
        from bert_jax.tasks.scores import probabilities

        forward, names = model.forward, model.description.labels
        level = float(model.result.get("threshold", _THRESHOLD)) if threshold is None else threshold
        if not 0 <= level <= 1:
            raise InputError(f"threshold={level} is not a probability: give a number from 0 to 1.")

        def sets(found: np.ndarray) -> list[LabelSet]:
            answers = []
            for row in found.tolist():
                chosen = sorted((index for index, value in enumerate(row) if value >= level), key=lambda index: -row[index])
                answers.append(LabelSet(tuple(names[index] for index in chosen), dict(zip(names, row, strict=True))))
            return answers

        def start(queries: Queries) -> Finish[list[LabelSet]]:
            finish = forward.per_example(queries, lambda batch: probabilities(forward.model, forward.params, batch))
            return lambda: sets(finish())

        return start

    def portable(self, model: Loaded) -> Json:
        """Return the function, and the probability from which a label counts."""
        return {"as": "label_sets", "threshold": float(model.result.get("threshold", _THRESHOLD))}

    def record(self, answer: LabelSet) -> dict[str, Any]:
        """Return a record with `labels` and `probabilities`."""
        return {"labels": list(answer.labels), "probabilities": {label: round(p, 6) for label, p in answer.probabilities.items()}}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return the labels with their probabilities, and the text, one line per record."""
        lines = []
        for one in records:
            chosen = ", ".join(f"{label} {percent(one['probabilities'][label]).strip()}" for label in one["labels"])
            lines.append(f"{chosen or 'no label'}  {text_of(one)}")
        return lines


class LabelSetScorer:
    """Compares predicted with true sets of labels.

    Args:
        targets: int8 [n, C], which labels each example has.
        names: the names of the labels.
    """

    def __init__(self, targets: np.ndarray, names: Sequence[str]) -> None:
        import numpy as np

        self._targets, self._names, self._threshold = targets.astype(bool), names, _THRESHOLD
        self._found = np.zeros(targets.shape, np.float32)
        self._predicted = np.zeros(targets.shape, bool)
        self._used: set[float] = set()

    def tune(self, targets: np.ndarray | None, found: np.ndarray) -> None:
        """Choose the threshold with the highest micro F1 on held-out examples: targets int8 [n, C], probabilities float32 [n, C]."""
        assert targets is not None
        self._threshold = best_threshold(targets.astype(bool), found)

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Add the probabilities `found`, float32 [k, C], of the examples with indices `examples`, int64 [k]."""
        self._found[examples], self._predicted[examples] = found, found >= self._threshold
        self._used.add(self._threshold)

    def result(self) -> dict[str, Any]:
        """Return micro and macro F1, subset accuracy, the threshold if there was one, and the scores of each label."""
        from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

        predicted = self._predicted
        each = precision_recall_fscore_support(self._targets, predicted, average=None, zero_division=0)
        rows = zip(self._names, *(values.tolist() for values in each), strict=True)
        return {
            "micro_f1": float(f1_score(self._targets, predicted, average="micro", zero_division=0)),
            "macro_f1": float(f1_score(self._targets, predicted, average="macro", zero_division=0)),
            "subset_accuracy": float(accuracy_score(self._targets, predicted)),
            **({"threshold": self._threshold} if len(self._used) < 2 else {}),
            "labels": [
                {"label": name, "precision": precision, "recall": recall, "f1": f1, "examples": count}
                for name, precision, recall, f1, count in rows
            ],
        }

    def line(self, example: int) -> dict[str, Any]:
        """Return the true and predicted labels of an example, and the probabilities of all of either."""
        probabilities = dict(zip(self._names, self._found[example].tolist(), strict=True))
        true = [name for name, is_true in zip(self._names, self._targets[example], strict=True) if is_true]
        predicted = [name for name, is_predicted in zip(self._names, self._predicted[example], strict=True) if is_predicted]
        shown = dict.fromkeys([*predicted, *true])
        return {"labels": true, "predicted": predicted, "probabilities": {name: round(probabilities[name], 6) for name in shown}}


def best_threshold(targets: np.ndarray, found: np.ndarray) -> float:
    """Return the probability from which labels should count for the highest micro F1, halfway between two predictions.

    Args:
        targets: bool [n, C].
        found: float32 [n, C], probabilities.
    """
    import numpy as np

    order = np.argsort(-found, axis=None, kind="stable")
    values, hits = found.ravel()[order].astype(np.float64), np.cumsum(targets.ravel()[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + targets.sum())
    # Equal probabilities cannot be told apart.
    f1[:-1][values[:-1] == values[1:]] = -1
    best = int(f1.argmax())
    after = values[best + 1] if best + 1 < len(values) else 0.0
    return float(f"{(values[best] + after) / 2:.6g}")


class MultilabelTask(PooledTask[MultilabelOptions], MeasuredTask[MultilabelOptions]):
    """Multi-label classification with binary cross-entropy loss, the mean over labels."""

    name, kind, noun = "multilabel", "multilabel", "a multi-label classifier"
    options = MultilabelOptions
    metric, scores = "loss", ("micro_f1", "macro_f1", "subset_accuracy")
    titles: ClassVar[Mapping[str, str]] = {
        "micro_f1": "Test micro F1",
        "macro_f1": "Test macro F1",
        "subset_accuracy": "Test subset accuracy",
    }
    questions = (ClassifyMany(), Influence())
    published = (published("multi_label_classification", arguments="top_k=None"),)

    def labels(self, options: MultilabelOptions) -> LabelSets:
        """Return the reader that extracts sets of labels."""
        return LabelSets(options)

    def describe(self, options: MultilabelOptions, labels: Sequence[str]) -> dict[str, Any]:
        """Return the label names and the pooling."""
        return {"labels": tuple(labels), "pooling": options.pooling}

    def bias(self, targets: np.ndarray) -> np.ndarray:
        """Return the log odds of each label (Lin et al. 2017, section 3.3), with one more example that has it and one that has not."""
        import numpy as np

        having = targets.astype(np.float64).sum(0)
        return np.log((having + 1) / (len(targets) - having + 1)).astype(np.float32)

    def measure(self, predictions: Any, batch: Any) -> Any:
        """Return the binary cross-entropy, and micro F1 at a threshold of 1/2."""
        import jax
        import jax.numpy as jnp

        from bert_jax.training.losses import Mean, weighted_mean

        targets, weights = batch["labels"].astype(jnp.float32), batch["example_weights"]
        # log(1 + exp(-x)) for true labels and log(1 + exp(x)) for others.
        losses = jax.nn.softplus(jnp.where(targets > 0, -predictions, predictions)).mean(-1)
        predicted = (predictions >= 0).astype(jnp.float32)
        hits, both = ((values * weights[..., None]).sum() for values in (targets * predicted, targets + predicted))
        return {"loss": weighted_mean(losses, weights), "micro_f1": Mean(2 * hits, both)}

    def predict(self, model: Any, params: Any, batch: Any) -> Any:
        """Return the probability of each label, float32 [B, E, C]."""
        from bert_jax.tasks.scores import probabilities

        return probabilities(model, params, batch)

    def score(self, held_out: Mapping[str, float]) -> float:
        """Return the negative loss: F1 at a threshold of 1/2 is 0 as long as every label is improbable."""
        return -held_out[self.metric]

    def scorer(self, labelled: Labelled, options: MultilabelOptions) -> LabelSetScorer:
        """Return a scorer for F1 and subset accuracy."""
        return LabelSetScorer(labelled.test.targets, labelled.label_names)

    def remarks(self, labelled: Labelled) -> tuple[str, ...]:
        """Report labels without a training example."""
        counts = labelled.train.targets.sum(0, dtype=int).tolist()
        missing = [name for name, count in zip(labelled.label_names, counts, strict=True) if not count]
        return (f"{len(missing)} of the {len(counts)} labels have no training example: {', '.join(missing[:20])}.",) if missing else ()

    # --- Display ---

    def curves(self, result: Json) -> list[Curve]:
        """Return micro F1 and loss."""
        return [Curve("Micro F1 (threshold 1/2)", "micro_f1", percent=True), Curve("Loss", "loss")]

    def tables(self, result: Json) -> list[Shown]:
        """Return the F1 of each label as bars, and its precision and recall."""
        return display.rates("Labels", "label", "examples", result.get("labels"))

    def panels(self, examples: Mapping[str, Sequence[Json]]) -> list[Panel]:
        """Return texts with their labels."""

        def example(values: Json) -> Example:
            true, predicted = set(values.get("labels") or ()), set(values.get("predicted") or ())
            guesses = [
                Guess(label, display.probability(share), (label in true) == (label in predicted), "" if label in predicted else " (missed)")
                for label, share in (values.get("probabilities") or {}).items()
            ]
            return Example((str(values.get("text", "")),), (guesses,), [*map(str, values.get("pictures") or ())])

        return [Panel(f"Labeled {display.nouns(examples).input}s", [example(values) for values in examples.get(self.name) or []])]

    def example_lines(self, examples: Mapping[str, Sequence[Json]]) -> list[str]:
        """Return texts with their predicted and true labels, one line per text."""
        lines = [
            f"  {_listed(one['predicted'])} (true: {_listed(one['labels'])})  {display.shortened(one['text'])}"
            for one in examples.get(self.name, ())
        ]
        return ["", f"Test {display.nouns(examples).input}s and their predicted labels:", *lines] if lines else []


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "no label"


MULTILABEL = MultilabelTask()
