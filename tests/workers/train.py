"""A process that trains the tiny model, alone or with others, and may be struck down on the way. Its argument is JSON.

A step has two microbatches, and the parameters are averaged.

`runs` names the runs, one after the other: the directory, the number of steps, and perhaps `signal`, sent to itself
before step `at`, once the checkpoint of step `after` is there, or without these before the first batch of an evaluation;
or a `mesh`; or `short_until`, the last step before rows grow longer.
Every batch that it reads goes to a file of the directory.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))


class Batches:
    """The batches of this process, with a record of them and a blow at one step."""

    def __init__(self, inner: Any, run: dict[str, Any], step: int = 0) -> None:
        self._inner, self._run, self._step = inner, run, step
        self.get_state, self.close = inner.get_state, inner.close

    def set_state(self, state: Any) -> None:
        self._inner.set_state(state)
        self._step = self._run["from"]

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._inner)
        self._step += 1
        directory = Path(self._run["directory"])
        np.save(directory / f"tokens-{self._step}-{jax.process_index()}of{jax.process_count()}.npy", batch["tokens"])
        if self._step == self._run.get("at"):
            self._wait(directory / "checkpoints" / str(self._run["after"]))
            os.kill(os.getpid(), signal.Signals[self._run["signal"]])
        if self._step > self._run.get("at", self._step):
            time.sleep(0.2)  # the news takes a second to reach all processes
        return batch

    @staticmethod
    def _wait(path: Path) -> None:
        end = time.monotonic() + 60
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)


class Evaluation(list[Any]):
    """Batches that take their time, while the signal goes round."""

    run: dict[str, Any]

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(super().__iter__()):
            if not index and self.run["process"] == jax.process_index():
                os.kill(os.getpid(), signal.Signals[self.run["signal"]])
            time.sleep(3)
            yield batch


def main(arguments: dict[str, Any]) -> None:
    if arguments["processes"] > 1:
        jax.distributed.initialize(f"127.0.0.1:{arguments['port']}", arguments["processes"], arguments["process"])
    import tiny

    from bert_jax.config import LoopConfig, MeshConfig
    from bert_jax.errors import InputError, Interrupted
    from bert_jax.training.loop import Phase, train
    from bert_jax.training.sharding import make_mesh

    for run in arguments["runs"]:
        directory = Path(run["directory"])
        directory.mkdir(parents=True, exist_ok=True)
        run["from"] = max((int(path.name) for path in (directory / "checkpoints").glob("*") if path.name.isdigit()), default=0)
        try:
            mesh = make_mesh(MeshConfig(**run.get("mesh", {})), 8)
        except InputError as error:
            print(error, flush=True)
            continue
        loop = LoopConfig(**arguments["loop"])
        wrap = lambda batches, run=run: Batches(batches, run)  # noqa: E731
        job = tiny.job(directory, run["steps"], mesh, loop=loop, microbatches=2, ema=0.9, wrap=wrap)
        if after := run.get("short_until"):
            rows = dataclasses.replace(tiny.ROWS, length=40)
            wrap = lambda batches, run=run, after=after: Batches(batches, run, after)  # noqa: E731
            long = tiny.job(directory, run["steps"], mesh, rows=rows, batch_size=4, wrap=wrap)
            job = dataclasses.replace(job, next_phase=Phase(after, 1, long.batches, long.evaluation_batches))
        if "signal" in run and "after" not in run:
            slow = Evaluation((job.next_phase or job).evaluation_batches)
            slow.run = run
            job = dataclasses.replace(job, evaluation_batches=slow)
            job = dataclasses.replace(job, next_phase=job.next_phase and dataclasses.replace(job.next_phase, evaluation_batches=slow))
        try:
            train(job)
        except Interrupted as error:
            print(error, flush=True)
        finally:
            job.batches.close()
            if job.next_phase:
                job.next_phase.batches.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
