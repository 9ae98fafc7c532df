"""Files of text: which are read, how documents are told apart, and what is said about a file that cannot be read."""

import gzip
import lzma
import tracemalloc

import pytest

from bert_jax.errors import InputError
from bert_jax.modalities.text import files as text
from bert_jax.modalities.text.files import list_files, read_documents
from bert_jax.storage import streams as files

TWO = "标题\n第一段。\n\n\n  \nSecond document.\n"
DOCUMENTS = [["标题", "第一段。"], ["Second document."]]


def read(*paths, errors="strict"):
    return list(read_documents(paths, errors))


@pytest.mark.parametrize("ending", [".txt", ".txt.gz", ".txt.xz"])
def test_blank_lines_and_ends_of_files_separate_documents(tmp_path, ending):
    write = {".txt": open, ".txt.gz": gzip.open, ".txt.xz": lzma.open}[ending]
    for name in ("a", "b"):
        with write(tmp_path / (name + ending), "wb") as file:
            file.write(TWO.encode())
    assert read(*list_files(str(tmp_path))) == DOCUMENTS * 2


def test_carriage_returns_and_a_byte_order_mark_are_not_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TWO.replace("\n", "\r\n").encode())
    assert read(tmp_path / "a.txt") == DOCUMENTS


def test_a_folder_is_searched_in_order_and_other_files_are_left_out(tmp_path):
    (tmp_path / "z").mkdir()
    for name in ("b.txt", "a.txt.gz", "z/c.txt", "notes.md", ".hidden.txt"):
        (tmp_path / name).write_text("x")
    assert [str(path.relative_to(tmp_path)) for path in list_files(str(tmp_path))] == ["a.txt.gz", "b.txt", "z/c.txt"]
    assert list_files(str(tmp_path / "*.txt")) == [tmp_path / "b.txt"]
    assert list_files(str(tmp_path / "**" / "*.txt")) == [tmp_path / "b.txt", tmp_path / "z" / "c.txt"]


@pytest.mark.parametrize("source", ["nowhere", "empty", "*.txt", "notes.md"])
def test_a_source_without_text_files_is_named(tmp_path, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InputError, match=str(tmp_path / source).replace("*", r"\*")):
        list_files(str(tmp_path / source))


def test_bytes_that_are_not_utf8_are_located_or_replaced(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("好。\n".encode() + b"ab\xff\n"))
    with pytest.raises(InputError, match=rf"{path} is not UTF-8 at byte 9 .*encoding_errors=replace"):
        read(path)
    assert read(path, errors="replace") == [["好。", "ab\ufffd"]]


@pytest.mark.parametrize(("ending", "pack"), [(".txt.gz", gzip.compress), (".txt.xz", lzma.compress)])
@pytest.mark.parametrize("damage", ["cut", "flipped", "not packed"])
def test_a_damaged_archive_is_named(tmp_path, ending, pack, damage):
    whole = pack(bytes(range(65, 91)) * 5000)
    path = tmp_path / f"a{ending}"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    path.write_bytes({"cut": whole[: len(whole) // 2], "flipped": bytes(flipped), "not packed": b"plain text"}[damage])
    with pytest.raises(InputError, match=f"{path} is damaged"):
        read(path)


def test_text_without_blank_lines_or_line_ends_is_cut_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LONGEST_DOCUMENT", 1 << 10)
    monkeypatch.setattr(files, "_CHUNK", 1 << 10)
    content = "汉" * 1_000_000 + "\n" + "word " * 200_000 + "\n" + "短。\n" * 100_000
    (tmp_path / "a.txt").write_text(content)
    tracemalloc.start()
    joined, longest = 0, 0
    for document in read_documents([tmp_path / "a.txt"]):
        size = sum(len(paragraph.encode()) for paragraph in document)
        joined, longest = joined + sum(len(paragraph.replace(" ", "")) for paragraph in document), max(longest, size)
        assert all("\ufffd" not in paragraph for paragraph in document)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert joined == len(content.replace("\n", "").replace(" ", ""))
    assert longest < 5 << 10
    assert peak < 100_000


def test_progress_counts_the_bytes_of_the_file(tmp_path):
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(TWO.encode() * 1000))
    counts = []
    list(read_documents([path], on_read=counts.append))
    assert sum(counts) == path.stat().st_size
