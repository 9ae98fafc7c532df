"""Data sets of Hugging Face: saved folders, Parquet files and the Hub give what the same data in other files give."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import failure, ok
from fake_hub import COMMIT, serving

from bert_jax.config import CorpusConfig, LabelledConfig
from bert_jax.data.hugging_face import is_saved
from bert_jax.data.labelled import load_labelled
from bert_jax.data.tables import read_rows
from bert_jax.errors import InputError
from bert_jax.modalities.audio.modality import Audio
from bert_jax.modalities.image.modality import Image
from bert_jax.modalities.inspection import Asked
from bert_jax.modalities.text.sources import open_source
from bert_jax.tasks.answering.files import Columns, Faults, QuestionFiles
from bert_jax.tasks.classification.labels import ClassLabels
from bert_jax.tasks.tagging.files import read_tagged

datasets = pytest.importorskip("datasets")

CLASSES = ["bad", "good"]
REVIEWS: list[dict[str, Any]] = [
    {"text": f"评论 {i}\nA “quoted”, tab\t line {i}.", "label": i % 2, "stars": i / 4, "seen": i % 3 == 0, "note": None if i % 2 else "a"}
    for i in range(30)
]
COLUMNS = {"finetune.data.text": "text", "finetune.task.label": "label"}


def save(rows: list[dict[str, Any]], folder: Path, **types: Any) -> Path:
    """Save rows with `save_to_disk`; `types` are those of columns whose types do not follow from the values."""
    table = datasets.Dataset.from_list(rows)
    for column, type_ in types.items():
        table = table.cast_column(column, type_)
    table.save_to_disk(folder)
    return folder


def jsonl(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def named(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"label": CLASSES[row["label"]]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Reviews: `saved`, which has two splits, in `train.parquet` and in `train.jsonl`."""
    folder = tmp_path_factory.mktemp("hugging_face")
    label = datasets.ClassLabel(names=CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        save(REVIEWS, folder / "saved" / "train", label=label)
        save([*REVIEWS[:3], REVIEWS[0] | {"label": -1}], folder / "saved" / "validation", label=label)
        (folder / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
        datasets.load_from_disk(folder / "saved")["train"].to_parquet(folder / "train.parquet")
        jsonl([*map(named, REVIEWS)], folder / "train.jsonl")
        yield folder


# --- Tables ---


@pytest.mark.parametrize("source", ["saved", "hf:{}/saved", "hf:{}/saved[train]", "saved/train", "train.parquet", "{}/tr*.parquet"])
def test_a_table_is_that_of_a_jsonl_file(place: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    columns = COLUMNS | {"a": "stars", "b": "seen", "c": "note"}
    expected = [row.values for row in read_rows("train.jsonl", columns, "train")]
    found = [*read_rows(source.format(place), columns, "train")]
    assert [row.values for row in found] == expected and [row.line for row in found] == [*range(30)]
    assert found[1].values == ("评论 1\nA “quoted”, tab\t line 1.", "good", "0.25", "false", "")


def test_splits(place: Path) -> None:
    def texts(source: str, split: str = "train") -> list[str]:
        return [row.values[0].split()[1] for row in read_rows(source, COLUMNS, split)]

    assert texts(f"{place}/saved", "validation") == ["0", "1", "2", "0"]
    assert texts(f"hf:{place}/saved[validation]") == ["0", "1", "2", "0"]
    assert texts(f"hf:{place}/saved[train[-2:]+validation[:1]]") == ["28", "29", "0"]
    # A single table serves as any split.
    assert texts(f"{place}/saved/validation", "test") == texts(f"hf:{place}/saved/validation[train]")
    # As of a test set whose classes are secret.
    assert [row.values[1] for row in read_rows(f"{place}/saved", COLUMNS, "validation")] == ["bad", "good", "bad", ""]


def test_labelled_text_is_that_of_a_jsonl_file(place: Path) -> None:
    def labelled(source: str) -> Any:
        return load_labelled(LabelledConfig(train=source), ClassLabels("label", ()), seed=0)

    saved, file = labelled(f"{place}/saved"), labelled(f"{place}/train.jsonl")
    assert saved.fingerprint == file.fingerprint and saved.label_names == ("bad", "good")


def test_tags_and_answers_are_those_of_a_jsonl_file(tmp_path: Path) -> None:
    tagged = [{"words": ["Ada", "met", "Bob"], "tags": [1, 0, 1]}, {"words": ["No", "one"], "tags": [0, 0]}]
    save(tagged, tmp_path / "tags", tags=datasets.List(datasets.ClassLabel(names=["O", "B-PER"])))
    jsonl([row | {"tags": [["O", "B-PER"][tag] for tag in row["tags"]]} for row in tagged], tmp_path / "tags.jsonl")
    columns = {"finetune.data.text": "words", "finetune.task.target": "tags"}
    both = [[row.values for row in read_tagged(f"{tmp_path}/{name}", columns, "train")] for name in ("tags", "tags.jsonl")]
    of_set, of_file = ([(words, tagged._replace(source="", lines=())) for words, tagged in rows] for rows in both)
    assert of_set == of_file and of_set[0][1].tags == ["B-PER", "O", "B-PER"]

    passage = "Ada met Bob in Paris."
    asked = [
        {"question": "Who met Bob?", "passage": passage, "answers": {"text": ["Ada"], "answer_start": [0]}},
        {"question": "When?", "passage": passage, "answers": {"text": [], "answer_start": []}},
    ]
    save(asked, tmp_path / "questions")
    jsonl(asked, tmp_path / "questions.jsonl")
    files = QuestionFiles(Columns(), "refuse", True, Faults())
    found = [[one._replace(where="", line=0) for one in files.read(f"{tmp_path}/{name}")] for name in ("questions", "questions.jsonl")]
    assert found[0] == found[1] and found[0][0].answers[0].text == "Ada"


# --- Text ---

ARTICLES = [{"title": f"Title {i}" if i else None, "text": f"First of {i}.\n\n Second. \n" if i != 2 else None} for i in range(5)]


def test_text_is_documents_of_titles_and_paragraphs(tmp_path: Path) -> None:
    save([*ARTICLES, {"title": None, "text": " "}], tmp_path / "articles")
    documents = [*open_source(str(tmp_path / "articles"), CorpusConfig()).documents()]
    assert documents[:3] == [["First of 0.", "Second."], ["Title 1", "First of 1.", "Second."], ["Title 2"]] and len(documents) == 5
    titles = open_source(f"hf:{tmp_path}/articles#title", CorpusConfig())
    assert [*titles.documents()] == [["Title 1"], ["Title 2"], ["Title 3"], ["Title 4"]]


def test_parts_are_the_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_jax.data.hugging_face._PART", 8)
    source = open_source(f"hf:{place}/saved[train[10:]+validation[1:]]", CorpusConfig())
    assert [len([*part.documents()]) for part in source.parts()] == [8, 8, 7]
    # As on the machines of a preparation on Apache Beam.
    sent = [pickle.loads(pickle.dumps(part)) for part in source.parts()]
    assert [document for part in sent for document in part.documents()] == [*source.documents()]


def test_the_identity_is_that_of_the_content(tmp_path: Path) -> None:
    def identity(source: Path | str) -> dict[str, Any]:
        return open_source(str(source), CorpusConfig()).identity()

    shutil.copytree(save(ARTICLES, tmp_path / "a"), tmp_path / "copy")
    save([*ARTICLES[:4], ARTICLES[4] | {"text": "First of 5.\n\n Second. \n"}], tmp_path / "other")
    first = identity(tmp_path / "a")
    assert first == identity(tmp_path / "copy") and json.loads(json.dumps(first))
    others = [identity(tmp_path / "other"), *(identity(f"hf:{tmp_path}/a{end}") for end in ("[train[1:]]", "#title"))]
    assert all(first != other for other in others)


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    import pyarrow

    save([{"text": f"{i} " * 100_000} for i in range(100)], tmp_path / "long")
    before = pyarrow.total_allocated_bytes()
    most = 0
    for _ in open_source(str(tmp_path / "long"), CorpusConfig()).documents():
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert most < 1 << 20  # of 29 MB


def test_inspect(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    ok("inspect", place / "saved", "--json")
    assert json.loads(capsys.readouterr().out)["documents"] == 30


# --- Images and recordings ---


def test_images(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        pillow.fromarray(np.full((8, 8, 3), i * 50, np.uint8)).save(path)
    rows = [{"img": str(path), "label": i % 2, "owner": f"owner {i}"} for i, path in enumerate(paths)]
    folder = save(rows, tmp_path / "saved", img=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    items = [*Image().open_source(str(folder), Image().options(source=str(folder))).documents()]
    assert [item.read() for item in items] == contents and items[1].name == f"{folder} 1"
    found = [*Image().read_rows(str(folder), COLUMNS, "train")]
    assert [(row.values[0].read(), row.values[1]) for row in found] == [*zip(contents, ["cat", "dog", "cat"], strict=True)]
    for columns, message in (
        (COLUMNS | {"finetune.task.label": "animal"}, r"no column 'animal'. Its columns are img, label, owner"),
        (COLUMNS | {"finetune.data.text_pair": "img"}, "one image and its label"),
    ):
        with pytest.raises(InputError, match=message):
            [*Image().read_rows(str(folder), columns, "train")]
    with pytest.raises(InputError, match=r"The column 'owner' of .* has no image but string\. Its columns are img, label, owner: name one"):
        [*Image().read_rows(f"hf:{folder}#owner", COLUMNS, "train")]
    with pytest.raises(InputError, match=r"has no columns of type audio\. Its columns are img, label, owner"):
        [*Audio().read_rows(str(folder), COLUMNS, "train")]


def test_a_path_in_the_data_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "secret.png").write_bytes(b"x")
    schema = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}).arrow_schema
    rows = [{"image": {"bytes": None, "path": str(tmp_path / "secret.png")}, "label": "a"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet line 0 has no bytes in the column 'image': remove the row, or add its file"):
        [*Image().read_rows(str(tmp_path / "a.parquet"), COLUMNS, "train")]


def test_recordings(tmp_path: Path) -> None:
    import pyarrow

    soundfile = pytest.importorskip("soundfile")
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(8000) / 9), 16_000, format="FLAC")
    # Not by `datasets`, whose own encoder needs a further package.
    schema = datasets.Features({"audio": datasets.Audio()}).arrow_schema
    rows = [{"audio": {"bytes": file.getvalue(), "path": "a.flac"}}]
    datasets.Dataset(pyarrow.Table.from_pylist(rows, schema=schema)).save_to_disk(tmp_path / "saved")
    (item,) = Audio().open_source(str(tmp_path / "saved"), Audio().options(source="x")).documents()
    assert item.read() == file.getvalue()
    report = Audio().inspect(Asked(str(tmp_path / "saved"), show_progress=False))
    assert report.files == 1 and not report.unreadable


# --- Bad input ---


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        ("{}/saved", {"a": "sentence"}, r"saved has no column 'sentence' among 'text', 'label', .*: set a to one of them"),
        ("{}/saved", {"a": "picture"}, "no column 'picture'"),
        ("hf:{}/saved[test]", {"a": "text"}, r"no split 'test'; it has train, validation. Name one: hf:.*/saved\[SPLIT\]"),
        ("hf:{}/saved[tr ain]", {"a": "text"}, "no split 'tr ain'; it has train, validation"),
        ("{}/typed", {"a": "list"}, "typed line 0 has a list in column 'list'"),
        ("{}/typed", {"a": "bytes"}, "typed line 0 has bytes instead of text: leave this column out"),
        ("{}/typed", {"a": "number"}, "typed line 0 has the non-finite number nan in column 'number'"),
        ("{}/empty", {"a": "text"}, "empty contains no examples"),
        ("hf:imdb", {"a": "text"}, r"hf:imdb is not hf:OWNER/NAME.*A path begins with /, ./ or ~/"),
        ("hf:", {"a": "text"}, "is not hf:OWNER/NAME"),
        ("hf:{}/nowhere", {"a": "text"}, "nowhere was not written by save_to_disk and is not a .parquet file"),
        ("{}/nowhere*.parquet", {"a": "text"}, r"nowhere\*.parquet does not exist"),
        ("{}/zeros.parquet", {"a": "text"}, r"zeros.parquet cannot be read as Parquet \(.+\)"),
    ],
)
def test_faults(place: Path, source: str, columns: dict[str, str], message: str) -> None:
    if not (place / "typed").exists():
        save([{"list": ["a"], "bytes": b"a", "number": float("nan")}], place / "typed")
        datasets.load_from_disk(place / "saved/train").select([]).save_to_disk(place / "empty")
        (place / "zeros.parquet").write_bytes(bytes(100))
    with pytest.raises(InputError, match=message):
        [*read_rows(source.format(place), columns, "train")]


def test_columns_that_are_no_text(place: Path) -> None:
    for end, message in (
        ("#label", r"The column 'label' of hf:.*/saved#label holds classlabel, not text. Its columns are text, .*: name one, as"),
        ("#content", "no column 'content'. Its columns are text, label"),
    ):
        with pytest.raises(InputError, match=message):
            [*open_source(f"hf:{place}/saved{end}", CorpusConfig()).documents()]


def test_folders_of_other_things_are_no_data_sets(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "a.txt").write_text("text")
    assert not is_saved(str(tmp_path)) and not any(map(is_saved, ("", "demo", "a\0b", "~nobody/x", str(tmp_path / "a.txt"))))
    assert [*open_source(str(tmp_path), CorpusConfig()).documents()] == [["text"]]


def broken(place: Path, folder: Path, name: str, content: bytes | None) -> str:
    """A copy of the saved reviews with another content of a file, or without it."""
    shutil.copytree(place / "saved", folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        [*read_rows(str(folder), COLUMNS, "train")]
    assert "save_to_disk" in str(caught.value)
    return str(caught.value)


def test_damaged_folders(place: Path, tmp_path: Path) -> None:
    arrow = "train/data-00000-of-00001.arrow"
    whole = (place / "saved" / arrow).read_bytes()
    cases: list[tuple[str, bytes | None, str]] = [
        ("train/state.json", None, "was not saved completely: it has no state.json"),
        ("train/dataset_info.json", None, "was not saved completely: it has no dataset_info.json"),
        ("train/state.json", b"{", "is not JSON"),
        ("train/state.json", b'{"_data_files": [{"filename": "../../../secret.arrow"}]}', "does not list files of its own folder"),
        ("dataset_dict.json", b'{"splits": ["../train"]}', "does not list the names of splits"),
        ("dataset_dict.json", b"[]", "does not list the names of splits"),
        ("train/dataset_info.json", b'{"features": {"text": {"_type": "os.system"}}}', "is damaged"),
        (arrow, None, "is damaged"),
        (arrow, whole[: len(whole) // 2], "is damaged"),
        (arrow, b"", "is damaged"),
    ]
    for number, (name, content, message) in enumerate(cases):
        assert message in broken(place, tmp_path / str(number), name, content)
    shutil.rmtree(tmp_path / "0" / "validation")
    (tmp_path / "0" / "train" / "dataset_info.json").unlink()
    with pytest.raises(InputError, match="was not saved completely"):
        open_source(str(tmp_path / "0" / "train"), CorpusConfig()).identity()


def test_offsets_that_lead_out_of_the_file(tmp_path: Path) -> None:
    """Arrow itself would read any memory."""
    folder = save([{"text": "abc"}, {"text": "defg"}], tmp_path / "saved")
    file = folder / "data-00000-of-00001.arrow"
    offsets = np.array([0, 3, 7], np.int32).tobytes()
    whole = file.read_bytes()
    assert whole.count(offsets) == 1
    file.write_bytes(whole.replace(offsets, np.array([0, 3, 1 << 30], np.int32).tobytes()))
    with pytest.raises(InputError, match=r"saved is damaged \(.*\). Save it again"):
        [*read_rows(str(folder), {"a": "text"}, "train")]


def test_a_missing_package(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (place / "saved", "hf:owner/name"):
        assert "pip install 'bert_jax[datasets]'" in failure(capsys, "inspect", source)


# --- The Hub ---

_READ = """
import json, sys
from bert_jax.data.data_sets import open_data_set
from bert_jax.data.tables import read_rows
from bert_jax.errors import InputError
for source in sys.argv[1:]:
    try:
        rows = [row.values for row in read_rows(source, {"a": "text", "b": "label"}, "train")]
        print(json.dumps([rows, open_data_set(source).identity()]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


def test_the_hub(place: Path, tmp_path: Path) -> None:
    """With and without the network, in processes of their own: `datasets` reads these settings once."""
    two, script = tmp_path / "hub" / "me" / "two", tmp_path / "hub" / "me" / "script"
    splits = {"a": "train", "b": "test"}
    for split in splits.values():
        (two / "data").mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "train.parquet", two / "data" / f"{split}-00000-of-00001.parquet")
    configs = [{"config_name": name, "data_files": [{"split": split, "path": f"data/{split}-*"}]} for name, split in splits.items()]
    (two / "README.md").write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")  # JSON is YAML
    script.mkdir()
    (script / "script.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    (script / "data.csv").write_text("text,label\na,b\n")
    # A folder of the same name is something else.
    save(REVIEWS[:1], tmp_path / "me" / "two")

    def read(sources: list[str], **environment: str) -> dict[str, Any]:
        settings = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
        command = [sys.executable, "-c", _READ, *sources]
        done = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, check=True)
        return dict(zip(sources, map(json.loads, done.stdout.splitlines()), strict=True))

    commit = f"hf:me/two/a@{COMMIT}"
    sources = ["hf:me/two/a", commit, "hf:me/two/b[test]", "hf:me/two", "hf:me/two/c", "hf:me/two/b", "hf:me/two/a@v9"]
    with serving(tmp_path / "hub") as address:
        found = read([*sources, "hf:me/none", "hf:me/gated", "hf:me/script"], HF_ENDPOINT=address)
    rows = [[row["text"], CLASSES[row["label"]]] for row in REVIEWS]
    for source in ("hf:me/two/a", commit, "hf:me/two/b[test]"):
        assert found[source][0] == rows
        assert found[source][1]["hugging_face"] == {"name": "me/two", "config": source[10], "commit": COMMIT}
    for source in ("hf:me/two", "hf:me/two/c"):
        assert "['a', 'b']" in found[source] and "Name a configuration as in hf:me/two/CONFIG." in found[source]
    assert "no split 'train'; it has test. Name one: hf:me/two/b[SPLIT]." in found["hf:me/two/b"]
    assert "Revision 'v9' doesn't exist" in found["hf:me/two/a@v9"]
    assert "'me/none' doesn't exist on the Hub" in found["hf:me/none"] and "HF_TOKEN" in found["hf:me/none"]
    assert "gated" in found["hf:me/gated"] and "HF_TOKEN" in found["hf:me/gated"]
    assert "scripts are no longer supported" in found["hf:me/script"] and "@refs/convert/parquet" in found["hf:me/script"]
    assert not (tmp_path / "executed").exists()

    offline = read([*sources[:2], "hf:me/two/a@v9", "hf:me/two@v9", "hf:me/two/c", "hf:me/none"], HF_HUB_OFFLINE="1")
    assert offline["hf:me/two/a"] == offline[commit] == found[commit]
    # The cache cannot tell which commit v9 is.
    assert f"name that copy as hf:me/two@{COMMIT}" in offline["hf:me/two/a@v9"]
    assert "configurations in the cache" in offline["hf:me/two@v9"] and "['a', 'b']" in offline["hf:me/two/c"]
    assert "there is no network" in offline["hf:me/none"] and "save_to_disk" in offline["hf:me/none"]
