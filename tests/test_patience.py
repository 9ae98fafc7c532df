"""Training that ends early: when, with which checkpoints, and across interruptions."""

import json
import math
from pathlib import Path

import pytest
import toy

from bert_jax.config import FinetuneConfig, LoopConfig
from bert_jax.stages.finetune import remarks
from bert_jax.training.evaluation import Patience
from bert_jax.training.loop import train

LOOP = LoopConfig(log_every=2, evaluate_every=2, save_every=4, keep=2)


def run(directory: Path, steps: int, patience: int, scores: list[float]) -> int:
    """Train with these scores, one per evaluation; the last step."""
    rest = iter(scores)
    job = toy.toy(directory, steps, LOOP, patience=patience, score=lambda held_out: next(rest))
    try:
        train(job)
    finally:
        job.batches.close()
    return max(toy.steps_kept(directory))


def test_training_ends_after_evaluations_without_a_better_score(tmp_path: Path) -> None:
    # Evaluations at 2, 4, 6, ...: the best at 4, and three without a better one.
    assert run(tmp_path, 30, 3, [1, 2, 1, 1, 0, 9, 9]) == 10
    assert toy.scores(tmp_path)[4] == 2, "the best checkpoint is kept"
    assert max(line["step"] for line in toy.lines(tmp_path)) == 10


def test_a_better_score_starts_the_count_again_and_zero_never_ends(tmp_path: Path) -> None:
    assert run(tmp_path / "a", 12, 2, [1, 0, 2, 1, 3, 2]) == 12
    assert run(tmp_path / "b", 12, 0, [3, 2, 1, 1, 1, 1]) == 12


def test_the_count_goes_on_where_a_run_was_interrupted(tmp_path: Path) -> None:
    # To step 8: the best at 2, and three without a better one. Then one more, and the fourth in a row ends it.
    assert run(tmp_path, 8, 4, [5, 4, 4, 4]) == 8
    assert run(tmp_path, 40, 4, [4, 9, 9, 9]) == 10
    # A run that ended stays ended.
    assert run(tmp_path, 40, 4, []) == 10


def test_an_evaluation_counts_once_and_nan_is_never_better() -> None:
    patience = Patience(2)
    assert not patience.exhausted and not patience.position()
    for step, score in ((2, math.nan), (2, math.nan)):
        patience.add(step, score)
    assert not patience.exhausted
    again = Patience(2, patience.position()["patience"])
    again.add(2, 0.5)
    assert not again.exhausted
    again.add(4, 1.0)
    again.add(6, math.nan)
    assert not again.exhausted
    again.add(8, 1.0)
    assert again.exhausted


def test_a_patience_that_cannot_end_training_is_remarked_on() -> None:
    stage = FinetuneConfig(patience=3, loop=LoopConfig(evaluate_every=100))
    (remark,) = remarks(stage, 400, 0)
    assert "patience=3 cannot end these 400 steps early, with an evaluation every 100" in remark
    assert not [*remarks(stage, 401, 0)] and not [*remarks(FinetuneConfig(), 400, 0)]


@pytest.mark.parametrize("limit", [0, 3])
def test_what_is_saved_is_json(limit: int) -> None:
    patience = Patience(limit)
    patience.add(1, math.nan)
    position = patience.position()
    assert json.loads(json.dumps(position, allow_nan=False)) == position and bool(position) == bool(limit)
