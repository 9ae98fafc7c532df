"""A modality that a program brings along, sequences of digits: from a file to a trained model, by public extension points alone."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest

import bert_jax
from bert_jax.config import CorpusOptions, EncoderConfig, LoopConfig, OptimizerConfig, PretrainConfig, RowsConfig, RunConfig
from bert_jax.config import VocabularyConfig as Vocabulary
from bert_jax.data.reader import Reader, StringQueries
from bert_jax.data.records.encoding import Encoder
from bert_jax.data.records.record import Counts, Document, EncodedDocument
from bert_jax.errors import InputError
from bert_jax.modalities.base import Expected, Modality
from bert_jax.runtime.metrics import read_metrics
from bert_jax.stages.run import run
from bert_jax.storage.files import sha256

# The modality, in 120 lines at most.


@dataclass(frozen=True)
class DigitsCorpus(CorpusOptions):
    """A file with a sequence of digits a line and a blank line between documents."""

    modality: Literal["digits"] = "digits"
    base: int = 10


class Encoded(NamedTuple):
    """Queries as ids, end to end."""

    ids: np.ndarray
    lengths: np.ndarray
    units: None = None


class DigitsReader(StringQueries):
    """Digits to ids and back: an id for each digit, behind the special ones."""

    special_ids = (0, 1, 2, 3, 4)
    pad_id, unk_id, cls_id, sep_id, mask_id = special_ids

    def __init__(self, base: int) -> None:
        self.base, self.fingerprint = base, f"digits of base {base}"
        self.names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(base))]
        self.vocab_size = len(self.names)
        self.ordinary_ids = np.arange(5, self.vocab_size, dtype=np.int32)

    def save(self, directory: str | Path) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / "digits.json").write_text(json.dumps({"base": self.base}))

    def encode_flat(self, texts: Sequence[str]) -> Encoded:
        known = {name: i for i, name in enumerate(self.names)}
        found = [[known.get(name, self.unk_id) for name in re.findall(r"\[[A-Z]+\]|\S", text)] for text in texts]
        return Encoded(np.array([i for ids in found for i in ids], np.int32), np.array([len(ids) for ids in found]))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self.names[i] for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.tokens(ids))


@dataclass(frozen=True)
class DigitsFile:
    """Documents as lists of sequences."""

    path: Path

    @property
    def stored_bytes(self) -> int:
        return self.path.stat().st_size

    def identity(self) -> dict[str, Any]:
        return {"digits": sha256(self.path)}

    def documents(self, on_read: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        for document in self.path.read_text().split("\n\n"):
            if on_read:
                on_read(len(document))
            yield document.split()

    def parts(self) -> list["DigitsFile"]:
        return [self]


@dataclass(frozen=True)
class DigitsEncoder(Encoder[list[str]]):
    """A document as one array of ids that may be cut between its sequences."""

    reader: DigitsReader

    def identity(self) -> dict[str, Any]:
        return {"reader": self.reader.fingerprint}

    def __call__(self, documents: list[list[str]]) -> list[Document]:
        encoded = [self.reader.encode_flat(document) for document in documents]
        starts = [np.cumsum(flat.lengths) - flat.lengths for flat in encoded]
        pairs = zip(encoded, starts, strict=True)
        return [Document(flat.ids.astype(np.uint16), first.astype(np.int32), np.ones(len(flat.ids), bool)) for flat, first in pairs]

    def count(self, raw: list[str], document: EncodedDocument) -> Counts:
        return Counts.of(document, self.size(raw))

    def size(self, raw: list[str]) -> int:
        return sum(map(len, raw))


class Digits(Modality[list[str], DigitsCorpus]):
    """Sequences of digits."""

    name = "digits"
    options = DigitsCorpus

    def open_source(self, name: str, config: DigitsCorpus) -> DigitsFile:
        return DigitsFile(Path(name))

    def content(self, document: list[str]) -> bytes:
        return "\n".join(document).encode()

    def learn(self, documents: Iterable[list[str]], config: DigitsCorpus, vocabulary: Vocabulary) -> DigitsReader:
        return DigitsReader(config.base)

    def expected(self, config: DigitsCorpus, vocabulary: Vocabulary) -> Expected:
        return Expected(5 + config.base)

    def load(self, directory: Path) -> DigitsReader:
        return DigitsReader(json.loads((directory / "digits.json").read_text())["base"])

    def encoder(self, reader: Reader, config: DigitsCorpus) -> DigitsEncoder:
        assert isinstance(reader, DigitsReader)
        return DigitsEncoder(reader)

    def queries(self, document: list[str], config: DigitsCorpus) -> list[str]:
        return document

    def features(self, reader: Reader, train: Sequence[str], test: Sequence[str]) -> tuple[Any, Any]:
        train_lengths, test_lengths = (np.array([[len(text)] for text in texts], np.float32) for texts in (train, test))
        return train_lengths, test_lengths

    def with_mask(self, reader: Reader, query: str) -> str:
        return f"{query[: len(query) // 2]}[MASK]{query[len(query) // 2 + 1 :]}"


# What it is used for.

ENCODER = EncoderConfig(
    layers=1, width=32, heads=2, feed_forward=64, max_positions=32, dropout=0.0, attention_dropout=0.0,
    initializer_range=0.1, position_initializer="sinusoidal", attention_initializer="neighbours",
)  # fmt: skip
LOOP = LoopConfig(log_every=10, evaluate_every=80, save_every=80)


def counting(rng: np.random.Generator) -> str:
    """Digits that count up, from any of them."""
    start = int(rng.integers(10))
    return "".join(str((start + i) % 10) for i in range(rng.integers(6, 12)))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    path = tmp_path_factory.mktemp("digits") / "digits.txt"
    rng = np.random.default_rng(0)
    path.write_text("\n\n".join("\n".join(counting(rng) for _ in range(6)) for _ in range(200)))
    stage = PretrainConfig(
        steps=160, batch_size=32, evaluation_batches=2, rows=RowsConfig(length=32, next_sentence="none", examples_per_row=2),
        optimizer=OptimizerConfig(learning_rate=1e-2), loop=LOOP,
    )  # fmt: skip
    return RunConfig(encoder=ENCODER, corpus=DigitsCorpus(source=str(path), valid_fraction=0.1), pretrain=stage)


@pytest.fixture(scope="module")
def workdir(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    run(config, path, modalities=[Digits()])
    return path


def test_pre_training_learns_to_count(workdir: Path) -> None:
    lines = [line for line in read_metrics(workdir / "pretrain") if line["split"] == "train"]
    assert lines[-1]["mlm_loss"] < lines[0]["mlm_loss"] - 0.5
    bert = bert_jax.load(workdir / "pretrain", modalities=[Digits()])
    right = [bert.fill_mask(f"{a}{b}[MASK]{c}{d}", top_k=1)[0][0].token for a, b, c, d in ("2356", "7801", "4578", "9023")]
    assert right == ["4", "9", "6", "1"]


def test_the_files_name_it_and_a_program_without_it_says_so(workdir: Path) -> None:
    assert json.loads((workdir / "pretrain" / "model.json").read_text())["input"]["modality"] == "digits"
    assert json.loads((workdir / "config.json").read_text())["corpus"]["modality"] == "digits"
    assert json.loads((workdir / "examples.json").read_text())["fill_mask"]
    with pytest.raises(InputError, match=r"no modality 'digits'; the known ones are text.*modalities="):
        bert_jax.load(workdir / "pretrain")


def test_the_same_run_is_done_and_others_are_refused(
    config: RunConfig, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config, workdir, modalities=[Digits()])
    assert "is done" in capsys.readouterr().out
    other = DigitsCorpus(source=config.corpus.source, valid_fraction=0.1, base=12)
    with pytest.raises(InputError, match=r"corpus\.base: 10 -> 12"):
        run(RunConfig(encoder=ENCODER, corpus=other, pretrain=config.pretrain), workdir, modalities=[Digits()])
