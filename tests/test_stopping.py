"""A run that is asked to stop saves what it has, whatever it is at, and goes on later as if nothing had been."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toy import (
    Undisturbed,
    best_and_newest,
    lines,
    parameters,
    same_bits,
    scores,
    steps_kept,
    toy,
    toy_parameters,
)

from bert_jax.config import LoopConfig
from bert_jax.errors import Interrupted
from bert_jax.training import loop as loop_room
from bert_jax.training.checkpoints import manifest
from bert_jax.training.checkpoints.verification import faults
from bert_jax.training.loop import Job


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_later(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int], number: signal.Signals
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def stop(step: int, batch: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="step 5 of 10 and saved a checkpoint") as raised:
        run(toy(tmp_path, before=stop))
    assert raised.value.number == number
    assert steps_kept(tmp_path)[-1] == 5
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert run(toy(tmp_path)) == undisturbed.real_tokens
    assert lines(tmp_path) == lines(undisturbed.directory)
    shapes = toy_parameters()
    assert same_bits(parameters(tmp_path, 10, shapes), parameters(undisturbed.directory, 10, shapes))


class Struck(list[Any]):
    """Evaluation batches, before one of which the process gets a signal."""

    def __init__(self, batches: Any, before: int) -> None:
        super().__init__(batches)
        self.before, self.read = before, 0

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            self.read += 1
            if self.read == self.before:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


# In the first of two batches of step 4, in its second after which it is whole, and in the evaluation of the last step.
@pytest.mark.parametrize(("before", "step"), [(1, 4), (2, 4), (5, 10)])
def test_a_stop_does_not_wait_for_an_evaluation_which_is_done_later(
    undisturbed: Undisturbed, tmp_path: Path, run: Callable[[Job], int], before: int, step: int
) -> None:
    job = toy(tmp_path)
    struck = Struck(job.evaluation_batches, before)
    with pytest.raises(Interrupted, match=f"step {step} of 10 and saved a checkpoint") as raised:
        run(dataclasses.replace(job, evaluation_batches=struck))
    assert raised.value.number == signal.SIGTERM and struck.read == before
    assert (lines(tmp_path)[-1]["step"], lines(tmp_path)[-1]["split"]) == (step, "train")
    assert steps_kept(tmp_path)[-1] == step and manifest.read(tmp_path / "checkpoints" / str(step)).score is None
    again = Struck(job.evaluation_batches, before=1)
    with pytest.raises(Interrupted, match=f"step {step} of 10"):
        run(dataclasses.replace(toy(tmp_path), evaluation_batches=again))
    # A blow between the line of that evaluation and the score.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "split": "valid", "loss": 0}) + "\n")
    assert run(toy(tmp_path)) == undisturbed.real_tokens
    assert lines(tmp_path) == lines(undisturbed.directory)
    assert same_bits(parameters(tmp_path, 10, toy_parameters()), parameters(undisturbed.directory, 10, toy_parameters()))
    assert scores(tmp_path).items() >= scores(undisturbed.directory).items()
    assert not any(faults(tmp_path / "checkpoints" / str(kept)) for kept in steps_kept(tmp_path))
    assert best_and_newest(tmp_path) == best_and_newest(undisturbed.directory)


def test_the_best_is_kept_also_where_its_score_is_known_later(tmp_path: Path, run: Callable[[Job], int]) -> None:
    loop = LoopConfig(log_every=5, evaluate_every=2, save_every=1, keep=1)
    values = {2: 0.1, 4: 0.9, 6: 0.2, 8: 0.3}
    step = 0

    def look(now: int, batch: Any) -> None:
        nonlocal step
        step = now

    def job(first: int = 0) -> Job:
        return toy(tmp_path, 8, loop, before=look, first=first, score=lambda metrics: values[step])

    first = job()
    with pytest.raises(Interrupted, match="step 4 of 8"):
        run(dataclasses.replace(first, evaluation_batches=Struck(first.evaluation_batches, before=3)))
    run(job(first=4))
    assert best_and_newest(tmp_path) == (4, 8)
    assert scores(tmp_path) == {4: 0.9, 8: 0.3}


def test_a_signal_during_the_last_save_is_not_lost(tmp_path: Path, run: Callable[[Job], int], monkeypatch: pytest.MonkeyPatch) -> None:
    save = loop_room.Checkpoints.save

    def struck(self: Any, step: int, *arguments: Any) -> None:
        save(self, step, *arguments)
        if step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop_room.Checkpoints, "save", struck)
    with pytest.raises(Interrupted, match="step 10 of 10"):
        run(toy(tmp_path))
    assert steps_kept(tmp_path)[-1] == 10 and lines(tmp_path)[-1]["split"] == "valid"


def test_a_second_interrupt_ends_at_once(tmp_path: Path, run: Callable[[Job], int]) -> None:
    def stop(step: int, batch: Any) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(toy(tmp_path, before=stop))
    assert steps_kept(tmp_path)[-1] == 4
