"""Progress display: a live line on a terminal, periodic plain lines in a log file."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from tqdm import tqdm

from bert_jax.runtime.terminal import count, duration

TERMINAL_SECONDS = 0.1
LOG_SECONDS = 10.0


def _on_terminal() -> bool:
    """Return whether a line can be redrawn: stderr is a terminal with a known width (some containers report 0)."""
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


class _Progress:
    """A context manager for one updating line: redrawn on a terminal, printed at most every `LOG_SECONDS` elsewhere."""

    def __init__(self, name: str, total: int | None, initial: int, show: bool) -> None:
        self._name, self._total, self._count, self._show = name, total, initial, show
        self._terminal = _on_terminal()
        self._first: tuple[float, int] | None = None
        self._last_drawn = float("-inf")
        self._line = ""
        # The bar comes last, since a narrow terminal truncates the end of the line.
        form, hidden = "{desc}  {bar:16}", not (show and self._terminal)
        self._bar = tqdm(desc=name, total=total, initial=initial, file=sys.stderr, dynamic_ncols=True, bar_format=form, disable=hidden)

    def message(self, text: str) -> None:
        """Print a separate line without disturbing the live one."""
        if self._show and self._terminal:
            self._bar.write(text, file=sys.stderr)
        elif self._show:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Show the final state and end the line."""
        self._flush()
        self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _draw(self, *parts: str) -> None:
        self._line = "  ".join(part for part in (self._name, *parts, self._left()) if part)
        if time.monotonic() - self._last_drawn >= (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            self._flush()

    def _flush(self) -> None:
        if self._show and self._line and self._terminal:
            self._bar.n = self._count
            self._bar.set_description_str(self._line)
        elif self._show and self._line:
            print(self._line, file=sys.stderr, flush=True)
        self._line, self._last_drawn = "", time.monotonic()

    def _left(self) -> str:
        """Return the time left, based on the rate since the first call. Startup (compilation, opening files) is a one-time cost."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, self._count)
        then, first_count = self._first
        if self._total is None or self._count <= first_count:
            return ""
        return "left " + duration((self._total - self._count) * (now - then) / (self._count - first_count))


# Metric -> how it is displayed. All other metrics go to the files only.
_TRAINING_FIELDS: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.3f}",
    "mlm_accuracy": lambda value: f"mlm {100 * value:.1f}%",
    "nsp_accuracy": lambda value: f"nsp {100 * value:.1f}%",
    "accuracy": lambda value: f"accuracy {100 * value:.1f}%",
    "real_tokens_per_second": lambda value: f"{count(value)} tok/s",
    "mfu": lambda value: f"mfu {100 * value:.0f}%",
    "padding": lambda value: f"pad {100 * value:.1f}%",
    "skipped_updates": lambda value: f"skipped {value:.0f}" if value else "",
}


class TrainingProgress(_Progress):
    """`pretrain  1200/5000  loss 3.214  mlm 25.1%  nsp 81.0%  21.3k tok/s  mfu 41%  pad 3.1%  left 3:10`."""

    def __init__(self, total: int, initial: int, name: str, show: bool = True) -> None:
        super().__init__(name, total, initial, show)

    def update(self, step: int, fields: Mapping[str, Any]) -> None:
        """Show the step and the displayed metrics among `fields`, whose keys are names from the metrics file."""
        self._count = step
        self._draw(f"{step}/{self._total}", *(show(fields[name]) for name, show in _TRAINING_FIELDS.items() if name in fields))


class WorkProgress(_Progress):
    """`prepare  12.3M/85.0M B  2.1M B/s  left 0:34`: work counted in units such as bytes or texts, whose total may be unknown.

    `initial` units were finished earlier and do not count toward the rate.
    """

    def __init__(self, name: str, unit: str, total: int | None = None, show: bool = True, initial: int = 0) -> None:
        super().__init__(name, total, initial, show)
        self._unit, self._initial, self._started = unit, initial, time.monotonic()

    def update(self, done: int) -> None:
        """Add `done` units to the finished ones."""
        self._count += done
        of = "" if self._total is None else f"/{count(self._total)}"
        rate = (self._count - self._initial) / max(time.monotonic() - self._started, 1e-9)
        self._draw(f"{count(self._count)}{of} {self._unit}", f"{count(rate)} {self._unit}/s")
