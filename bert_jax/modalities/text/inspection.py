"""Inspect a corpus before training: its size, its problems, and the number of steps per epoch."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.config import CorpusConfig, RowsConfig
from bert_jax.data.epoch import EpochCounter
from bert_jax.data.records.encoding import encode
from bert_jax.data.records.record import EncodedDocument
from bert_jax.data.tables import TABLES, file_format, read_lines, read_records
from bert_jax.errors import InputError
from bert_jax.modalities.inspection import bars, share
from bert_jax.modalities.text.encoding import DocumentEncoder, document_sentences
from bert_jax.modalities.text.files import SUFFIXES, count_dropped
from bert_jax.modalities.text.sentences import WORD_MARK
from bert_jax.modalities.text.sources import Source, open_source
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.runtime.progress import WorkProgress
from bert_jax.storage.files import on_disk

_SHORT = 10
"""Texts of fewer characters are common phrases rather than copies."""
_EXAMPLES = 5
_SCRIPT_CHARACTERS = 1_000_000
"""After so many, the script of a corpus is known."""
_MOST_HASHES = 2_000_000


@dataclass(frozen=True)
class Overlap:
    """Texts of an evaluation file that also appear in the corpus as a complete sentence, paragraph or document, ignoring whitespace."""

    file: str
    texts: int
    found: int
    short: int
    """Number of texts found that are shorter than ten characters."""
    examples: tuple[tuple[int, str], ...]
    """The first texts found, with their line numbers; texts of ten characters or more come first."""


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`; `str()` formats it as a report."""

    source: str
    documents: int
    sentences: int
    characters: int
    visible_characters: int
    """Characters other than white space."""
    script: str
    """`han` or `latin` if most letters at the beginning of the corpus are Chinese characters or A to Z; otherwise empty."""
    dropped_characters: int
    """Control characters, and U+FFFD for bytes that were not UTF-8; they become tokens only in a vocabulary of bytes."""
    single_sentence_documents: int
    """Documents from which no next-sentence pair can be made."""
    repeated_documents: int
    """Copies of earlier documents, ignoring whitespace."""
    repeated_sentences: int
    repeats_estimated: bool
    """Whether the corpus is so large that the numbers of repeats are estimated from a sample."""
    tokens: int | None
    """None without a vocabulary, as are all other fields that need one."""
    unknown_tokens: int | None
    lengths: tuple[tuple[int, int, int], ...]
    """Histogram of document lengths, in tokens, or in characters without a vocabulary: minimum length, maximum length, and count."""
    row_length: int
    batch_size: int
    rows: int | None
    """Rows per epoch of the training text, which is the corpus without the held-out documents."""
    fill: float | None
    """Fraction of the tokens in these rows that are not padding."""
    overlaps: tuple[Overlap, ...]

    @property
    def steps_per_epoch(self) -> float | None:
        """Number of batches in one pass over the training text."""
        return None if self.rows is None else self.rows / self.batch_size

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return dataclasses.asdict(self) | {"steps_per_epoch": self.steps_per_epoch}

    def __str__(self) -> str:
        about = "about " * self.repeats_estimated
        lines = [
            f"corpus           {self.source}",
            f"documents        {self.documents:,}: {about}{share(self.repeated_documents, self.documents)} repeated, "
            f"{share(self.single_sentence_documents, self.documents)} with only one sentence, too short for a next-sentence pair",
            f"sentences        {self.sentences:,}: {about}{share(self.repeated_sentences, self.sentences)} repeated",
            f"characters       {self.characters:,}"
            + (f": {share(self.dropped_characters, self.characters)} dropped as invalid" if self.dropped_characters else ""),
        ]
        if self.tokens is None or self.unknown_tokens is None or self.rows is None or self.fill is None:
            lines.append("tokens           not counted, as are [UNK] and the steps per epoch: no vocabulary was given")
        else:
            lines += [
                f"tokens           {self.tokens:,}: {share(self.unknown_tokens, self.tokens)} [UNK]",
                f"steps per epoch  {self.steps_per_epoch:,.1f} of {self.batch_size:,} rows of {self.row_length} tokens, "
                f"{self.fill:.1%} full",
            ]
        lines += ["", f"{'characters' if self.tokens is None else 'tokens'} per document", *self._histogram()]
        for overlap in self.overlaps:
            lines += ["", *_overlap_lines(overlap)]
        return "\n".join(lines)

    def _histogram(self) -> Iterator[str]:
        return bars([(f"{shortest:>11,} to {longest:>11,}", count) for shortest, longest, count in self.lengths])


def inspect(
    config: CorpusConfig,
    rows: RowsConfig,
    batch_size: int,
    tokenizer: Tokenizer | None = None,
    evaluation_files: Sequence[Path] = (),
    show_progress: bool = True,
) -> Inspection:
    """Read all of `config.source` once, on all cores.

    Args:
        config: the corpus; its source may also be a labelled .tsv, .csv or .jsonl file, in which each text is a document.
        rows: the training rows, to compute the steps per epoch.
        batch_size: rows per step.
        tokenizer: used to count tokens, if given.
        evaluation_files: .txt files (one text per line) or labelled .tsv, .csv or .jsonl files whose texts should not be in the corpus.
        show_progress: whether to show a progress bar.

    Raises:
        InputError: the corpus or an evaluation file is missing, empty or cannot be read.
    """
    evaluations = [_Evaluation(path) for path in evaluation_files]
    is_table = file_format(Path(config.source)) in TABLES
    source = _Table(on_disk(config.source, "The corpus")) if is_table else open_source(config.source, config)
    documents, sentences = _Repeats(), _Repeats()
    counts: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    letters: Counter[str] = Counter()
    epoch = EpochCounter(rows)
    for paragraphs, tokenized in _read(source, config, tokenizer, show_progress):
        split = document_sentences(paragraphs, config.sentence_ends)
        keys = [_key(sentence) for sentence in split]
        documents.add("".join(keys))
        for key in keys:
            sentences.add(key)
        for evaluation in evaluations:
            evaluation.look_for([*keys, *map(_key, paragraphs), "".join(keys)])
        size = sum(map(len, paragraphs))
        dropped = 0 if tokenizer and tokenizer.kind == "bytes" else sum(map(count_dropped, paragraphs))
        if counts["characters"] < _SCRIPT_CHARACTERS:
            letters.update("".join(keys))
        counts.update(characters=size, visible=sum(map(len, keys)), dropped=dropped, single=len(split) < 2)
        if tokenizer and tokenized:
            size = len(tokenized.tokens)
            counts.update(tokens=size, unknown=int(np.count_nonzero(tokenized.tokens == tokenizer.unk_id)))
            epoch.add(size, tokenized.sentence_starts)
        lengths[size.bit_length()] += 1
    if not documents.seen:
        raise InputError(f"The corpus {config.source} contains no text: everything in it is blank.")
    epoch.finish()
    train_fraction = 1 if config.valid_source else 1 - config.valid_fraction
    return Inspection(
        source=config.source,
        documents=documents.seen,
        sentences=sentences.seen,
        characters=counts["characters"],
        visible_characters=counts["visible"],
        script=_script(letters),
        dropped_characters=counts["dropped"],
        single_sentence_documents=counts["single"],
        repeated_documents=documents.repeats,
        repeated_sentences=sentences.repeats,
        repeats_estimated=documents.estimated or sentences.estimated,
        tokens=counts["tokens"] if tokenizer else None,
        unknown_tokens=counts["unknown"] if tokenizer else None,
        lengths=tuple((1 << bits >> 1, max(0, (1 << bits) - 1), lengths[bits]) for bits in range(min(lengths), max(lengths) + 1)),
        row_length=rows.length,
        batch_size=batch_size,
        rows=round(epoch.rows * train_fraction) if tokenizer else None,
        fill=epoch.fill if tokenizer else None,
        overlaps=tuple(evaluation.overlap for evaluation in evaluations),
    )


@dataclass(frozen=True)
class _Table:
    """The texts of a labelled file as documents."""

    path: Path

    @property
    def stored_bytes(self) -> int | None:
        return None

    def documents(self, on_read: Callable[[int], None]) -> Iterator[list[str]]:
        for _, text in _texts_of_records(self.path):
            on_read(len(text.encode()))
            yield [paragraph.strip() for paragraph in text.splitlines() if paragraph.strip()]


def _read(
    source: Source | _Table, config: CorpusConfig, tokenizer: Tokenizer | None, show_progress: bool
) -> Iterator[tuple[list[str], EncodedDocument | None]]:
    with WorkProgress("inspect", "B", source.stored_bytes, show_progress) as progress:
        texts = source.documents(progress.update)
        if tokenizer is None:
            yield from ((paragraphs, None) for paragraphs in texts)
            return
        # Word segmentation of Chinese is not needed here.
        encoder = DocumentEncoder(tokenizer, dataclasses.replace(config, segmenter="characters"))
        for _, paragraphs, tokenized in encode(((None, paragraphs) for paragraphs in texts), encoder):
            yield paragraphs, tokenized


def _key(text: str) -> str:
    """Return a key that is equal for texts that differ only in whitespace and word marks."""
    return "".join(text.replace(WORD_MARK, "").split())


def _script(letters: Counter[str]) -> str:
    counts = Counter(han=0, latin=0)
    for letter, count in letters.items():
        if letter.isalpha():
            counts["han" if "\u4e00" <= letter <= "\u9fff" else "latin" if letter.isascii() else "other"] += count
    most = max(("han", "latin"), key=counts.__getitem__)
    return most if 2 * counts[most] > counts.total() else ""


class _Repeats:
    """Counts repeated texts in bounded memory; if there are too many texts, it estimates the count from a sample chosen by hash."""

    def __init__(self) -> None:
        self.seen = 0
        self._counts: Counter[int] = Counter()
        self._mask = 0

    def add(self, text: str) -> None:
        self.seen += 1
        digest = int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())
        if digest & self._mask:
            return
        self._counts[digest] += 1
        if len(self._counts) > _MOST_HASHES:
            self._mask = 2 * self._mask + 1
            self._counts = Counter({digest: count for digest, count in self._counts.items() if not digest & self._mask})

    @property
    def estimated(self) -> bool:
        return self._mask > 0

    @property
    def repeats(self) -> int:
        return (self._counts.total() - len(self._counts)) * (self._mask + 1)


class _Evaluation:
    """The texts of an evaluation file, and those found in the corpus so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._texts = dict(_texts_of_lines(path) if path.name.endswith(SUFFIXES) else _texts_of_records(path))
        if not self._texts:
            raise InputError(f"The evaluation file {path} contains no text: it is empty.")
        self._keys = {_key(text) for text in self._texts.values()}
        self._found: set[str] = set()

    def look_for(self, keys: Sequence[str]) -> None:
        self._found.update(self._keys.intersection(keys))

    @property
    def overlap(self) -> Overlap:
        found = [(line, text) for line, text in self._texts.items() if _key(text) in self._found]
        short = [_is_short(text) for _, text in found]
        first = sorted(found, key=lambda item: (_is_short(item[1]), item[0]))[:_EXAMPLES]
        return Overlap(str(self._path), len(self._texts), len(found), sum(short), tuple(first))


def _is_short(text: str) -> bool:
    return len(_key(text)) < _SHORT


def _texts_of_lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((line, text.strip()) for line, (text,) in read_lines(path))


def _texts_of_records(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a table, taken from the column with the most characters: labels and indices are shorter than text."""
    records = list(read_records(path))
    sizes: Counter[str] = Counter()
    for _, record in records:
        sizes.update({column: len(value) for column, value in record.items()})
    return ((line, record[max(sizes, key=sizes.__getitem__)]) for line, record in records)


def _overlap_lines(overlap: Overlap) -> Iterator[str]:
    yield (
        f"{overlap.file}: of {overlap.texts:,} texts, {share(overlap.found, overlap.texts)} also appear in the corpus as a sentence, "
        "paragraph or document" + (f"; {overlap.short:,} of these are shorter than {_SHORT} characters" if overlap.short else "")
    )
    for line, text in overlap.examples:
        yield f"  line {line:,}: {text if len(text) <= 80 else text[:79] + '…'}"
