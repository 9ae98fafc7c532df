"""Updates: skipped where they would spoil the parameters, averaged where that is asked for, the same after a resume."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import LOOP, Before, lines, parameters, same_bits, steps_kept, toy, toy_parameters

from bert_jax.config import LoopConfig
from bert_jax.errors import Interrupted, TrainingError
from bert_jax.training.evaluation import evaluate
from bert_jax.training.loop import Job
from bert_jax.training.objective import Metrics
from bert_jax.training.steps import evaluation_step


def spoil(*steps: int, weight: float = np.nan) -> Before:
    """Weights of these steps that spoil the loss: a NaN; or zeros, the slope of whose root is infinite, so that the gradient alone is."""

    def before(step: int, batch: dict[str, np.ndarray]) -> None:
        if step in steps:
            batch["example_weights"][:] = weight

    return before


def test_updates_that_are_not_finite_are_skipped_and_the_run_goes_on(tmp_path: Path, run: Callable[[Job], int]) -> None:
    places, kernels = {}, {}
    job = toy(tmp_path, loop=LoopConfig(log_every=1, evaluate_every=100, save_every=1, keep=20))
    job.batches._before = lambda step, batch: (places.setdefault(step, batch), spoil(4, 7, 8)(step, batch))  # type: ignore[attr-defined]
    run(job)
    for step in range(1, 11):
        kernels[step] = parameters(tmp_path, step, toy_parameters())["dense/kernel"]
        assert (step > 1 and (kernels[step] == kernels[step - 1]).all()) == (step in (4, 7, 8)), step
    training = [line for line in lines(tmp_path) if line["split"] == "train"]
    assert [line["skipped_updates"] for line in training] == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3]
    assert [line["step"] for line in training if line["loss"] is None] == [4, 7, 8], "nothing is known of the loss of these"
    assert training[-1]["learning_rate"] == pytest.approx(training[0]["learning_rate"] * 4 / 9), "the seventh of ten: the rest is to come"
    assert len(places) == 10 and len({batch["tokens"].tobytes() for batch in places.values()}) == 10, "the data goes on"


@pytest.mark.parametrize("weight", [np.nan, 0.0])
def test_too_many_skipped_updates_in_a_row_stop_the_run(tmp_path: Path, run: Callable[[Job], int], weight: float) -> None:
    states = []
    job = toy(tmp_path, loop=dataclasses.replace(LOOP, max_skipped=2), before=spoil(2, 6, 7, weight=weight))
    get_state = job.batches.get_state
    job.batches.get_state = lambda: states.append(get_state()) or states[-1]  # type: ignore[method-assign,func-returns-value]
    with pytest.raises(TrainingError, match=r"stopped at step 7.*2 consecutive updates.*at step 6, is intact.*skipped\.json"):
        run(job)
    assert steps_kept(tmp_path)[-1] == 6
    assert all(np.isfinite(leaf).all() for leaf in parameters(tmp_path, 6, toy_parameters()).values())
    report = json.loads((tmp_path / "skipped.json").read_text())
    assert [(skipped["step"], skipped["gradient_norm"]) for skipped in report["skipped"]] == [(6, None), (7, None)]
    assert [skipped["loss"] for skipped in report["skipped"]] == [None if np.isnan(weight) else 0.0] * 2
    assert all(skipped["batch"] in states for skipped in report["skipped"])


def test_skips_in_a_row_go_through_a_checkpoint(tmp_path: Path, run: Callable[[Job], int]) -> None:
    loop = dataclasses.replace(LOOP, log_every=4, max_skipped=4)
    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    with pytest.raises(TrainingError, match="at step 9"):
        run(toy(unbroken, loop=loop, before=spoil(3, 6, 7, 8, 9)))

    def stop(step: int, batch: dict[str, np.ndarray]) -> None:
        spoil(3, 6, 7, 8, 9)(step, batch)
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(toy(stopped, loop=loop, before=stop))
    with pytest.raises(TrainingError, match="at step 9"):
        run(toy(stopped, loop=loop, before=spoil(8, 9), first=7))
    assert lines(stopped) == lines(unbroken)
    assert (stopped / "skipped.json").read_text() == (unbroken / "skipped.json").read_text()


def test_a_loss_far_above_its_mean_is_skipped_also_after_a_resume(tmp_path: Path, run: Callable[[Job], int]) -> None:
    def leap(step: int, batch: dict[str, np.ndarray]) -> None:
        if step in (5, 8):
            batch["example_weights"][:] = 1e4

    def stop(step: int, batch: dict[str, np.ndarray]) -> None:
        leap(step, batch)
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    unbroken, stopped, lenient = (tmp_path / name for name in ("unbroken", "stopped", "lenient"))
    run(toy(unbroken, before=leap, skip_above=5.0))
    with pytest.raises(Interrupted):
        run(toy(stopped, before=stop, skip_above=5.0))
    run(toy(stopped, before=leap, first=7, skip_above=5.0))
    assert lines(stopped) == lines(unbroken)
    assert lines(unbroken)[-2]["skipped_updates"] == 2
    run(toy(lenient, before=leap))
    assert lines(lenient)[-2]["skipped_updates"] == 0


def test_the_average_of_the_parameters_is_evaluated_and_saved_and_training_does_not_see_it(
    tmp_path: Path, run: Callable[[Job], int]
) -> None:
    loop = LoopConfig(log_every=1, evaluate_every=5, save_every=1, keep=20)
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    run(toy(plain, 10, loop, before=spoil(4)))
    run(toy(averaged, 10, loop, before=spoil(4), ema=0.5))
    found, wanted = lines(averaged), lines(plain)
    assert [line for line in found if line["split"] == "train"] == [line for line in wanted if line["split"] == "train"]
    mean = np.asarray(toy_parameters()["dense"]["kernel"])
    for step in range(1, 11):
        decay = min(0.5, step / (9 + step))
        if step != 4:
            mean = decay * mean + (1 - decay) * parameters(plain, step, toy_parameters())["dense/kernel"]
        np.testing.assert_allclose(parameters(averaged, step, toy_parameters())["dense/kernel"], mean, atol=1e-5)
    job = toy(averaged, 10, loop)
    job.batches.close()
    saved = {path.removeprefix("dense/"): jnp.asarray(leaf) for path, leaf in parameters(averaged, 10, toy_parameters()).items()}

    def step(params: Any, batch: Any, index: jax.Array) -> Metrics:
        return evaluation_step(params, batch, index, objective=job.objective, seed=job.seed)

    expected = evaluate({"dense": saved}, step, job)["loss"]
    assert found[-1]["loss"] == pytest.approx(expected, rel=1e-5) != pytest.approx(wanted[-1]["loss"], rel=1e-2)


def test_an_average_goes_through_a_checkpoint(tmp_path: Path, run: Callable[[Job], int]) -> None:
    def stop(step: int, batch: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    run(toy(unbroken, ema=0.9))
    with pytest.raises(Interrupted):
        run(toy(stopped, before=stop, ema=0.9))
    run(toy(stopped, ema=0.9))
    assert lines(stopped) == lines(unbroken)
    assert same_bits(parameters(stopped, 10, toy_parameters()), parameters(unbroken, 10, toy_parameters()))
