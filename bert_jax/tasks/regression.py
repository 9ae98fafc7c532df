"""Regression: a number for a text or a pair of texts, such as how similar two sentences are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.base import MeasuredTask
from bert_jax.tasks.display import Curve, Json, Scatter, Shown
from bert_jax.tasks.influence import Influence
from bert_jax.tasks.numbers import Numbers
from bert_jax.tasks.pooled import PARTS, PooledOptions, PooledTask, published, text_of
from bert_jax.tasks.question import Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.labelled import Labelled
    from bert_jax.data.queries import Queries
    from bert_jax.model.directory import ModelDescription

_LARGEST_DEVIATION = 20.0
"""With targets that spread more than this, training takes long: the last layer starts with outputs near their mean and moves by small
steps."""
_MOST_POINTS = 1000
"""Test examples in the chart of the report."""
_FOLDS = 3
"""Of the cross-validation that chooses the regularization of the linear model."""


@dataclass(frozen=True)
class RegressionOptions(PooledOptions):
    """Options of regression: each example has a number."""

    name: Literal["regression"] = field(default="regression", init=False)
    target: str = "score"
    """Name of the column that contains the number."""

    def columns(self) -> Mapping[str, str]:
        """Return the column of the number."""
        return {"target": self.target}


class Regress(Question):
    """A number for each text, or each pair of texts."""

    name = "regress"
    help = "predict a number for texts or pairs of texts"
    examples = (
        "runs/similarity/finetune '房间很干净' '房间很整洁' --pair",
        "runs/similarity/finetune similar.tsv --text a --text-pair b --output similarity.jsonl",
    )
    parts = PARTS
    pairs = "optional"

    def start(self, model: Loaded, **options: Any) -> Callable[[Queries], Finish[list[float]]]:
        """Return a function that predicts the numbers of a chunk of texts."""
        from bert_jax.tasks.scores import outputs

        forward = model.forward

        def start(queries: Queries) -> Finish[list[float]]:
            finish = forward.per_example(queries, lambda batch: outputs(forward.model, forward.params, batch))
            return lambda: [float(row[0]) for row in finish()]

        return start

    def portable(self, model: Loaded) -> Json:
        """Return the function."""
        return {"as": "number"}

    def record(self, answer: float) -> dict[str, Any]:
        """Return a record with `value`."""
        return {"value": float(f"{answer:.6g}")}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return the number and the text, one line per record."""
        return [f"{one['value']:10.4g}  {text_of(one)}" for one in records]


class NumberScorer:
    """Compares predicted with true numbers.

    Args:
        targets: float32 [n], the true numbers.
    """

    def __init__(self, targets: np.ndarray) -> None:
        import numpy as np

        self._targets, self._found = targets, np.zeros(len(targets), np.float32)

    def add(self, examples: np.ndarray, found: np.ndarray) -> None:
        """Add the predictions `found`, float32 [k, 1], for the examples with indices `examples`, int64 [k]."""
        self._found[examples] = found[:, 0]

    def result(self) -> dict[str, Any]:
        """Return the scores, and the true and predicted numbers of the first examples."""
        points = [[float(f"{value:.6g}") for value in pair] for pair in zip(self._targets, self._found, strict=True)]
        return correlations(self._targets, self._found) | {"points": points[:_MOST_POINTS]}

    def line(self, example: int) -> dict[str, Any]:
        """Return the true and the predicted number of an example."""
        target, found = (float(f"{values[example]:.6g}") for values in (self._targets, self._found))
        return {"value": target, "predicted": found}


def correlations(targets: np.ndarray, found: np.ndarray) -> dict[str, float | None]:
    """Return `spearman` and `pearson`, the correlations of two arrays [n], None if one of them is constant; and `mae`, the mean absolute
    error."""
    import numpy as np
    from scipy.stats import pearsonr, spearmanr

    errors = {"mae": float(np.abs(targets.astype(np.float64) - found).mean())}
    if len(targets) < 2 or np.ptp(targets) == 0 or np.ptp(found) == 0:
        return {"spearman": None, "pearson": None, **errors}
    pair = targets.astype(np.float64), found.astype(np.float64)
    return {"spearman": float(spearmanr(*pair).statistic), "pearson": float(pearsonr(*pair).statistic), **errors}


class RegressionTask(PooledTask[RegressionOptions], MeasuredTask[RegressionOptions]):
    """Regression with mean squared error, as BERT is fine-tuned for STS-B (Devlin et al. 2019, section 4.1)."""

    name, kind, noun = "regress", "regression", "a regression model"
    options = RegressionOptions
    metric, scores = "loss", ("spearman", "pearson", "mae")
    titles: ClassVar[Mapping[str, str]] = {
        "spearman": "Test Spearman correlation",
        "pearson": "Test Pearson correlation",
        "mae": "Test mean absolute error",
    }
    questions = (Regress(), Influence())
    published = (published("regression", labeled=False),)

    def outputs(self, description: ModelDescription) -> int:
        """Return one output per example."""
        return 1

    def labels(self, options: RegressionOptions) -> Numbers:
        """Return the reader that extracts the numbers."""
        return Numbers(options.target)

    def describe(self, options: RegressionOptions, labels: Sequence[str]) -> dict[str, Any]:
        """Return the pooling."""
        return {"pooling": options.pooling}

    def bias(self, targets: np.ndarray) -> np.ndarray:
        """Return the mean of the numbers."""
        import numpy as np

        return np.array([targets.astype(np.float64).mean()], np.float32)

    def measure(self, predictions: Any, batch: Any) -> Any:
        """Return the mean squared and the mean absolute error."""
        import jax.numpy as jnp

        from bert_jax.training.losses import weighted_mean

        # [B, E]: without the index, [B, E, 1] and [B, E] would broadcast to [B, E, E].
        errors = predictions[..., 0] - batch["labels"]
        weights = batch["example_weights"]
        return {"loss": weighted_mean(jnp.square(errors), weights), "mae": weighted_mean(jnp.abs(errors), weights)}

    def score(self, held_out: Mapping[str, float]) -> float:
        """Return the negative mean squared error."""
        return -held_out[self.metric]

    def scorer(self, labelled: Labelled, options: RegressionOptions) -> NumberScorer:
        """Return a scorer for correlations and the mean absolute error."""
        return NumberScorer(labelled.test.targets)

    def linear_scores(self, labelled: Labelled, features: Callable[[], tuple[Any, Any]]) -> dict[str, float]:
        """Return the correlations of ridge regression."""
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import MaxAbsScaler

        train, test = features()
        model: Any = make_pipeline(MaxAbsScaler(), Ridge())
        if len(labelled.train) >= 2 * _FOLDS:  # with fewer, no fold has a correlation
            model = GridSearchCV(model, {"ridge__alpha": [10.0**power for power in range(-2, 4)]}, cv=_FOLDS)
        found = model.fit(train, labelled.train.targets).predict(test)
        return {name: value for name, value in correlations(labelled.test.targets, found).items() if value is not None}

    def remarks(self, labelled: Labelled) -> tuple[str, ...]:
        """Report numbers that are spread too widely, or not enough, to be learned well."""
        deviation = float(labelled.train.targets.std())
        if 1 / _LARGEST_DEVIATION <= deviation <= _LARGEST_DEVIATION:
            return ()
        return (
            f"the numbers have the standard deviation {deviation:.4g}; numbers of about 0 to 5 are learned faster, so it may be worth "
            "scaling the column.",
        )

    # --- Display ---

    def curves(self, result: Json) -> list[Curve]:
        """Return both errors."""
        return [Curve("Mean squared error", "loss"), Curve("Mean absolute error", "mae")]

    def tables(self, result: Json) -> list[Shown]:
        """Return the chart of true and predicted numbers."""
        points = [(float(true), float(found)) for true, found in result.get("points") or []]
        return [Scatter("True and predicted numbers", "true", "predicted", points)] if points else []


REGRESSION = RegressionTask()
