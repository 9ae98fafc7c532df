"""Inspect images or recordings before training: their sizes, problems, classes, copies and leaks, and the steps per epoch."""

import dataclasses
import functools
import math
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from bert_jax.data.epoch import EpochCounter
from bert_jax.data.records.encoding import cores
from bert_jax.errors import InputError, as_typed
from bert_jax.modalities.inspection import Asked, bars, share
from bert_jax.modalities.media.extractor import Extractor, Unreadable
from bert_jax.modalities.media.items import content_hash
from bert_jax.modalities.media.listing import Entry, Listing, has_columns, open_listing
from bert_jax.modalities.media.sources import Source
from bert_jax.runtime.progress import WorkProgress

_NAMED = 20
"""Number of unreadable files, and of classes, that are named."""
_EXAMPLES = 5
_HASH_BYTES = 16
_TOTALS: Mapping[str, tuple[float, str]] = {"seconds": (3600, "hours")}
"""Quantities that are added up, with the divisor and the unit of the sum."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Sizes:
    """The sizes of files, as the medium measures them: width and height in pixels, or seconds.

    Attributes:
        names: what is measured.
        smallest: the size of the smallest file, by the product of the quantities.
        median: the size of the file in the middle.
        largest: the size of the largest file.
        total: the sum over all files, of quantities that can be added up.
        histogram: of the smaller quantity, which for images is the side that is resized: lower bound, upper bound (exclusive), and count.
    """

    names: tuple[str, ...]
    smallest: tuple[float, ...]
    median: tuple[float, ...]
    largest: tuple[float, ...]
    total: dict[str, float]
    histogram: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Overlap:
    """Files of evaluation data whose copies are in the corpus; `examples` names the first ones with a copy."""

    source: str
    files: int
    found: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MediaInspection:
    """The result of `inspect`; `str()` formats it as a report.

    Only `files`, `bytes`, `unreadable` and `problems` include files that cannot be read.

    Attributes:
        source: the corpus.
        noun: what a file holds, such as "image".
        files: number of files.
        bytes: their size.
        unreadable: number of files that cannot be read.
        problems: the first of these, with their problems.
        sizes: width and height, or durations.
        classes: number of files in each class, the most frequent first; empty if the corpus has no classes.
        copies: files with the same content as an earlier one.
        copy_examples: the first copies, each with the first file that has the same content.
        units: number of units.
        fewest_units: the fewest units in a file.
        most_units: the most units in a file.
        row_length: tokens per row.
        batch_size: rows per step.
        rows: rows per epoch of the training data, which is the corpus without the held-out files.
        fill: fraction of the tokens in these rows that are not padding.
        overlaps: leaks, for each evaluation set.
    """

    source: str
    noun: str
    files: int
    bytes: int
    unreadable: int
    problems: tuple[str, ...]
    sizes: Sizes
    classes: dict[str, int]
    copies: int
    copy_examples: tuple[tuple[str, str], ...]
    units: int
    fewest_units: int
    most_units: int
    row_length: int
    batch_size: int
    rows: int
    fill: float
    overlaps: tuple[Overlap, ...]

    @property
    def steps_per_epoch(self) -> float:
        """Number of batches in one pass over the training data."""
        return self.rows / self.batch_size

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return dataclasses.asdict(self) | {"steps_per_epoch": self.steps_per_epoch}

    def __str__(self) -> str:
        readable, sizes = self.files - self.unreadable, self.sizes
        per_file = f"{self.fewest_units:,}" + (f" to {self.most_units:,}" if self.most_units > self.fewest_units else "")
        totals = [f", {sizes.total[name] / divisor:,.2f} {unit} in all" for name, (divisor, unit) in _TOTALS.items() if name in sizes.total]
        lines = [
            f"corpus           {self.source}",
            f"files            {self.files:,} of {self.bytes:,} bytes: {share(self.unreadable, self.files)} unreadable, "
            f"{share(self.copies, readable)} repeated",
            f"{' x '.join(sizes.names):15}  median {_shown(sizes.median)}, smallest {_shown(sizes.smallest)}, "
            f"largest {_shown(sizes.largest)}{''.join(totals)}",
            f"units            {self.units:,}: {per_file} per {self.noun}",
            f"steps per epoch  {self.steps_per_epoch:,.1f} of {self.batch_size:,} rows of {self.row_length} units, {self.fill:.1%} full",
            "",
            f"{self.noun}s by {'the smaller of ' * (len(sizes.names) > 1)}{' and '.join(sizes.names)}",
            *bars([(f"{_number(low):>11} to <{_number(high):>10}", count) for low, high, count in sizes.histogram]),
        ]
        if self.classes:
            lines += ["", f"{len(self.classes):,} classes", *bars([(f"{name:>25}", n) for name, n in [*self.classes.items()][:_NAMED]])]
            lines += _more(len(self.classes) - _NAMED)
        if self.unreadable:
            lines += ["", "unreadable files", *(f"  {problem}" for problem in self.problems), *_more(self.unreadable - len(self.problems))]
        if self.copies:
            lines += ["", "copies", *(f"  {copy} is a copy of {first}" for copy, first in self.copy_examples)]
            lines += _more(self.copies - len(self.copy_examples))
        for overlap in self.overlaps:
            found = share(overlap.found, overlap.files)
            lines += ["", f"{overlap.source}: of {overlap.files:,} {self.noun}s, {found} are also in the corpus"]
            lines += [f"  {name} is a copy of {other}" for name, other in overlap.examples] + _more(overlap.found - len(overlap.examples))
        return as_typed("\n".join(lines))


def inspect(asked: Asked, extractor: Extractor, open_source: Callable[[str], Source], train_fraction: float) -> MediaInspection:
    """Read all files once, on all cores. Memory grows by about 32 bytes per file in addition to its path.

    Args:
        asked: what to inspect; the corpus may also be a table with a column of paths.
        extractor: what turns a file into units.
        open_source: opens a source that is not a table.
        train_fraction: the fraction of the files that is not held out.

    Raises:
        InputError: the corpus or evaluation data are missing, empty, or have no file that can be read; or columns are named, but there is
            no table.
    """
    if (asked.text or asked.label) and not any(map(has_columns, [asked.source, *map(str, asked.evaluation_files)])):
        raise InputError(f"{asked.source} is neither a table nor a data set, so it has no columns: leave out --text and --label.")
    listing = open_listing(asked.source, asked, open_source)
    evaluations = [_Evaluation(path, open_listing(str(path), asked, open_source), asked.show_progress) for path in asked.evaluation_files]
    tally = _Tally(extractor, EpochCounter(asked.rows))
    with WorkProgress("inspect", "files", listing.count, asked.show_progress) as progress:
        for seen in _on_all_cores(functools.partial(_look, extractor=extractor), listing.entries()):
            progress.update(1)
            tally.add(seen)
            for evaluation in evaluations:
                evaluation.look_for(seen)
    if not tally.units:
        first = f" The first of {tally.files:,} files: {tally.problems[0]}." if tally.files else ""
        raise InputError(f"The corpus {asked.source} has no {extractor.noun} that can be read.{first}")
    tally.epoch.finish()
    copies = _copies(tally.hashes)
    return MediaInspection(
        source=asked.source,
        noun=extractor.noun,
        files=tally.files,
        bytes=tally.bytes,
        unreadable=tally.unreadable,
        problems=tuple(tally.problems),
        sizes=_sizes(tally.measured),
        classes=dict(tally.classes.most_common()),
        copies=len(copies),
        copy_examples=_named(copies[:_EXAMPLES], listing),
        units=sum(count * files for count, files in tally.units.items()),
        fewest_units=min(tally.units),
        most_units=max(tally.units),
        row_length=asked.rows.length,
        batch_size=asked.batch_size,
        rows=round(tally.epoch.rows * train_fraction),
        fill=tally.epoch.fill,
        overlaps=tuple(evaluation.overlap for evaluation in evaluations),
    )


class _Seen(NamedTuple):
    """What is kept of a file; `problem` says why it cannot be read."""

    entry: Entry
    size: int
    digest: bytes = b""
    units: int = 0
    measured: Mapping[str, float] = {}
    problem: str = ""


def _look(entry: Entry, extractor: Extractor) -> _Seen:
    size = 0
    try:
        item = entry.item()
        size = item.size
        content = item.read()
        units, measured = extractor.extract_and_measure(content)
        return _Seen(entry, size, content_hash(content)[:_HASH_BYTES], len(units), measured)
    except Unreadable as error:
        return _Seen(entry, size, problem=str(error))


def _digest(entry: Entry) -> bytes:
    try:
        return content_hash(entry.item().read())[:_HASH_BYTES]
    except Unreadable:
        return b""


class _Tally:
    """What is known of the files so far."""

    def __init__(self, extractor: Extractor, epoch: EpochCounter) -> None:
        self.files = self.bytes = self.unreadable = 0
        self.problems: list[str] = []
        self.hashes = bytearray()
        self.classes: Counter[str] = Counter()
        self.units: Counter[int] = Counter()
        self.measured: dict[str, array[float]] = {}
        self.epoch = epoch
        self._extractor = extractor

    def add(self, seen: _Seen) -> None:
        # The number of an unreadable file stands for its hash, so that it is the copy of none.
        self.hashes += seen.digest or self.files.to_bytes(_HASH_BYTES)
        self.files += 1
        self.bytes += seen.size
        if seen.problem:
            self.unreadable += 1
            if len(self.problems) < _NAMED:
                self.problems.append(f"{seen.entry.name} {seen.problem}")
            return
        if seen.entry.label is not None:
            self.classes[seen.entry.label] += 1
        self.units[seen.units] += 1
        self.epoch.add(seen.units, self._extractor.parts(seen.units))
        for name, value in seen.measured.items():
            self.measured.setdefault(name, array("d")).append(value)


class _Evaluation:
    """The files of evaluation data, and those whose copies were found in the corpus so far."""

    def __init__(self, path: Path, listing: Listing, show_progress: bool) -> None:
        self._path, self._files = path, 0
        self._names: dict[bytes, list[str]] = {}
        self._found: dict[bytes, str] = {}
        with WorkProgress("evaluation", "files", listing.count, show_progress) as progress:
            for name, digest in _on_all_cores(lambda entry: (entry.name, _digest(entry)), listing.entries()):
                progress.update(1)
                if digest:
                    self._files += 1
                    self._names.setdefault(digest, []).append(name)
        if not self._files:
            raise InputError(f"The evaluation data {path} have no file that can be read.")

    def look_for(self, seen: _Seen) -> None:
        if seen.digest in self._names:
            self._found.setdefault(seen.digest, seen.entry.name)

    @property
    def overlap(self) -> Overlap:
        pairs = [(name, self._found[digest]) for digest, names in self._names.items() if digest in self._found for name in names]
        return Overlap(str(self._path), self._files, len(pairs), tuple(pairs[:_EXAMPLES]))


def _on_all_cores(work: Callable[[A], B], inputs: Iterable[A]) -> Iterator[B]:
    """Yield the results in order, with a few inputs at a time in memory. The decoders release Python's lock."""
    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for one in inputs:
                pending.append(pool.submit(work, one))
                if len(pending) > 2 * cores():
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _copies(hashes: bytearray) -> NDArray[np.int64]:
    """Return the index of each file whose content an earlier file has, and of the first such file: int64 [copies, 2]."""
    keys = np.frombuffer(hashes, np.uint64).reshape(-1, 2)
    order = np.lexsort(keys.T)  # stable: the first of several copies comes first
    begins = np.r_[True, (keys[order[1:]] != keys[order[:-1]]).any(1)]
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    pairs = np.stack([order, first], 1)[~begins]
    return pairs[pairs[:, 0].argsort()]


def _named(pairs: NDArray[np.int64], listing: Listing) -> tuple[tuple[str, str], ...]:
    """Return the names of files, given by their indices."""
    wanted = set(pairs.ravel().tolist())
    last = max(wanted, default=-1)
    names = {index: entry.name for index, entry in zip(range(last + 1), listing.entries(), strict=False) if index in wanted}
    return tuple((names[copy], names[first]) for copy, first in pairs.tolist())


def _sizes(measured: Mapping[str, Sequence[float]]) -> Sizes:
    values = np.stack([np.asarray(column) for column in measured.values()], 1)
    order = values.prod(1).argsort(kind="stable")
    smallest, median, largest = (tuple(values[order[place]].tolist()) for place in (0, (len(order) - 1) // 2, -1))
    # frexp returns e with 2^(e-1) <= value < 2^e.
    exponents = Counter(np.frexp(values.min(1))[1].tolist())
    bins = range(min(exponents), max(exponents) + 1)
    histogram = tuple((math.ldexp(1, e - 1), math.ldexp(1, e), exponents[e]) for e in bins)
    total = {name: math.fsum(column) for name, column in measured.items() if name in _TOTALS}
    return Sizes(tuple(measured), smallest, median, largest, total, histogram)


def _number(value: float) -> str:
    """Format whole numbers in full, and others with three digits."""
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:.3g}"


def _shown(size: Sequence[float]) -> str:
    return " x ".join(map(_number, size))


def _more(count: int) -> list[str]:
    return [f"  and {count:,} more"] if count > 0 else []
