"""Several fine-tunings in one stage: with different seeds, or cross-validation, to measure how much the scores vary."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np

from bert_jax.config import RunConfig
from bert_jax.data.folds import Folds
from bert_jax.data.labelled import Labelled
from bert_jax.stages import outputs
from bert_jax.stages.finetune import PREDICTIONS, write_predictions
from bert_jax.tasks.base import FinetuningTask
from bert_jax.tasks.spread import spread

Train: TypeAlias = Callable[[RunConfig, Path, Labelled], dict[str, Any]]
"""Trains or resumes a stage with this configuration in this directory on these examples, and returns its results."""


@dataclass(frozen=True)
class Repeated:
    """Fine-tunes the models of a stage, of which the first is in the stage's directory and the others next to it.

    Attributes:
        config: the configuration of the run.
        task: the task.
        labelled: the labeled examples.
        folds: the same divided for cross-validation, if `finetune.data.folds` is set.
    """

    config: RunConfig
    task: FinetuningTask[Any]
    labelled: Labelled
    folds: Folds | None = None

    def finetune(self, directory: Path, train: Train, final: bool = True) -> dict[str, Any]:
        """Fine-tune once, or as often as configured, resuming from what is already there.

        Args:
            directory: the directory of the stage.
            train: trains one model.
            final: with cross-validation, also train on all folds, as the model to use, and write the predictions for all examples.

        Returns:
            The results of the stage. With several models they are those of the first, but for the scores, which are means over the seeds,
            or those of the predictions for all folds together; and `repeats` has the mean, the standard deviation and the values of each.
        """
        stage = self.config.finetune
        assert stage is not None
        if self.folds:
            return self._cross_validated(self.folds, directory, train, final)
        return self._by_seed(stage.seeds, directory, train) if stage.seeds else train(self.config, directory, self.labelled)

    def _by_seed(self, seeds: Sequence[int], directory: Path, train: Train) -> dict[str, Any]:
        """Train models that differ in the initialization of the head, the order of the examples, and dropout."""
        places = [directory, *(directory.with_name(f"{directory.name}_seed_{seed}") for seed in seeds[1:])]
        results = [
            train(dataclasses.replace(self.config, seed=seed), place, self.labelled) for seed, place in zip(seeds, places, strict=True)
        ]
        repeats = self._repeats("seeds", seeds, results)
        means = {score: one["mean"] for score, one in repeats["scores"].items()}
        return results[0] | means | {"repeats": repeats}

    def _cross_validated(self, folds: Folds, directory: Path, train: Train, final: bool) -> dict[str, Any]:
        numbers = range(1, len(folds.parts) + 1)
        places = [directory.with_name(f"{directory.name}_fold_{number}") for number in numbers]
        results = [train(self.config, place, fold.labelled) for place, fold in zip(places, folds.parts, strict=True)]
        result = train(_without_folds(self.config), directory, folds.whole) if final else {}
        if jax.process_index() > 0:  # only the first process writes outputs and the summary
            return result
        stage = self.config.finetune
        assert stage is not None
        scorer = self.task.scorer(dataclasses.replace(folds.whole, test=folds.examples), stage.task)
        counts = np.array(self.task.item_counts(folds.examples), np.int64)
        begins = np.cumsum(counts) - counts
        for place, fold in zip(places, folds.parts, strict=True):
            items = [np.arange(begins[example], begins[example] + counts[example]) for example in fold.places.tolist()]
            outputs.score(place, scorer, np.concatenate(items))
        if final:
            write_predictions(directory.parent / PREDICTIONS, folds.examples, scorer)
        together = scorer.result() | {"test_examples": len(folds.examples)}
        return result | together | {"repeats": self._repeats("folds", numbers, results)}

    def _repeats(self, over: str, names: Sequence[int], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"over": over, "names": [*map(str, names)], "scores": spread(self.task.scores, results)}


def _without_folds(config: RunConfig) -> RunConfig:
    assert config.finetune is not None
    data = dataclasses.replace(config.finetune.data, folds=0)
    return dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, data=data))


def compared_with_scratch(result: dict[str, Any], scratch: dict[str, Any], scores: Sequence[str]) -> dict[str, Any]:
    """Return results to which the scores of the same training from random parameters are added, as `from_scratch_SCORE`."""
    result = result | {f"from_scratch_{score}": scratch.get(score) for score in scores}
    if "repeats" in scratch:
        theirs = {f"from_scratch_{score}": one for score, one in scratch["repeats"]["scores"].items()}
        result["repeats"] = result["repeats"] | {"scores": result["repeats"]["scores"] | theirs}
    return result
