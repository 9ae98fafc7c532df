"""Where images come from: files and folders, tables of paths, folders of classes and TFDS data sets; real files, written by Pillow."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_jax.config import LabelledConfig
from bert_jax.data.labelled import Labelled, load_labelled
from bert_jax.data.tables import Row
from bert_jax.errors import InputError
from bert_jax.modalities.image.modality import Image, ImagesConfig
from bert_jax.modalities.inspection import Asked
from bert_jax.modalities.media import sources
from bert_jax.modalities.media.items import Half, Item, Masked
from bert_jax.tasks.classification import CLASSIFICATION, ClassificationOptions

pillow = pytest.importorskip("PIL.Image")

MODALITY = Image()


def draw(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return path


def opened(source: Any) -> Any:
    return MODALITY.open_source(str(source), ImagesConfig(source=str(source)))


def names(source: Any, folder: Path) -> list[str]:
    return [os.path.relpath(item.name, folder) for item in opened(source).documents()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images at several depths, some of whose names other loaders take for splits, between files that are none."""
    for seed, name in enumerate(("b.png", "train.png", "test/train_1.jpg", "test/deep/er/X.JPEG", "a b#1[2].gif")):
        draw(tmp_path / "data" / name, seed)
    for name in (".hidden.png", "notes.txt", "test/.b.png", ".cache/c.png"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"no image")
    (tmp_path / "data" / "folder.png").mkdir()
    return tmp_path / "data"


ALL = ["a b#1[2].gif", "b.png", "test/deep/er/X.JPEG", "test/train_1.jpg", "train.png"]


def test_a_folder_of_any_depth(folder: Path) -> None:
    assert names(folder, folder) == ALL
    assert [item.read() for item in opened(folder).documents()] == [(folder / name).read_bytes() for name in ALL]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["b.png", "train.png"]),
        ("[bt]*.png", ["b.png", "train.png"]),
        ("test/**/*", ALL[2:4]),
        ("**/*", ALL),
        ("t*/*", ["test/train_1.jpg"]),
        ("train.png", ["train.png"]),
        (ALL[0], ALL[:1]),
    ],
)
def test_globs_and_single_files(folder: Path, pattern: str, found: list[str]) -> None:
    assert names(folder / pattern, folder) == found


@pytest.mark.parametrize("name", ["[2024] x", "a*b"])
def test_folders_whose_names_look_like_globs(tmp_path: Path, name: str) -> None:
    draw(tmp_path / name / "a.png")
    assert names(tmp_path / name, tmp_path) == [f"{name}/a.png"] == names(tmp_path / name / "*.png", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.txt", r"notes\.txt is not one of \.png, .*: convert it, or name a folder"),
        ("*.webp", r"has no files that end in \.png"),
        ("folder.png", r"has no files that end in \.png"),
        ("gone", "gone does not exist: name a file, a folder, a glob"),
    ],
)
def test_nothing_to_read(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(opened(folder / name).documents())


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "a.png")
    draw(tmp_path / "data" / "b.png")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    assert names(tmp_path / "data", tmp_path / "data") == ["b.png", "link/a.png"]


def test_the_identity_is_of_names_and_contents(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = opened(folder).identity()
    assert identity["files"] == 5 and identity == opened(folder).identity()
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert opened(moved).identity() == identity, "a folder may be moved"
    (moved / "notes.txt").write_text("more")
    assert opened(moved).identity() == identity
    monkeypatch.setattr(sources, "_HASH_CONTENTS_UP_TO", 100)
    by_time = opened(moved).identity()
    os.utime(moved / "b.png", ns=(1, 1))
    assert opened(moved).identity() != by_time
    monkeypatch.undo()
    (moved / "b.png").rename(moved / "c.png")
    renamed = opened(moved).identity()
    assert renamed != identity
    draw(moved / "c.png", seed=9)
    assert opened(moved).identity() != renamed


def test_parts_are_the_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_FILES_PER_PART", 2)
    source = opened(folder)
    parts = source.parts()
    assert [len(list(part.documents())) for part in parts] == [2, 2, 1]
    whole = [item.content for item in source.documents()]
    assert [item.content for part in parts for item in part.documents()] == whole
    assert [item.content for part in parts for again in part.parts() for item in again.documents()] == whole
    read: list[int] = []
    list(source.documents(read.append))
    assert sum(read) == source.stored_bytes == sum((folder / name).stat().st_size for name in ALL)


def test_the_demo_leaves_out_the_test_set() -> None:
    source = opened("demo")
    items = list(source.documents())
    assert len(items) == 1437 and items[0].name == "digits/0000"
    (part,) = source.parts()
    assert [item.identity for item in part.documents()] == [item.identity for item in items]
    with pytest.raises(InputError, match="The demo has no columns text, second, label: it has one input and its label"):
        labelled(LabelledConfig(text_pair="second"))
    whole = labelled(LabelledConfig())
    assert [len(part) for part in (whole.train, whole.dev, whole.test)] == [1257, 180, 360]


# Labeled examples.


def labelled(config: LabelledConfig, **options: Any) -> Labelled:
    task = ClassificationOptions(**options)
    return load_labelled(config, CLASSIFICATION.labels(task), 0, MODALITY.tables, MODALITY.read_rows)


def rows(source: Path, columns: dict[str, str] | None = None) -> list[Row]:
    fields = {"finetune.data.text": "image", "finetune.task.label": "label"}
    return list(MODALITY.read_rows(str(source), fields if columns is None else columns, "train"))


def classes(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    for name, count in counts.items():
        for index in range(count):
            draw(root / name / f"{index}.png", hash_of(name) + 100 * seed + index)
    return root


def hash_of(name: str) -> int:
    return int.from_bytes(name.encode()[-3:], "little")


def test_a_folder_per_class(tmp_path: Path) -> None:
    classes(tmp_path / "data", {"cat": 2, "dog/small": 1, "dog/large": 1})
    (tmp_path / "data" / "empty").mkdir()
    (tmp_path / "data" / "README").write_text("about")
    found = rows(tmp_path / "data")
    assert [row.values[1] for row in found] == ["cat", "cat", "dog", "dog"]
    assert [row.values[0].content for row in found] == sorted((tmp_path / "data").rglob("*.png"))


def test_one_class_and_files_without_one(tmp_path: Path) -> None:
    classes(tmp_path, {"cat": 2})
    with pytest.raises(InputError, match="has files of only one class, cat: it needs a folder for each of at least two classes"):
        rows(tmp_path)
    classes(tmp_path, {"dog": 1})
    loose = draw(tmp_path / "loose.png")
    with pytest.raises(InputError, match=rf"{loose} is not in the folder of a class: move it to {tmp_path}/CLASS"):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "gone is neither a folder with a folder per class nor a .tsv, .csv, .jsonl file"),
        ("a.png", "is neither a folder with a folder per class nor a .tsv, .csv, .jsonl file"),
        ("none", "has no files that end in .png"),
    ],
)
def test_no_labelled_images(tmp_path: Path, name: str, message: str) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=message):
        rows(tmp_path / name)


def test_a_folder_has_no_pairs(tmp_path: Path) -> None:
    classes(tmp_path, {"cat": 1, "dog": 1})
    with pytest.raises(InputError, match=r"is not a table, so it has no columns image, second, label: name a \.tsv"):
        rows(tmp_path, {"finetune.data.text": "image", "finetune.data.text_pair": "second", "finetune.task.label": "label"})


def test_splits_share_the_numbers_of_classes(tmp_path: Path) -> None:
    """Even if dev or test lacks a class. A class that training never saw is an error, as in text."""
    train = classes(tmp_path / "train", {"cat": 3, "dog": 3, "emu": 3})
    dev = classes(tmp_path / "dev", {"dog": 1, "emu": 2}, seed=1)
    test = classes(tmp_path / "test", {"cat": 1, "emu": 1}, seed=2)
    whole = labelled(LabelledConfig(train=str(train), dev=str(dev), test=str(test)))
    assert whole.label_names == ("cat", "dog", "emu")
    assert [part.targets.tolist() for part in (whole.train, whole.dev, whole.test)] == [[0, 0, 0, 1, 1, 1, 2, 2, 2], [1, 2, 2], [0, 2]]
    assert whole.overlaps == {"dev": 0, "test": 0}
    classes(dev, {"fox": 1})
    with pytest.raises(InputError, match=r"dev line 3 has the unknown label 'fox'"):
        labelled(LabelledConfig(train=str(train), dev=str(dev)))


def test_duplicates_and_leaks_are_found_by_content(tmp_path: Path) -> None:
    train = classes(tmp_path / "train", {"cat": 4, "dog": 4})
    (train / "cat" / "copy.png").write_bytes((train / "cat" / "0.png").read_bytes())
    (train / "dog" / "claimed_by_both.png").write_bytes((train / "cat" / "1.png").read_bytes())
    whole = labelled(LabelledConfig(train=str(train), dev_fraction=0.3))
    assert whole.duplicates == 3, "a copy, and both of those whose classes differ"
    test = classes(tmp_path / "test", {"cat": 1, "dog": 1}, seed=1)
    (test / "dog" / "other_name.png").write_bytes((train / "dog" / "3.png").read_bytes())
    leaky = {"train": str(train), "dev": str(test)}
    assert labelled(LabelledConfig(**leaky)).overlaps["dev"] == 1
    assert labelled(LabelledConfig(**leaky, leaks="leave_out")).overlaps["dev"] == 0
    with pytest.raises(InputError, match=r"1 of the 3 dev examples of .*test \(the first in line 2\) also appear in"):
        labelled(LabelledConfig(**leaky, leaks="refuse"))


def test_the_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    train = classes(tmp_path / "train", {"cat": 4, "dog": 4})
    before = labelled(LabelledConfig(train=str(train))).fingerprint
    assert labelled(LabelledConfig(train=str(train.rename(tmp_path / "moved")))).fingerprint == before
    draw(tmp_path / "moved" / "cat" / "2.png", seed=77)
    assert labelled(LabelledConfig(train=str(tmp_path / "moved"))).fingerprint != before


def table(path: Path, lines: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(line) + "\n" for line in lines)
    else:
        text = "\n".join(("\t" if path.suffix == ".tsv" else ",").join(row) for row in ([*lines[0]], *(line.values() for line in lines)))
    path.write_text(text + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_tables_of_paths(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are relative to the folder of the table, not to where the command is typed."""
    cat, dog = draw(tmp_path / "data" / "a" / "cat 猫.png"), draw(tmp_path / "data" / "dog.png", 1)
    lines = [{"label": "cat", "image": "a/cat 猫.png"}, {"label": "dog", "image": "./dog.png"}]
    found = table(tmp_path / "data" / f"images{suffix}", lines)
    monkeypatch.chdir(tmp_path)
    assert [(row.values[0].read(), row.values[1]) for row in rows(Path(f"data/images{suffix}"))] == [
        (cat.read_bytes(), "cat"),
        (dog.read_bytes(), "dog"),
    ]
    assert [row.values[0].name for row in rows(found)] == ["a/cat 猫.png", "./dog.png"]


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("gone.png", "does not exist"),
        ("../secret.png", "leads out of .*, the folder of the table or list: write paths relative to it, without `..`"),
        ("sub/../cat.png", "leads out of .*, the folder of the table"),
        ("{root}/data/cat.png", "is absolute: write it relative to .*/data, the folder of the table or list"),
        ("link.png", "is a link out of .*, the folder of the table"),
        ("linked/secret.png", "is a link out of .*, the folder of the table"),
        ("sub", "is not a regular file"),
        ("circle.png", "does not exist"),
        ("x" * 300 + ".png", "File name too long"),
        ("  ", "is empty"),
    ],
)
def test_paths_that_lead_nowhere_or_out_of_the_folder(tmp_path: Path, typed: str, problem: str) -> None:
    draw(tmp_path / "secret.png")
    draw(tmp_path / "data" / "cat.png", 1)
    (tmp_path / "data" / "sub").mkdir()
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "linked").symlink_to(tmp_path)
    (tmp_path / "data" / "circle.png").symlink_to(tmp_path / "data" / "circle.png")
    lines = [{"image": "cat.png", "label": "cat"}, {"image": typed.format(root=tmp_path), "label": "dog"}]
    found = table(tmp_path / "data" / "images.tsv", lines)
    with pytest.raises(InputError, match=rf"images\.tsv line 3 .*{problem}.*Correct or remove the line\.") as raised:
        rows(found)
    assert "\n" not in str(raised.value) and str(found) in str(raised.value)


def test_links_inside_the_folder_are_fine(tmp_path: Path) -> None:
    draw(tmp_path / "deep" / "cat.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "deep" / "cat.png")
    (row,) = rows(table(tmp_path / "images.csv", [{"image": "link.png", "label": "cat"}]))
    assert row.values[0].read() == (tmp_path / "deep" / "cat.png").read_bytes()


def test_a_table_of_pairs(tmp_path: Path) -> None:
    for index in range(4):
        draw(tmp_path / f"{index}.png", index)
    pairs = [("0", "1", "same"), ("2", "3", "other"), ("0", "2", "same"), ("1", "3", "other"), ("0", "1", "same")]
    lines = [{"left": f"{a}.png", "right": f"{b}.png", "label": label} for a, b, label in pairs]
    config = LabelledConfig(train=str(table(tmp_path / "pairs.tsv", lines)), text="left", text_pair="right", dev_fraction=0.5)
    whole = labelled(config)
    assert whole.duplicates == 1
    given = [(a.name, b.name) for part in (whole.train, whole.dev) for a, b in zip(part.texts, part.pairs or (), strict=True)]
    assert sorted(given) == [("0.png", "1.png"), ("0.png", "2.png"), ("1.png", "3.png"), ("2.png", "3.png")]


def test_items_with_arrays_can_be_compared_and_put_in_sets() -> None:
    item, copy = (Item("a", np.zeros((8, 8), np.uint8)) for _ in range(2))
    mask = np.ones(4, np.bool_)
    pairs: list[tuple[Any, Any]] = [(item, copy), (Masked(item, mask), Masked(item, mask)), (Half(item, 0), Half(copy, 0))]
    for one, other in pairs:
        assert one == one and one != other and len({one, other}) == 2
    assert item.identity == copy.identity


# Data sets of TFDS.


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> None:
    """TFDS data sets with images, prepared as ArrayRecord."""
    import tensorflow_datasets as tfds

    class TinyPets(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            columns = {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                "owner": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(columns), disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": self._examples(0, 12), "test": self._examples(12, 16), "unlabeled": self._examples(16, 18, -1)}

        def _examples(self, start: int, end: int, label: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
            for i in range(start, end):
                image = np.full((8, 8, 3), 10 * i, np.uint8)
                yield i, {"image": image, "label": i % 2 if label is None else label, "owner": "Ada Bo Cy".split()[i % 3]}

        def _generate_examples(self) -> Any:
            raise NotImplementedError

    place = tmp_path_factory.mktemp("tfds")
    TinyPets(data_dir=place, file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(place)


def test_images_of_tfds(stock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened("tfds:tiny_pets")
    items = list(source.documents())
    assert len(items) == 12 and items[3].name == "tfds:tiny_pets 3"
    np.testing.assert_array_equal(items[3].read(), np.full((8, 8, 3), 30, np.uint8))
    assert source.identity() == {"tfds": "tiny_pets/1.0.0", "split": "train", "examples": 12}
    assert source.identity() != opened("tfds:tiny_pets[train+test]").identity()
    monkeypatch.setattr("bert_jax.data.tfds._PART", 5)
    both = opened("tfds:tiny_pets[train+test[1:]]")
    assert [len(list(part.documents())) for part in both.parts()] == [5, 5, 2, 3]
    found = [item.identity for part in both.parts() for item in part.documents()]
    assert found == [item.identity for item in both.documents()]


def test_labelled_images_of_tfds(stock: None) -> None:
    config = LabelledConfig(train="tfds:tiny_pets", dev="tfds:tiny_pets[train[:2]]", test="tfds:tiny_pets", text="image")
    whole = labelled(config, label="label")
    assert whole.label_names == ("cat", "dog")
    assert [len(part) for part in (whole.train, whole.dev, whole.test)] == [12, 2, 4]
    assert whole.train.targets.tolist() == [0, 1] * 6 and whole.overlaps == {"dev": 2, "test": 0}
    assert all(isinstance(item, Item) for item in whole.test.texts)
    assert labelled(config, label="owner").label_names == ("Ada", "Bo", "Cy"), "labels that are text"
    test_set = LabelledConfig(train="tfds:tiny_pets", dev="tfds:tiny_pets[unlabeled]", text="image")
    with pytest.raises(InputError, match=r"tfds:tiny_pets\[unlabeled\] line 0 has no label in the column 'label'"):
        labelled(test_set, label="label")
    for split, counts in (("test", {"cat": 2, "dog": 2}), ("unlabeled", {})):
        assert MODALITY.inspect(Asked(f"tfds:tiny_pets[{split}]", label="label", show_progress=False)).classes == counts


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("tiny_pets[valid]", {}, r"tiny_pets has no split 'valid'; it has .*train.*test.* Name one: tfds:tiny_pets\[SPLIT\]"),
        ("tiny_pets", {"finetune.task.label": "animal"}, r"tiny_pets has no column 'animal'; its columns are image, label"),
        ("tiny_pets", {"finetune.data.text_pair": "image"}, "tiny_pets .*one image"),
        ("no_such_pets", {}, "no data set 'no_such_pets'"),
    ],
)
def test_what_tfds_does_not_have(stock: None, name: str, columns: dict[str, str], message: str) -> None:
    fields = {"finetune.data.text": "image", "finetune.task.label": "label"} | columns
    with pytest.raises(InputError, match=message):
        list(MODALITY.read_rows(f"tfds:{name}", fields, "train"))
