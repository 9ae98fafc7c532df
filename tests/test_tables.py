"""Tables by column names, and the faults of files."""

import csv
import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from bert_jax.data import tables
from bert_jax.data.tables import BadRow, Row, count_rows, read_rows, scan_lines, scan_rows
from bert_jax.errors import InputError

COLUMNS = {"text": "text", "label": "label"}
ROWS = [Row(2, ('he said "no', "0")), Row(3, ("很好， 真的\u200b好", "1"))]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rows(path: str, columns: dict[str, str] = COLUMNS) -> list[Row]:
    return list(read_rows(path, columns, "train"))


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    content = 'label\tid\ttext\n0\ta\the said "no\n1\tb\t很好， 真的\u200b好\n'
    assert rows(write(tmp_path / "a.tsv", content)) == ROWS
    assert rows(write(tmp_path / "bom.tsv", b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode() + b"\r\n")) == ROWS
    assert rows(write(tmp_path / "a.tsv.gz", gzip.compress(content.encode()))) == ROWS
    assert rows(write(tmp_path / "a.tsv.xz", lzma.compress(content.encode()))) == ROWS


def test_csv_is_quoted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\n"he said ""no",0\n"two\nlines, one text",1\n\nlast,0\n')
    assert rows(path) == [ROWS[0], Row(3, ("two\nlines, one text", "1")), Row(6, ("last", "0"))]


def test_jsonl_takes_values_as_written(tmp_path: Path) -> None:
    lines = [{"text": "a\tb", "label": 1}, {"label": True, "text": "c"}, {"label": 2.5, "text": "d", "m": []}, {"text": None, "label": ""}]
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps(record) for record in lines) + "\n\n")
    assert rows(path) == [Row(1, ("a\tb", "1")), Row(2, ("c", "true")), Row(3, ("d", "2.5")), Row(4, ("", ""))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "text\tstars\na\t1\n", r"a\.tsv line 1 has no column 'label' among 'text', 'stars': set label to one"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', r"a\.jsonl line 2 has no column 'label' among 'text'"),
        ("a.tsv", "text\tlabel\na\t1\nb\tc\t0\n", r"a\.tsv line 3 has 3 fields but the header has 2.*tab"),
        ("a.csv", "text,label\na, b,1\n", r"a\.csv line 2 has 3 fields"),
        ("a.csv", 'text,label\na,1\n"b,1\n', r"a\.csv line 3 begins a record that is not CSV.*check its quotes"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', r"a\.jsonl line 2 is not JSON"),
        ("a.tsv", b"text\xff\tlabel\na\t1\n", r"line 1 is not UTF-8"),
        ("a.csv", '"text,label\na,1\n', r"line 1 begins a record that is not CSV"),
        ("a.jsonl", "[1, 2]\n", r"a\.jsonl line 1 is not a JSON object"),
        ("a.tsv", b"text\tlabel\nab\xff\t1\n", r"a\.tsv line 2 is not UTF-8 \(byte 0xff after 'ab'\).*iconv"),
        ("a.tsv", b"\xef\xbb\xbftext\tlabel\nab\xff\t1\n", r"line 2 is not UTF-8 \(byte 0xff after 'ab'"),
        ("a.tsv", "", r"a\.tsv contains no examples"),
        ("a.csv", "text,label\n", r"a\.csv contains no examples"),
        ("a.tsv.gz", gzip.compress(b"text\tlabel\n" + b"a\t1\n" * 99, mtime=0)[:-9], r"a\.tsv\.gz is damaged"),
        ("a.tsv.xz", b"text", r"a\.tsv\.xz is damaged"),
        ("a.xlsx", "", r"a\.xlsx is not one of \.tsv, \.csv, \.jsonl"),
        ("a.csv", "text,label,text\na,1,b\n", r"a\.csv line 1 names the column 'text' more than once"),
        ("a.tsv", "id\tid\ttext\tlabel\n1\t2\ta\t1\n", r"a\.tsv line 1 names the column 'id' more than once"),
        ("a.jsonl", '{"text": "a", "label": 1, "text": "b"}\n', r"a\.jsonl line 1 has the key 'text' twice"),
        ("a.csv", "text,label\ra,1\rb,0\r", r"a\.csv line 1 ends lines with a carriage return alone.*tr "),
        ("a.tsv", "text\tlabel\ra\t1\rb\t0\r", r"a\.tsv line 1 ends lines with a carriage return alone"),
        ("a.jsonl", '{"text": "a", "label": 1}\r{"text": "b", "label": 0}\r', r"a\.jsonl line 1 ends lines with a carriage return"),
        ("a.csv", "text;label\na;1\n", r"a\.csv line 1 has only one column, 'text;label': separate columns with commas"),
        ("a.tsv", "text,label\na,1\n", r"a\.tsv line 1 has only one column, 'text,label'"),
        ("a.csv", "text,label\na,1\n".encode("utf-16"), r"a\.csv line 1 is not UTF-8 \(byte 0xff after ''\).*iconv"),
        ("a.csv", "text,label\na,1\n".encode("utf-16-le"), r"a\.csv line 1 contains NUL characters, as UTF-16 text does"),
        ("a.csv", "text, label\na, 1\n", r"a\.csv line 1 has no column 'label' among 'text', ' label'"),
        ("a.csv", "text,label\na,1\ntext,label\nb,0\n", r"a\.csv line 3 repeats the header"),
        ("a.tsv", "text\tlabel\na\t1\n\ufefftext\tlabel\nb\t0\n", r"a\.tsv line 3 repeats the header"),
    ],
)
def test_faults_of_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        rows(path)


CSV = b"""text,label
good,1
"open,1
next,0
"two
lines",1

x,y,z
\xff,1
"never closed,0
last,1
"""
JSON_LINES = (
    rb"""{"text": "good", "label": 1}
{"text":

["text"]
{"text": "x"}
{"text": "\ud83d", "label": 1}
{"text": "\ud83d\ude00", "label": 1}
"""
    + b'{"text": "\xff", "label": 1}\n'
    + b'{"text":' * 100_000
)


def test_bad_rows_stand_in_their_places_where_they_are_wanted(tmp_path: Path) -> None:
    """A quote that is not closed costs its own line, not those that it takes in."""
    found = list(scan_rows(Path(write(tmp_path / "a.csv", CSV)), COLUMNS))
    good = {2: ("good", "1"), 4: ("next", "0"), 5: ("two\nlines", "1"), 11: ("last", "1")}
    assert {row.line: row.values for row in found if isinstance(row, Row)} == good
    bad = {row.line: row.problem for row in found if isinstance(row, BadRow)}
    assert [row.line for row in found] == [2, 3, 4, 5, 8, 9, 10, 11] and list(bad) == [3, 8, 9, 10]
    assert "quotes" in bad[3] and "3 fields" in bad[8] and "byte 0xff" in bad[9] and "quotes" in bad[10]

    found = list(scan_rows(Path(write(tmp_path / "a.jsonl", JSON_LINES)), COLUMNS))
    assert {row.line: row.values for row in found if isinstance(row, Row)} == {1: ("good", "1"), 7: ("😀", "1")}
    bad = {row.line: row.problem for row in found if isinstance(row, BadRow)}
    for line, problem in {
        2: "is not JSON",
        4: "JSON object",
        5: "'label' among 'text'",
        6: r"\ud83d",
        8: "byte 0xff",
        9: "is not JSON",
    }.items():
        assert problem in bad.pop(line)
    assert not bad


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.csv", CSV, 8),
        ("a.jsonl", JSON_LINES, 8),
        ("a.tsv", "text\tlabel\na\t1\n\n \t0\nb\r\n", 3),
        ("a.csv", "text,label\n", 0),
        ("a.txt", b"a\n\n \xe3\x80\x80\r\n\xff\nb", 3),
    ],
)
def test_rows_are_counted_as_they_are_read(tmp_path: Path, name: str, content: str | bytes, rows: int) -> None:
    path = Path(write(tmp_path / name, content))
    assert count_rows(path) == rows
    if rows:
        assert len(list(scan_lines(path) if name == "a.txt" else scan_rows(path, COLUMNS))) == rows


@pytest.mark.parametrize("value", ['["a", "b"]', '{"is": "a"}', "NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("column", ["text", "label"])
def test_a_json_value_that_is_no_text_is_a_bad_row(tmp_path: Path, value: str, column: str) -> None:
    """Other columns may hold anything."""
    good = '{"text": "a", "label": 1, "more": [NaN, {}]}'
    bad = good.replace('"a"' if column == "text" else "1", value, 1)
    path = Path(write(tmp_path / "a.jsonl", f"{good}\n{bad}\n{good}\n"))
    before, found, after = scan_rows(path, COLUMNS)
    assert isinstance(found, BadRow) and found.line == 2 and f"in column {column!r}" in found.problem
    assert isinstance(before, Row) and isinstance(after, Row) and after.values == before.values == ("a", "1")


@pytest.mark.parametrize("word", ["NA", "N/A", "None", "null", "nan", "NULL", ""])
def test_words_that_others_read_as_missing_are_words(tmp_path: Path, word: str) -> None:
    for name, content in {
        "a.csv": f'text,label\n"{word}",{word}\n',
        "a.tsv": f"text\tlabel\n{word}\t{word}\n",
        "a.jsonl": json.dumps({"text": word, "label": word}),
    }.items():
        assert rows(write(tmp_path / name, content))[0].values == (word, word)


def test_other_line_separators_end_no_row(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    for name, content in {
        "a.csv": f"text,label\n{text},1\n",
        "a.tsv": f"text\tlabel\n{text}\t1\n",
        "a.jsonl": json.dumps({"text": text, "label": 1}, ensure_ascii=False).replace("\\u0085", "\x85") + "\n",
    }.items():
        path = write(tmp_path / name, content)
        assert [row.values for row in rows(path)] == [(text, "1")] and count_rows(Path(path)) == 1


@pytest.fixture
def python_limit() -> Iterator[None]:
    """The limit that a fresh process has, before and after a test."""
    csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(131_072)


@pytest.mark.usefixtures("python_limit")
def test_long_fields_of_csv(tmp_path: Path) -> None:
    """Python's reader takes 131,072 characters a field unless it is asked for more."""
    long = ["x" * 131_073, 'he said "no", ' * 20_000, "two\nlines, " * 30_000]
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *((text, "1") for text in long), ("last", "0")])
    found = rows(str(path))
    assert [row.values for row in found] == [*((text, "1") for text in long), ("last", "0")]
    assert count_rows(path) == len(found)
    csv.field_size_limit(1 << 30)
    assert len(rows(str(path))) == len(found) and csv.field_size_limit() == 1 << 30, "a higher limit is left alone"


@pytest.mark.parametrize(
    "field",
    [
        "an,inside\n" * 30,  # short lines, long in all
        "x" * 200 + "\nan,inside\n",  # begins on a line that is too long
        "an,inside\n" + "x" * 200 + "\nan,inside\n",
        "an,inside\n" + "x" * 200,  # ends on one
    ],
)
def test_the_inside_of_a_field_that_is_too_long_is_never_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    path = Path(write(tmp_path / "a.csv", f'text,label\ngood,1\n"{field}",0\nlast,1\n'))
    found = scan_rows(path, COLUMNS)
    assert next(found) == Row(2, ("good", "1"))
    message = r"a\.csv line 3 begins a record of more than 100 characters: a quote is not closed, or a field is too long"
    with pytest.raises(InputError, match=message):
        next(found)
    with pytest.raises(InputError, match=message):
        count_rows(path)


def test_a_csv_record_of_one_long_line_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    path = Path(write(tmp_path / "a.csv", 'text,label\n"{0}",0\n{0},0\n"a ""{0}""",0\nlast,1\n'.format("x" * 200)))
    found = list(scan_rows(path, COLUMNS))
    assert [row.line for row in found if isinstance(row, BadRow) and "longer than 100 bytes" in row.problem] == [2, 3, 4]
    assert found[3:] == [Row(5, ("last", "1"))] and count_rows(path) == 4


def test_quotes_that_never_match_cost_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these lines opens a quote that nothing closes, and would be looked for through all that follow."""
    monkeypatch.setattr(tables, "_MOST_REREAD", 100_000)
    path = Path(write(tmp_path / "a.csv", "text,label\n" + 'x",",y\n' * 10_000))
    for read in (count_rows, lambda path: list(scan_rows(path, COLUMNS))):
        with pytest.raises(InputError, match="has too many unclosed quotes, the last in line"):
            read(path)


def test_a_message_names_some_of_many_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "\t".join(f"c{i}" for i in range(2000)) + "\n")
    with pytest.raises(InputError, match=r"'c48', 'c49', \.\.\.: set text") as error:
        rows(path)
    assert len(str(error.value)) < 1000


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    """As spreadsheets add them."""
    assert rows(write(tmp_path / "a.csv", "text,label,,\na,1,,\n")) == [Row(2, ("a", "1"))]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.tsv does not exist"):
        rows(str(tmp_path / "gone.tsv"))
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(InputError, match=r"folder\.tsv cannot be read \(Is a directory\)"):
        rows(str(tmp_path / "folder.tsv"))


def test_tfds(tmp_path: Path) -> None:
    """A prepared TFDS data set, its classes by their names; a test split without classes has none."""
    import numpy as np
    import tensorflow_datasets as tfds

    class TinyReviews(tfds.core.GeneratorBasedBuilder):
        __module__ = "bert_jax.tiny_reviews"  # TFDS looks for files of its own beside the builder, in a package
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):  # type: ignore[no-untyped-def]
            label = tfds.features.ClassLabel(names=["bad", "good"])
            scores = tfds.features.Tensor(shape=(2,), dtype=np.int32)
            features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "stars": np.int32, "label": label, "scores": scores})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):  # type: ignore[no-untyped-def]
            return {"train": self._generate_examples([0, 1, 1]), "test": self._generate_examples([-1])}

        def _generate_examples(self, labels):  # type: ignore[no-untyped-def]
            for i, label in enumerate(labels):
                yield i, {"text": f"评论 {i}", "stars": i, "label": label, "scores": [i, i]}

    tfds.disable_progress_bar()
    TinyReviews(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(tmp_path)
    found = list(read_rows("tfds:tiny_reviews", {"text": "text", "label": "label", "text_pair": "stars"}, "train"))
    assert sorted(row.values for row in found) == [("评论 0", "bad", "0"), ("评论 1", "good", "1"), ("评论 2", "good", "2")]
    assert [row.values for row in read_rows("tfds:tiny_reviews[test]", COLUMNS, "train")] == [("评论 0", "")]
    with pytest.raises(InputError, match=r"no split 'validation'; it has .*train.*tfds:tiny_reviews\[SPLIT\]"):
        list(read_rows("tfds:tiny_reviews", COLUMNS, "validation"))
    with pytest.raises(InputError, match="has a list in column 'scores'"):
        list(read_rows("tfds:tiny_reviews", {"text": "text", "label": "scores"}, "train"))
    with pytest.raises(InputError, match="no column 'sentence'"):
        list(read_rows("tfds:tiny_reviews", {"text": "sentence"}, "train"))
