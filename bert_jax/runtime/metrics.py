"""Metrics of a run, as JSON lines and as TensorBoard events."""

import hashlib
import json
import math
import numbers
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from bert_jax.errors import as_typed
from bert_jax.storage.files import DiskCopy, resolve_path, write_whole

FILE = "metrics.jsonl"
TIMINGS = ("real_tokens_per_second", "model_flops_per_second", "mfu", "data_wait")
"""Fields that measure speed; all other fields are identical when a run is repeated."""
_MOST_BYTES, _MARKED = 1 << 20, 256
_OFFSET = re.compile("[0-9]{1,18}")
_PUBLISH_EVERY = 10.0
"""Seconds; a bucket accepts at most one update per second to the same object."""


class MetricsWriter:
    """Appends to `directory/metrics.jsonl` and to TensorBoard events in `directory/tensorboard`; only one process of a run writes.

    With `resume_step`, the lines and events after that step are dropped, because the run is about to produce them again; 0 drops
    everything. Without it, new lines are appended to the existing ones. The evaluation at that step is kept if `evaluated`.
    """

    def __init__(self, directory: str | Path, resume_step: int | None = None, evaluated: bool = True) -> None:
        directory = resolve_path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._path, self._copy, self._published = directory / FILE, DiskCopy(directory), time.monotonic()
        kept = _keep(directory, self._copy.folder, resume_step, evaluated)
        self._lines, self._digest = len(kept), hashlib.sha256("".join(kept).encode())
        self._file = (self._copy.folder / FILE).open("a", encoding="utf-8")
        # TensorBoard discards events from the purge step onward.
        purge_step = None if resume_step is None else resume_step + 1 if resume_step else 0
        self._events = _Events(self._copy.folder / "tensorboard", purge_step)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Write the metrics of one split ("train", "valid", …) at one step. Non-finite numbers become null."""
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
        """Upload what was written if the directory is in a bucket. A checkpoint that refers to these lines is saved afterwards."""
        self._copy.publish()
        self._published = time.monotonic()

    def mark(self) -> dict[str, Any]:
        """Return the number of lines and their SHA-256 as JSON values, for a later `compare`."""
        return {"lines": self._lines, "sha256": self._digest.hexdigest()}

    def compare(self, written: Mapping[str, Any]) -> None:
        """Warn on stderr if the lines differ from those recorded by `mark`."""
        if self.mark() == written:
            return
        steps = [line["step"] for line in read_metrics(self._copy.folder)]
        what = f"{self._lines:,} intact lines{f', the last at step {steps[-1]}' if steps else ''}, but {written['lines']:,} were written"
        message = (
            f"Warning: {self._path} has changed since the checkpoint was saved: it has "
            f"{what if self._lines != written['lines'] else 'a changed line'}. Training does not need it and continues. Restore it from a "
            "backup; otherwise the report will show the file as it is now."
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
    """Writes TensorBoard events synchronously.

    The writer thread of tensorboardX's `SummaryWriter` dies when the disk is full, and `add_scalar` then waits for it forever.
    """

    def __init__(self, directory: Path, purge_step: int | None) -> None:
        # Takes 0.3 s to import, which code that only reads metrics should not have to wait for.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        directory.mkdir(parents=True, exist_ok=True)
        # File names have a resolution of one second, so a quick restart would overwrite the file of the previous run.
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
    """Return the lines of `directory/metrics.jsonl` in order, or an empty list if the file does not exist.

    Lines truncated by a crash are skipped.
    """
    path = resolve_path(directory) / FILE
    if not path.exists():
        return []
    return [line for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if (line := _parsed(text)) is not None]


class NewLines(NamedTuple):
    """Lines of a metrics file that a reader has not seen.

    Attributes:
        lines: the lines, in order.
        place: where they end, for the next call.
        anew: whether they begin at the beginning: what was read before is not in the file any more, because the run was resumed.
        more: whether there may be more already.
    """

    lines: list[dict[str, Any]]
    place: str
    anew: bool
    more: bool


def read_new_metrics(directory: str | Path, place: str = "", most: int = _MOST_BYTES) -> NewLines:
    """Return the lines of `directory/metrics.jsonl` after a place, none of them if the file does not exist.

    A place is the number of bytes before it and a hash of the last of them, because a resumed run may have replaced the file by one that
    is as long. A last line that is not complete is left for the next call.

    Args:
        directory: the directory of a stage.
        place: `NewLines.place` of the previous call; empty to begin.
        most: the number of bytes to read at once.
    """
    try:
        file = (resolve_path(directory) / FILE).open("rb")
    except FileNotFoundError:
        return NewLines([], "", bool(place), False)
    with file:
        given, _, _ = place.partition("-")
        before = int(given) if _OFFSET.fullmatch(given) else 0
        offset = before if _place(file, before) == place else 0
        file.seek(offset)
        chunk = file.read(most)
        end = chunk.rfind(b"\n") + 1 or (most if len(chunk) == most else 0)  # what never ends is no line
        texts = chunk[:end].decode(errors="replace").split("\n")
        lines = [line for text in texts if (line := _parsed(text)) is not None]
        return NewLines(lines, _place(file, offset + end), offset < before, end > 0 and len(chunk) == most)


def _place(file: BinaryIO, offset: int) -> str:
    start = max(0, offset - _MARKED)
    file.seek(start)
    return f"{offset}-{hashlib.sha256(file.read(offset - start)).hexdigest()[:16]}"


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        # NaN and Infinity, which only other programs write here, are no JSON: as in lines of this one, there is no value.
        line = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _keep(directory: Path, target: Path, resume_step: int | None, evaluated: bool) -> list[str]:
    """Write the intact lines up to the resumed step to `target` and return them; the old file stays until the new one is complete."""

    def is_kept(line: Mapping[str, Any]) -> bool:
        if resume_step is None:
            return True
        return 0 < resume_step >= line["step"] and (evaluated or (line["step"], line.get("split")) != (resume_step, "valid"))

    if not (directory / FILE).exists():
        return []
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in read_metrics(directory) if is_kept(line)]
    write_whole(target / FILE, "".join(lines))
    return lines


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
