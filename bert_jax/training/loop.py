"""The training loop: dispatch a step, process the metrics of the previous one, evaluate, save, stop."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from bert_jax.config import LoopConfig
from bert_jax.data.pipeline import Batches, merge_states
from bert_jax.errors import InputError, Interrupted, TrainingError
from bert_jax.model.directory import write_json
from bert_jax.model.flops import StepFlops
from bert_jax.runtime.metrics import MetricsWriter
from bert_jax.runtime.progress import TrainingProgress
from bert_jax.storage.files import DiskCopy
from bert_jax.training.checkpoints.saving import Checkpoints, Position
from bert_jax.training.evaluation import Patience, Window, evaluate, total_loss
from bert_jax.training.losses import Mean
from bert_jax.training.objective import Objective
from bert_jax.training.peak import peak_flops
from bert_jax.training.sharding import place_batch
from bert_jax.training.state import create_state
from bert_jax.training.steps import EvaluationStep, TrainStep, compile_steps
from bert_jax.training.stopping import Stop, stop_signals

HostBatch = Mapping[str, np.ndarray]

# Written when too many consecutive updates were skipped: lists their steps and the data positions of their batches.
SKIPPED = "skipped.json"


@dataclass(frozen=True)
class Job:
    """Everything needed to train one stage."""

    name: str
    directory: Path
    objective: Objective
    init: Callable[[], Any]
    """Returns initial parameters; runs inside jit."""
    warm_start: Callable[[Any], Any] | None
    """Initial parameters -> starting parameters, with those of a pre-trained encoder filled in; None to train from scratch."""
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    mesh: Mesh
    seed: int
    steps: int
    microbatches: int
    batches: Batches
    evaluation_batches: Sequence[HostBatch]
    score: Callable[[Mapping[str, float]], float]
    """Held-out metrics -> a score; higher is better."""
    loop: LoopConfig
    data_fingerprint: str
    """Identifies the data: training resumes from a checkpoint only on the same data."""
    former_fingerprints: tuple[str, ...] = ()
    """Fingerprints of the same data in checkpoints of earlier versions."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the model recorded in checkpoint manifests (`bert_jax.model.directory.identity`)."""
    skip_above: float = 0.0
    ema: float = 0.0
    """`skip_above` and `ema`: see `bert_jax.training.steps.train_step`; 0 disables either."""
    patience: int = 0
    """Training ends after so many evaluations without a better score; 0 for never."""
    flops: StepFlops | None = None
    """Model FLOPs of a step, from which model FLOP/s and MFU are reported; None reports neither."""
    next_phase: "Phase | None" = None


@dataclass(frozen=True)
class Phase:
    """The continuation of a job after step `after`, with batches of another shape and everything else unchanged."""

    after: int
    microbatches: int
    batches: Batches
    evaluation_batches: Sequence[HostBatch]
    flops: StepFlops | None = None


def _merged(state: dict[str, Any]) -> dict[str, Any]:
    """Merge the data positions of all processes."""
    if jax.process_count() == 1:
        return merge_states([state])
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.asarray(len(text)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded)
    return merge_states([json.loads(bytes(row[:length]).decode()) for row, length in zip(texts, lengths, strict=True)])


class _Training:
    """State of one run of the training loop, driven by `train`."""

    def __init__(self, job: Job, checkpoints: Checkpoints) -> None:
        self.job, self.checkpoints = job, checkpoints
        self.state = create_state(job.init, job.optimizer, job.mesh, track_loss=job.skip_above > 0, average=job.ema > 0)
        self.window, self.real_tokens, self.step, self.patience = Window(), 0, 0, Patience(job.patience)
        self.skipped, self.skipped_in_a_row = 0, list[dict[str, Any]]()
        self.metrics_mark: dict[str, Any] | None = None
        if checkpoints.latest is not None:
            self._resume()
        elif job.warm_start:
            self.state = self.state.started_from(job.warm_start(self.state.base))
        self.train_step, self.evaluation_step = self._compiled()
        # A step that should have been evaluated but has no score: the run was stopped during its evaluation.
        self.unevaluated = self.step > 0 and self.evaluates and checkpoints.score(self.step) is None
        self.writer = MetricsWriter(job.directory, self.step, not self.unevaluated) if jax.process_index() == 0 else None
        if self.writer and self.metrics_mark:
            self.writer.compare(self.metrics_mark)
        self.peak = peak_flops() if self.writer and job.flops else None
        first, _, last = job.loop.profile.partition(":")
        self.profiled, self.tracing = range(int(first), int(last) + 1) if last else range(0), False
        self.clock, self.waited, self.clocked_tokens, self.clocked_flops = time.perf_counter(), 0.0, 0, 0.0
        self.pending: tuple[int, Any, dict[str, Any]] | None = None

    def _compiled(self) -> tuple[TrainStep, EvaluationStep]:
        job = self.job
        return compile_steps(job.objective, job.optimizer, self.state, job.mesh, job.seed, job.microbatches, job.skip_above, job.ema)

    def _start_phase(self, phase: Phase) -> None:
        self.job = dataclasses.replace(
            self.job,
            microbatches=phase.microbatches,
            batches=phase.batches,
            evaluation_batches=phase.evaluation_batches,
            flops=phase.flops,
            next_phase=None,
        )

    def _resume(self) -> None:
        self.state, position = self.checkpoints.restore(self.state)
        if position["data"] not in (self.job.data_fingerprint, *self.job.former_fingerprints):
            raise InputError(
                f"The checkpoint in {self.job.directory} was trained on data {position['data']}, but the data is now "
                f"{self.job.data_fingerprint}: its files, vocabulary or settings have changed. Restore them, or start in a new workdir."
            )
        self.step, self.real_tokens = int(self.state.step), position["real_tokens"]
        self.window = Window(position["window"])
        self.skipped, self.skipped_in_a_row = position.get("skipped", 0), position.get("skipped_in_a_row", [])
        self.metrics_mark = position.get("metrics")
        self.patience = Patience(self.job.patience, position.get("patience"))
        # Stopped during the evaluation of this step, the run evaluated it later, and saved the score alone.
        if self.evaluates and (score := self.checkpoints.score(self.step)) is not None:
            self.patience.add(self.step, score)
        # A checkpoint saved exactly at the end of a phase has the position of that phase; the next phase starts from its own beginning.
        if self.job.next_phase and self.step > self.job.next_phase.after:
            self._start_phase(self.job.next_phase)
        self.job.batches.set_state(position["batches"])

    def position(self) -> Position:
        return {
            "batches": _merged(self.job.batches.get_state()),
            # A copy, since the file is written while the next steps are being added.
            "window": {name: list(pair) for name, pair in self.window.sums.items()},
            "real_tokens": self.real_tokens,
            "skipped": self.skipped,
            "skipped_in_a_row": list(self.skipped_in_a_row),
            "data": self.job.data_fingerprint,
            **self.patience.position(),
            # The first process writes both the metrics and the position.
            **({"metrics": self.writer.mark()} if self.writer else {}),
        }

    def advance(self) -> None:
        """Dispatch one step, then process the metrics of the previous one, so that the device never waits for the host."""
        if self.job.next_phase and self.step == self.job.next_phase.after:
            self.flush_metrics()
            self._start_phase(self.job.next_phase)
            self.train_step, self.evaluation_step = self._compiled()
        if (self.step + 1 in self.profiled) != self.tracing:
            self._toggle_profile()
        start = time.perf_counter()
        position = self.job.batches.get_state()
        batch = next(self.job.batches)
        self.waited += time.perf_counter() - start
        self.state, metrics = self.train_step(self.state, place_batch(batch, self.job.mesh))
        self.flush_metrics()
        self.step += 1
        self.pending = (self.step, metrics, position)

    def _toggle_profile(self) -> None:
        """Start a trace, or stop and write it, after the previous step has finished."""
        self.flush_metrics()
        start = time.perf_counter()
        if self.tracing:
            self.end_profile()
        else:
            self.profile = DiskCopy(self.job.directory / "profile")
            jax.profiler.start_trace(str(self.profile.folder))
            self.tracing = True
        self.clock += time.perf_counter() - start

    def end_profile(self) -> None:
        """Stop and write the trace in progress, if any."""
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()
            self.profile.close()

    def flush_metrics(self) -> None:
        """Add the metrics of the last dispatched step to the window; raise if too many consecutive updates were skipped."""
        if self.pending is None:
            return
        step, metrics, position = self.pending
        self.pending = None
        metrics = jax.device_get(metrics)
        tokens, pairs = int(metrics["real_tokens"].total), float(metrics.pop("attended_pairs").total)
        self.real_tokens += tokens
        self.clocked_tokens += tokens
        self.clocked_flops += self.job.flops.total(tokens, pairs) if self.job.flops else 0.0
        if metrics.pop("skipped_updates").total:
            self._skip(step, metrics, position)
        else:
            self.skipped_in_a_row = []
            self.window.add(metrics)

    def _skip(self, step: int, metrics: Mapping[str, Mean], position: dict[str, Any]) -> None:
        # Its metrics are left out of the sums, which a single non-finite value would invalidate.
        window = Window()
        window.add(metrics)
        numbers = {name: window.means().get(name, 0.0) for name in (*self.job.objective.losses, "gradient_norm")}
        finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        self.skipped += 1
        self.skipped_in_a_row.append({"step": step, **finite, "batch": _merged(position)})
        if len(self.skipped_in_a_row) < self.job.loop.max_skipped:
            return
        # A damaged parameter may be the cause, and the message below reports the last checkpoint as intact.
        self.checkpoints.verified()
        path = self.job.directory / SKIPPED
        if jax.process_index() == 0:
            write_json(path, {"stage": self.job.name, "skipped": self.skipped_in_a_row})
        saved, above = self.checkpoints.latest, f", or the loss exceeded {self.job.skip_above:g} times its mean" * bool(self.job.skip_above)
        raise TrainingError(
            f"{self.job.name} stopped at step {step}: the loss or the gradient was not finite{above}, and {len(self.skipped_in_a_row)} "
            "consecutive updates were skipped. "
            + ("Nothing has been saved yet. " if saved is None else f"The last checkpoint, at step {saved}, is intact. ")
            + f"Inspect the batches with python -m bert_jax inspect {path}. If they look right, lower the learning rate, "
            "lengthen the warm-up or set clip_norm, and start in a new workdir."
        )

    def log(self) -> dict[str, float]:
        now = time.perf_counter()
        means = self.window.means()
        seconds = now - self.clock
        model_flops = self.clocked_flops / seconds
        speed = {"model_flops_per_second": model_flops} if self.job.flops else {}
        fields = {
            # The loss is unknown if every update was skipped.
            "loss": total_loss(means, self.job.objective) if means else math.nan,
            **{name: value for name, value in means.items() if name != "real_tokens"},
            # The optimizer does not count skipped updates.
            "learning_rate": float(self.job.schedule(max(0, self.step - 1 - self.skipped))),
            "skipped_updates": self.skipped,
            "real_tokens": self.real_tokens,
            "real_tokens_per_second": self.clocked_tokens / seconds,
            **speed,
            **({"mfu": model_flops / self.peak} if self.peak else {}),
            "data_wait": self.waited / seconds,
        }
        if self.writer:
            self.writer.write(self.step, "train", fields)
        self.window, self.clock, self.waited, self.clocked_tokens, self.clocked_flops = Window(), now, 0.0, 0, 0.0
        return fields

    @property
    def evaluates(self) -> bool:
        """Whether this step is followed by an evaluation."""
        return self.step == self.job.steps or self.step % self.job.loop.evaluate_every == 0

    def evaluate(self, stop: Stop, progress: TrainingProgress) -> float | None:
        """Evaluate this step and return its score, or write nothing and return None if the run is stopped during the evaluation."""
        start = time.perf_counter()
        held_out = evaluate(self.state.model, self.evaluation_step, self.job, stop.requested)
        if held_out is None:
            return None
        if self.writer:
            self.writer.write(self.step, "valid", held_out)
        progress.message(f"{self.job.name}  step {self.step}  held out:  " + "  ".join(f"{n} {v:.4g}" for n, v in held_out.items()))
        self.clock += time.perf_counter() - start
        score = self.job.score(held_out)
        self.patience.add(self.step, score)
        return score

    def save(self, score: float | None = None) -> None:
        start = time.perf_counter()
        if self.writer:
            self.writer.publish()
        self.checkpoints.save(self.step, self.state, self.position(), score)
        self.clock += time.perf_counter() - start


def train(job: Job) -> int:
    """Train a stage to its last step, from its newest checkpoint if there is one, and save it.

    If resumed on the same topology, the result is bit-identical to that of an uninterrupted run: the training state, the data position
    and the accumulated metrics are all saved.

    Returns:
        The number of real tokens seen.

    Raises:
        TrainingError: `loop.max_skipped` consecutive updates were skipped because of a non-finite loss or gradient, or a loss above
            `skip_above` times its mean; a checkpoint cannot be written; or a checkpoint was found to be damaged after training had resumed.
        InputError: the checkpoint belongs to another model, the data has changed since it was saved, or no checkpoint is intact.
        Interrupted: SIGINT or SIGTERM was received; a checkpoint has been saved.
    """
    checkpoints = Checkpoints(job.directory / "checkpoints", job.loop.keep, job.model, job.loop.verify)
    try:
        run = _Training(job, checkpoints)
        with stop_signals() as stop, TrainingProgress(job.steps, run.step, job.name, show=jax.process_index() == 0) as progress:
            try:
                _drive(run, stop, progress)
            finally:
                run.end_profile()
                if run.writer:
                    run.writer.close()
    finally:
        checkpoints.close()
    return run.real_tokens


def _drive(run: _Training, stop: Stop, progress: TrainingProgress) -> None:
    job, shown = run.job, dict[str, float]()
    if run.state.frozen is not None:
        trained, whole = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (run.state.params, run.state.base))
        progress.message(f"{job.name}  trains {trained:,} parameters; the model has {whole:,}")
    stopped = run.unevaluated and not _evaluate_again(run, stop, progress)
    while run.step < job.steps and not stopped and not run.patience.exhausted:
        run.advance()
        run.checkpoints.check()
        last = run.step == job.steps
        stopped = stop.requested()
        log, save = last or run.step % job.loop.log_every == 0, run.step % job.loop.save_every == 0
        if log or save or stopped or run.evaluates:
            run.flush_metrics()
        if log:
            shown = run.log()
        progress.update(run.step, shown)
        score = None
        if run.evaluates and not stopped:
            score = run.evaluate(stop, progress)
            stopped = score is None
        if run.evaluates or save or stopped:
            run.save(score)
        if (last or run.patience.exhausted) and not stopped:
            # A run that is stopped while the last checkpoint is being written should not have to repeat its last steps.
            run.checkpoints.wait()
            stopped = stop.requested()
    run.checkpoints.verified()
    if run.patience.exhausted and not stopped:
        count = f"{job.patience} evaluation{'s' * (job.patience != 1)}"
        progress.message(f"{job.name}  ended at step {run.step}: {count} without a better score")
    if stopped:
        run.checkpoints.wait()
        raise Interrupted(
            f"{job.name} stopped at step {run.step} of {job.steps} and saved a checkpoint. Run the same command again to resume.",
            stop.number,
        )


def _evaluate_again(run: _Training, stop: Stop, progress: TrainingProgress) -> bool:
    """Repeat an evaluation that was interrupted; return whether it finished."""
    score = run.evaluate(stop, progress)
    if score is not None:
        run.checkpoints.set_score(run.step, score)
    return score is not None
