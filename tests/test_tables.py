"""Tables by column names, and the faults of files."""

import gzip
import json
import lzma
from pathlib import Path

import pytest

from bert_jax.data.tables import Row, read_rows
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
        ("a.tsv", "text\tstars\na\t1\n", r"a\.tsv has no column 'label' \(line 2\); its columns are 'text', 'stars'\. Set label to one"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', r"no column 'label' \(line 2\); its columns are 'text'"),
        ("a.tsv", "text\tlabel\na\t1\nb\tc\t0\n", r"a\.tsv line 3 has 3 fields where its first line names 2.*tab"),
        ("a.csv", "text,label\na, b,1\n", r"a\.csv line 2 has 3 fields"),
        ("a.csv", 'text,label\na,1\n"b,1\n', r"not a CSV file at the record that begins in line 3"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', r"a\.jsonl line 2 is not JSON"),
        ("a.jsonl", "[1, 2]\n", r"a\.jsonl line 1 is not a JSON object"),
        ("a.tsv", b"text\tlabel\nab\xff\t1\n", r"a\.tsv is not UTF-8 at byte 13 \(line 2: invalid start byte\).*iconv"),
        ("a.tsv", b"\xef\xbb\xbftext\tlabel\nab\xff\t1\n", r"not UTF-8 at byte 16 \(line 2"),
        ("a.tsv", "", r"a\.tsv holds no examples"),
        ("a.csv", "text,label\n", r"a\.csv holds no examples"),
        ("a.tsv.gz", gzip.compress(b"text\tlabel\n" + b"a\t1\n" * 99)[:-9], r"a\.tsv\.gz is damaged"),
        ("a.tsv.xz", b"text", r"a\.tsv\.xz is damaged"),
        ("a.parquet", "", r"a\.parquet is none of \.tsv, \.csv, \.jsonl"),
    ],
)
def test_faults_of_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        rows(path)


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
            features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "stars": np.int32, "label": label})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):  # type: ignore[no-untyped-def]
            return {"train": self._generate_examples([0, 1, 1]), "test": self._generate_examples([-1])}

        def _generate_examples(self, labels):  # type: ignore[no-untyped-def]
            for i, label in enumerate(labels):
                yield i, {"text": f"评论 {i}", "stars": i, "label": label}

    tfds.disable_progress_bar()
    TinyReviews(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(tmp_path)
    found = list(read_rows("tfds:tiny_reviews", {"text": "text", "label": "label", "text_pair": "stars"}, "train"))
    assert sorted(row.values for row in found) == [("评论 0", "bad", "0"), ("评论 1", "good", "1"), ("评论 2", "good", "2")]
    assert [row.values for row in read_rows("tfds:tiny_reviews[test]", COLUMNS, "train")] == [("评论 0", "")]
    with pytest.raises(InputError, match=r"no split 'validation'; it has .*train.*tfds:tiny_reviews\[SPLIT\]"):
        list(read_rows("tfds:tiny_reviews", COLUMNS, "validation"))
    with pytest.raises(InputError, match="no column 'sentence'"):
        list(read_rows("tfds:tiny_reviews", {"text": "sentence"}, "train"))
