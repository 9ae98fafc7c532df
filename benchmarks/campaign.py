"""Trainings and their evaluations that take many hours: what an hour buys, and which choices matter at equal time.

    python benchmarks/finetuning_data.py --published=DOWNLOADS --output=sets
    python benchmarks/campaign.py --corpora=CORPORA --sets=sets --workdir=runs/campaign --output=benchmarks/results/campaign --list
    python benchmarks/campaign.py --corpora=CORPORA --sets=sets --workdir=runs/campaign --output=benchmarks/results/campaign

CORPORA has zh.train.txt, zh.valid.txt, en.train.txt, en.valid.txt, large/zh_wikipedia.txt.xz and large/en_wikipedia.txt.xz. The cells are
in benchmarks/cells, a module per family. A cell that is measured adds a line to OUTPUT.jsonl; the same command goes on with the others,
and with the training that was interrupted, however it was: trainings are runs of train.py and resume like any other. It begins and ends
with what is left, and about how many hours that takes here, by the trainings that ended so far.

Equal time is an equal time of training steps on a machine that does nothing else. Stopping by the clock would not be reproducible, nor
would the learning rate then reach zero at the end. So the first cell of a family, FAMILY/LANGUAGE/speed, times steps of all its
pre-trainings by turns; the rates are stored and fix the numbers of steps. From then on speed does not matter to a cell, and other work
may run beside it. Cells marked with * measure a speed themselves: give them the machine alone.
"""

import argparse
import fnmatch
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import all_cells
from cells.cell import Cell, Training
from lines import Line, Lines
from machine import processor, versions
from trainings import Deadline, Failed, OutOfTime, Trainings

from bert_jax.errors import InputError
from bert_jax.storage.files import only_writer

START_SECONDS = 60.0
"""About how long vocabulary, records, compilation and evaluation of a pre-training take."""
SCORES = ("accuracy", "from_scratch_accuracy", "linear_accuracy")


class Campaign:
    """Cells, what was measured of them, and their trainings."""

    def __init__(self, cells: Sequence[Cell], lines: Lines, trainings: Trainings) -> None:
        self.cells, self.lines, self.trainings, self.machine = cells, lines, trainings, processor()

    def key(self, cell: Cell) -> Line:
        """What a line must say to be the result of a cell; rates are those of a machine.

        Raises:
            InputError: there is no such configuration, or it has no such value.
        """
        digests = {name: self.trainings.digest(training) for name, training in cell.trainings.items()}
        if cell.timed:
            return {"cell": cell.name, "timed": [self.trainings.digest(training) for training in cell.timed], "machine": self.machine}
        return {"cell": cell.name, "trained": digests}

    def is_done(self, cell: Cell) -> bool:
        """Whether there is a line of the cell."""
        return bool(self.lines.of(self.key(cell)))

    def lacks(self, cell: Cell) -> str:
        """Why a cell cannot be measured, or an empty string."""
        try:
            self.key(cell)
        except InputError as error:
            return str(error).partition(". ")[0]
        for training in (*cell.timed, *needed(cell)):
            if self._needs_rate(training) and (reason := self.lacks(self._speed(training))):
                return reason
            config = self.trainings.config(training)
            named = [config.corpus.source, config.corpus.valid_source] if config.pretrain else []
            named += [config.finetune.data.train, config.finetune.data.test] if config.finetune else []
            for path in named:
                if "/" in path and not Path(path).exists():
                    return f"there is no {path}"
        return ""

    def measure(self, cell: Cell) -> None:
        """Make all that is missing of a cell, and add its line.

        Raises:
            OutOfTime, Failed: see there.
        """
        if cell.timed:
            self._time(cell)
            return
        for training in needed(cell):
            if self.trainings.summary(training) is None:
                self.trainings.run(training, self._steps(training) if training.minutes else 0)
        results = {name: self.trainings.spent(training) | self._result(training) for name, training in cell.trainings.items()}
        self.lines.add(self.key(cell) | {"machine": self.machine, "versions": versions([]), "results": results})

    def _time(self, cell: Cell) -> None:
        missing = [training for training in cell.timed if not self.rate(training)]
        rates = self.trainings.time_steps(missing)
        named = {self.trainings.digest(training): rates.get(training) or self.rate(training) for training in cell.timed}
        self.lines.add(self.key(cell) | {"versions": versions([]), "rates": named})

    def rate(self, training: Training) -> dict[str, float] | None:
        """The measured rate of a pre-training on this machine."""
        digest = self.trainings.digest(training.steps)
        found = [line["rates"] for line in self.lines.of({"machine": self.machine}) if digest in line.get("rates", {})]
        return found[-1][digest] if found else None

    def _speed(self, training: Training) -> Cell:
        """The cell that times the training."""
        return next(cell for cell in self.cells if training.steps in cell.timed)

    def _needs_rate(self, training: Training) -> bool:
        """Whether its number of steps is not known."""
        return bool(training.minutes) and not self.trainings.steps(training) and not self.rate(training)

    def _steps(self, training: Training) -> int:
        if steps := self.trainings.steps(training):
            return steps
        if self._needs_rate(training):
            self._time(self._speed(training))
        rate = self.rate(training)
        assert rate
        return max(1, round(60 * training.minutes / rate["seconds_per_step"]))

    def _result(self, training: Training) -> dict[str, Any]:
        """The numbers of a finished training, with the standard error of each accuracy."""
        summary = self.trainings.summary(training)
        assert summary is not None
        found: dict[str, Any] = {}
        for stage, result in summary.items():
            found[stage] = {name: value for name, value in result.items() if name == "repeats" or isinstance(value, int | float)}
            for score in SCORES:
                if result.get(score) is not None:
                    found[stage][f"{score}_error"] = standard_error(result[score], result["test_examples"])
        if training.minutes:
            found["pretrain"] |= {"minutes": training.minutes, "rate": self.rate(training)}
        return found

    def left(self, cell: Cell) -> dict[str, float]:
        """About how many seconds each part of a cell takes that is missing: a training, or a cell that times steps."""
        if cell.timed:
            timing = self.trainings.timing
            return {cell.name: len(cell.timed) * timing.rounds * (timing.seconds + START_SECONDS / 2)}
        found: dict[str, float] = {}
        for training in needed(cell):
            if self.trainings.summary(training) is None:
                found |= self.left(self._speed(training)) if self._needs_rate(training) else {}
                found[self.trainings.digest(training)] = self._expected(training)
        return found

    def _expected(self, training: Training) -> float:
        if training.minutes:
            return START_SECONDS + 60 * training.minutes * (1 - self.trainings.progress(training))
        return self.trainings.usual_seconds(training) or training.seconds

    def print_state(self, chosen: Sequence[Cell], every: bool) -> None:
        """Print what is done and left; `every` cell has a line of its own."""
        done, waiting, left = 0, 0, dict[str, float]()
        for cell in chosen:
            if reason := self.lacks(cell):
                state, waiting = f"waits: {reason}", waiting + 1
            elif self.is_done(cell):
                state, done = "done", done + 1
            else:
                own = {part: seconds for part, seconds in self.left(cell).items() if part not in left}
                state, left = f"about {sum(own.values()) / 60:.0f} min", left | own
            if every:
                print(f"{'*' if cell.alone else ' '} {cell.name:<36}{state}")
        text = f"{done} of {len(chosen)} cells are done; the others take about {sum(left.values()) / 3600:.1f} hours here"
        print(text + (f", but {waiting} cannot be measured yet." if waiting else "."), flush=True)


def needed(cell: Cell) -> list[Training]:
    """The trainings of a cell, each after the one that it starts from."""
    found: dict[Training, None] = {}
    for training in cell.trainings.values():
        chain = [training]
        while chain[-1].start:
            chain.append(chain[-1].start)
        found |= dict.fromkeys(reversed(chain))
    return list(found)


def standard_error(share: float, count: int) -> float:
    """The standard error of a share of so many independent examples."""
    return math.sqrt(share * (1 - share) / count)


def table(lines: Sequence[Line]) -> list[str]:
    """The rows of a table: of each pre-training its held-out figures, of each fine-tuning the accuracy and the standard error."""
    rows = []
    for line in lines:
        shown = []
        for name, result in line["results"].items():
            if held_out := result.get("pretrain"):
                bits, tokens = held_out.get("mlm_bits_per_character", math.nan), held_out["real_tokens"]
                shown.append(f"{name} {bits:.3f} bits per character after {tokens / 1e6:.1f}M tokens")
            tuned = result.get("finetune", {})
            for score in (score for score in SCORES if score in tuned):
                shown.append(f"{name} {score.replace('_', ' ')} {100 * tuned[score]:.1f} ± {100 * tuned[f'{score}_error']:.1f}%")
        rows.append(f"{line['cell']}: " + "; ".join(shown))
    return rows


def main() -> int:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="the folder of the corpora")
    parser.add_argument("--sets", type=Path, required=True, help="the folder that finetuning_data.py wrote")
    parser.add_argument("--workdir", type=Path, required=True, help="for the runs and the prepared records")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    parser.add_argument("--minutes", type=float, default=10.0, help="of pre-training on two cores per cell of a claim (default: 10)")
    parser.add_argument("--only", default="*", metavar="GLOB", help="only these cells, such as 'covering/zh/*'")
    parser.add_argument("--list", action="store_true", help="print every cell and whether it is done, and measure nothing")
    parser.add_argument("--until", type=float, default=math.inf, metavar="SECONDS", help="save and end within this time")
    parser.add_argument("--tiny", action="store_true", help="models of a few hundred parameters on a few examples, for a trial")
    flags = parser.parse_args()
    cells = all_cells(flags.minutes)
    chosen = [cell for cell in cells if fnmatch.fnmatch(cell.name, flags.only)]
    if not chosen:
        parser.error(f"--only={flags.only} matches no cell; --list names them all")
    places = {"corpora": flags.corpora.absolute(), "sets": flags.sets.absolute()}
    trainings = Trainings(flags.workdir.absolute(), places, Deadline(flags.until), flags.tiny)
    campaign = Campaign(cells, Lines(flags.output.with_suffix(".jsonl")), trainings)
    if flags.list:
        campaign.print_state(chosen, every=True)
        return 0
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with only_writer(trainings.folder):
        return measure(campaign, chosen)


def measure(campaign: Campaign, chosen: Sequence[Cell]) -> int:
    """Measure the missing cells in order; the exit status."""
    campaign.print_state(chosen, every=False)
    failed = 0
    try:
        for cell in chosen:
            if campaign.lacks(cell) or campaign.is_done(cell):
                continue
            print(f"{cell.name}: about {sum(campaign.left(cell).values()) / 60:.0f} min", flush=True)
            try:
                campaign.measure(cell)
            except Failed as error:
                failed += 1
                print(f"{cell.name} failed: {error}", flush=True)
    except OutOfTime:
        print("The time is up; the same command goes on.")
    done = [line for cell in chosen if cell.trainings and not campaign.lacks(cell) for line in campaign.lines.of(campaign.key(cell))[-1:]]
    print("\n".join(table(done)))
    campaign.print_state(chosen, every=bool(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
