"""Text that nobody should have to read: what is no text is counted, what has no end is refused, and memory stays small."""

import gzip
import lzma
import os
import subprocess
import sys

import numpy as np
import pytest

from bert_jax.config import CorpusConfig, RowsConfig, VocabularyConfig
from bert_jax.data import tables
from bert_jax.data.tables import BadRow, Row, count_rows, scan_lines, scan_rows
from bert_jax.errors import InputError
from bert_jax.modalities.text.files import LONGEST_DOCUMENT, count_dropped, read_documents
from bert_jax.modalities.text.inspection import inspect
from bert_jax.modalities.text.modality import Text
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.storage import streams as files

COLUMNS = {"text": "text", "label": "label"}
NO_TEXT = "\0\x01\x08\x1b\x7f\x85\ufffd\ud800\udfff"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["天地玄黄。abc " * 3], VocabularyConfig(size=50), show_progress=False)


def test_what_is_no_text_never_becomes_a_token_and_is_counted(tokenizer):
    assert count_dropped(NO_TEXT) == len(NO_TEXT) and count_dropped("天\u200b地 abc\t\r\n。") == 0
    assert not len(tokenizer.encode(NO_TEXT))
    np.testing.assert_array_equal(tokenizer.encode(f"天{NO_TEXT}地").ids, tokenizer.encode("天地").ids)


def test_bytes_that_are_not_text_are_counted_by_preparation_and_inspection(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    path.write_bytes("天地\0。玄黄\x1b。\n\n天".encode() + b"\xff\xed\xa0\x80" + "地。\n\n玄。黄。\n".encode())
    with pytest.raises(InputError, match=f"{path} is not UTF-8 at byte 25"):
        Text().prepare(CorpusConfig(source=str(path), segmenter="characters"), tokenizer, tmp_path / "data", show_progress=False)
    config = CorpusConfig(source=str(path), segmenter="characters", encoding_errors="replace")
    info = Text().prepare(config, tokenizer, tmp_path / "data", show_progress=False).info
    assert sum(info[split]["dropped_characters"] for split in ("train", "valid")) == 2 + 4
    seen = inspect(config, RowsConfig(), 2, tokenizer, show_progress=False)
    assert seen.dropped_characters == 2 + 4 and "6 (31.58%) dropped" in str(seen)


@pytest.mark.parametrize(("name", "pack"), [("a.txt.gz", gzip.compress), ("a.tsv.gz", gzip.compress), ("a.tsv.xz", lzma.compress)])
def test_a_small_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch, name, pack):
    monkeypatch.setattr(files, "_ALWAYS_ALLOWED", 1 << 20)
    path = tmp_path / name
    line = b"text\tlabel\n"
    path.write_bytes(pack(line * ((4 << 20) // len(line))))
    packed = path.stat().st_size
    assert packed < (4 << 20) / 200
    limit = max(1 << 20, 200 * packed)
    with pytest.raises(InputError, match=rf"{path} decompresses from {packed:,} bytes to more than {limit:,}.*decompress it"):
        list(read_documents([path]) if name == "a.txt.gz" else scan_rows(path, COLUMNS))
    path.write_bytes(pack(line * ((1 << 19) // len(line))))
    list(read_documents([path]) if name == "a.txt.gz" else scan_rows(path, COLUMNS))


def test_a_packed_file_of_text_may_be_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_ALWAYS_ALLOWED", 1)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(("天地玄黄。" * 10 + "\n").encode() * 10))
    assert len(list(read_documents([tmp_path / "a.txt.gz"]))) == 1


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".txt"])
def test_an_endless_line_is_a_bad_row_in_its_place(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    long = "很" * 99
    lines = {
        ".tsv": ["text\tlabel", "a\t0", f"{long}\t0", "b\t1", long],
        ".csv": ["text,label", "a,0", f"{long},0", "b,1", f'"{long}'],
        ".jsonl": ["", '{"text": "a", "label": 0}', f'{{"text": "{long}", "label": 0}}', '{"text": "b", "label": 1}', long],
        ".txt": ["", "a", long, "b", long],
    }[ending]
    path = tmp_path / f"a{ending}"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = list(scan_lines(path) if ending == ".txt" else scan_rows(path, COLUMNS))
    assert [(type(row), row.line) for row in found] == [(Row, 2), (BadRow, 3), (Row, 4), (BadRow, 5)]
    assert all("longer than 100 bytes" in row.problem for row in found if isinstance(row, BadRow))
    assert count_rows(path) == 4


def test_column_names_that_do_not_end_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    for ending in (".tsv", ".csv"):
        (tmp_path / f"a{ending}").write_text("text" * 100 + "\na,b\n")
        with pytest.raises(InputError, match="line 1 is longer than 100 bytes"):
            list(scan_rows(tmp_path / f"a{ending}", COLUMNS))


def test_an_empty_file_holds_nothing_packed_or_not(tmp_path):
    for name in ("a.tsv", "a.csv", "a.jsonl", "a.tsv.gz", "b.tsv.gz", "b.tsv.xz"):
        pack = {"b.tsv.gz": gzip.compress, "b.tsv.xz": lzma.compress}.get(name, bytes)
        (tmp_path / name).write_bytes(pack(b""))
        with pytest.raises(InputError, match=f"{name} contains no examples"):
            list(scan_rows(tmp_path / name, COLUMNS))


def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("a.tsv", "a.txt"):
        os.mkfifo(tmp_path / name)
    for read in (lambda: list(scan_rows(tmp_path / "a.tsv", COLUMNS)), lambda: list(read_documents([tmp_path / "a.txt"]))):
        with pytest.raises(InputError, match=r"a pipe or a device.*to a file first"):
            read()


PEAK = """
import sys
from pathlib import Path
from bert_jax.data.tables import scan_lines, scan_rows
from bert_jax.modalities.text.files import read_documents

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

before = peak()
path = Path(sys.argv[1])
if path.name == "documents.txt":
    print(max(sum(map(len, document)) for document in read_documents([path])))
else:
    rows = scan_lines(path) if path.suffix == ".txt" else scan_rows(path, {"text": "text", "label": "label"})
    print(*(type(row).__name__ for row in rows))
print(peak() - before)
"""


@pytest.mark.parametrize("name", ["documents.txt", "lines.txt", "rows.tsv", "rows.csv", "rows.jsonl", "rows.tsv.gz"])
def test_a_line_of_100_megabytes_takes_little_memory(tmp_path, name):
    path = tmp_path / name
    before, after = {
        "rows.tsv": ("text\tlabel\n", "\t1\na\t0\n"),
        "rows.tsv.gz": ("text\tlabel\n", "\t1\na\t0\n"),
        "rows.csv": ("text,label\n", ",1\na,0\n"),
        "rows.jsonl": ('{"text": "', '", "label": 1}\n{"text": "a", "label": 1}\n'),
    }.get(name, ("", "\na\n"))
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as file:
        file.write(before.encode())
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(after.encode())
    out = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True, timeout=60).stdout
    found, peak = out.splitlines()
    assert int(found) <= 2 * LONGEST_DOCUMENT if name == "documents.txt" else found == "BadRow Row"
    assert float(peak) < (10 if name == "documents.txt" else 70)
