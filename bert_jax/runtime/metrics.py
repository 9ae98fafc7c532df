"""The numbers of a run, as lines of JSON and as TensorBoard events."""

import hashlib
import json
import math
import numbers
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from bert_jax.errors import as_typed
from bert_jax.storage.files import DiskCopy, resolve_path, write_whole

FILE = "metrics.jsonl"
TIMINGS = ("real_tokens_per_second", "model_flops_per_second", "mfu", "data_wait")
"""Fields that tell how fast a run was; all others are the same whenever the run is repeated."""
_PUBLISH_EVERY = 10.0
"""Seconds; a bucket takes an object anew once in a second at most."""


class MetricsWriter:
    """Appends to `directory/metrics.jsonl` and to TensorBoard events in `directory/tensorboard`; one process of a run writes.

    With `resume_step` the lines and events after that step, which the run is about to produce again, are taken out;
    0 starts afresh. Without it new lines follow the old ones. That step's own evaluation stays if it was `evaluated`.
    """

    def __init__(self, directory: str | Path, resume_step: int | None = None, evaluated: bool = True) -> None:
        directory = resolve_path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._path, self._copy, self._published = directory / FILE, DiskCopy(directory), time.monotonic()
        kept = _keep(directory, self._copy.folder, resume_step, evaluated)
        self._lines, self._digest = len(kept), hashlib.sha256("".join(kept).encode())
        self._file = (self._copy.folder / FILE).open("a", encoding="utf-8")
        # TensorBoard forgets the events from the purge step on.
        purge_step = None if resume_step is None else resume_step + 1 if resume_step else 0
        self._events = _Events(self._copy.folder / "tensorboard", purge_step)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Store the metrics of one split ("train", "valid", …) at one step. Numbers that are not finite become null."""
        plain = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"step": int(step), "split": split, **plain}, ensure_ascii=False, allow_nan=False) + "\n"
        self._file.write(line)
        self._file.flush()
        self._lines += 1
        self._digest.update(line.encode())
        self._events.write(int(step), {f"{name}/{split}": value for name, value in plain.items() if isinstance(value, int | float)})
        if time.monotonic() > self._published + _PUBLISH_EVERY:
            self.publish()

    def publish(self) -> None:
        """Puts what was written into the bucket, if the directory is in one: a checkpoint may then say that it is there."""
        self._copy.publish()
        self._published = time.monotonic()

    def mark(self) -> dict[str, Any]:
        """What tells whether these lines are still what they are now: their number and their SHA-256, as JSON values."""
        return {"lines": self._lines, "sha256": self._digest.hexdigest()}

    def compare(self, written: Mapping[str, Any]) -> None:
        """Warns on stderr where these are not the lines of that mark."""
        if self.mark() == written:
            return
        steps = [line["step"] for line in read_metrics(self._copy.folder)]
        what = f"{self._lines:,} whole lines{f', the last of step {steps[-1]}' if steps else ''}, where {written['lines']:,} were written"
        message = (
            f"warning: {self._path} is not what was written before the checkpoint: it has "
            f"{what if self._lines != written['lines'] else 'a changed line'}. Training does not need it and continues; restore it from a "
            "copy, or the report will show what is there."
        )
        print(as_typed(message), file=sys.stderr, flush=True)

    def close(self) -> None:
        self._file.close()
        self._events.close()
        self._copy.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Events:
    """TensorBoard's events, written at once: the thread of tensorboardX's `SummaryWriter` dies of a full disk, and `add_scalar` then waits
    for it forever.
    """

    def __init__(self, directory: Path, purge_step: int | None) -> None:
        # 0.3 s that readers of metrics need not wait for
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        directory.mkdir(parents=True, exist_ok=True)
        # Its file names count whole seconds: a quick restart would overwrite the file of the run before.
        self._writer = EventsWriter(str(directory / "events"), f".{time.time_ns()}")
        if purge_step is not None:
            self._writer.write_event(Event(step=purge_step, file_version="brain.Event:2"))
            self._writer.write_event(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in scalars.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def read_metrics(directory: str | Path) -> list[dict[str, Any]]:
    """The lines of `directory/metrics.jsonl` in order; none if there is no such file. A torn line (a crash while writing) is left out."""
    path = resolve_path(directory) / FILE
    if not path.exists():
        return []
    return [line for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if (line := _parsed(text)) is not None]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _keep(directory: Path, target: Path, resume_step: int | None, evaluated: bool) -> list[str]:
    """Rewrite the file with its whole lines up to the step in `target`, and give them back; the old file is whole until the new one is."""

    def stays(line: Mapping[str, Any]) -> bool:
        if resume_step is None:
            return True
        return 0 < resume_step >= line["step"] and (evaluated or (line["step"], line.get("split")) != (resume_step, "valid"))

    if not (directory / FILE).exists():
        return []
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in read_metrics(directory) if stays(line)]
    write_whole(target / FILE, "".join(lines))
    return lines


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
