"""A look at images and recordings before training."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from command_line import failure, ok

from bert_jax.config import RowsConfig
from bert_jax.data.pipeline import make_rows
from bert_jax.errors import InputError
from bert_jax.modalities import inspection as asking
from bert_jax.modalities import recognize
from bert_jax.modalities.audio.modality import Audio
from bert_jax.modalities.image.modality import Image, ImagesConfig
from bert_jax.modalities.image.patches import Patches
from bert_jax.modalities.media import inspection
from bert_jax.modalities.media.codebook import Codebook
from bert_jax.modalities.media.encoding import MediaEncoder
from bert_jax.modalities.media.items import Item

pillow = pytest.importorskip("PIL.Image")

SIZES = {"cat/a.png": (40, 20), "cat/b.png": (8, 9), "cat/c.png": (100, 70), "dog/a.png": (33, 32), "dog/d.png": (16, 16)}
"""Width and height."""


def draw(path: Path, size: tuple[int, int], seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    pillow.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for seed, (name, size) in enumerate(SIZES.items()):
        draw(folder / name, size, seed)
    return folder


def look(source: object, *files: Path, length: int = 128, **asked: object) -> inspection.MediaInspection:
    rows = RowsConfig(length=length, short_probability=0, next_sentence="none")
    return Image().inspect(asking.Asked(str(source), rows=rows, batch_size=2, evaluation_files=files, show_progress=False, **asked))


def codebook(extractor: Patches) -> Codebook:
    ones = np.ones(extractor.units.size, np.float32)
    return Codebook(extractor, np.stack([0 * ones, 100 * ones]), 0 * ones, ones, "dimensions")


def test_sizes_and_classes(photos):
    seen = look(photos)
    assert (seen.files, seen.unreadable, seen.copies) == (5, 0, 0)
    assert seen.bytes == sum((photos / name).stat().st_size for name in SIZES)
    assert seen.sizes.names == ("width", "height")
    # By area: 8 x 9, 16 x 16, 40 x 20, 33 x 32, 100 x 70.
    assert (seen.sizes.smallest, seen.sizes.median, seen.sizes.largest) == ((8, 9), (40, 20), (100, 70))
    assert seen.sizes.histogram == ((8, 16, 1), (16, 32, 2), (32, 64, 1), (64, 128, 1))
    assert seen.classes == {"cat": 3, "dog": 2}


def test_a_picture_outside_the_folders_leaves_no_classes(photos):
    draw(photos / "loose.png", (9, 9))
    assert look(photos).classes == {}
    assert look(photos / "cat").classes == {}
    assert look(photos / "*" / "a.png").files == 2


def test_what_cannot_be_read_is_counted_and_named(photos):
    whole = (photos / "cat" / "c.png").read_bytes()
    for index in range(25):
        (photos / "dog" / f"cut{index:02}.png").write_bytes(whole[:200])
    (photos / "dog" / "empty.png").write_bytes(b"")
    seen = look(photos)
    assert (seen.files, seen.unreadable, len(seen.problems)) == (31, 26, 20)
    assert seen.classes["dog"] == 2 and seen.copies == 0
    assert "cut00.png is not an image that Pillow can read" in seen.problems[0]
    report = str(seen)
    assert "26 (83.87%) unreadable" in report and "cut19.png" in report and "cut20.png" not in report and "and 6 more" in report


def test_a_corpus_of_damaged_files_is_refused(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"no image that can be read. The first of 1 files: .*bad\.png is not an image"):
        look(tmp_path)


def test_copies_are_found_by_content(photos):
    for name, original in (("dog/z.png", "cat/b.png"), ("dog/y.png", "cat/b.png"), ("cat/bb.png", "cat/b.png"), ("x.jpg", "dog/d.png")):
        (photos / name).write_bytes((photos / original).read_bytes())
    seen = look(photos)
    assert seen.copies == 4
    relative = [tuple(str(Path(name).relative_to(photos)) for name in pair) for pair in seen.copy_examples]
    assert relative == [("cat/bb.png", "cat/b.png"), ("dog/y.png", "cat/b.png"), ("dog/z.png", "cat/b.png"), ("x.jpg", "dog/d.png")]


def test_copies_as_a_dictionary_finds_them():
    drawn = [random.Random(seed).randbytes(16) for seed in random.Random(1).choices(range(300), k=1000)]
    first: dict[bytes, int] = {}
    expected = [[index, first[one]] for index, one in enumerate(drawn) if first.setdefault(one, index) != index]
    assert inspection._copies(bytearray(b"".join(drawn))).tolist() == expected
    assert inspection._copies(bytearray(16)).tolist() == []


def test_leaks_from_evaluation_data(photos, tmp_path):
    draw(tmp_path / "test" / "new.png", (12, 12), 99)
    (tmp_path / "test" / "old.png").write_bytes((photos / "dog" / "d.png").read_bytes())
    (tmp_path / "test.csv").write_text("file\nphotos/cat/a.png\nphotos/cat/absent.png\n")
    folder, table = look(photos, tmp_path / "test", tmp_path / "test.csv", text="file").overlaps
    assert (folder.files, folder.found) == (2, 1)
    assert folder.examples == ((str(tmp_path / "test" / "old.png"), str(photos / "dog" / "d.png")),)
    assert (table.files, table.found, table.examples[0][0]) == (1, 1, "photos/cat/a.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.png").write_bytes(b"\n")
    assert look(photos, tmp_path / "bad").overlaps[0].found == 0
    with pytest.raises(InputError, match="absent does not exist"):
        look(photos, tmp_path / "absent")


def test_a_table_of_paths(photos, tmp_path):
    rows = ["photos/cat/a.png,big", "photos/dog/a.png,small", "photos/dog/d.png,small", "photos/none.png,small", "/etc/passwd,big"]
    (tmp_path / "table.csv").write_text("\n".join(["path,kind", *rows, "../up.png,big"]) + "\n")
    seen = look(tmp_path / "table.csv", text="path", label="kind")
    assert (seen.files, seen.unreadable, seen.classes) == (6, 3, {"small": 2, "big": 1})
    assert ["does not exist" in seen.problems[0], "is absolute" in seen.problems[1], "leads out of" in seen.problems[2]] == [True] * 3
    with pytest.raises(InputError, match="no column 'text' among 'path', 'kind': set --text"):
        look(tmp_path / "table.csv")
    with pytest.raises(InputError, match="set --label"):
        look(tmp_path / "table.csv", text="path", label="class")


def test_an_epoch_is_as_long_as_in_training(photos, tmp_path):
    config = ImagesConfig(source=str(photos), size=16, patch=4, block=2)
    reader = codebook(config.extractor())
    reader.save(tmp_path / "codebook")
    rows = RowsConfig(length=20, short_probability=0, next_sentence="none")
    documents = MediaEncoder(reader, config)([Item(name, photos / name) for name in SIZES])
    made = make_rows(documents, reader, rows, np.random.default_rng(0))
    seen = look(photos, length=20, vocabulary=tmp_path / "codebook")
    assert (seen.units, seen.fewest_units, seen.most_units) == (5 * 16, 16, 16)
    assert seen.rows == round(0.99 * len(made["tokens"])) and seen.steps_per_epoch == seen.rows / 2
    assert seen.fill == pytest.approx((made["example_ids"] > 0).mean())
    assert look(photos).units == 5 * 64


def test_the_demo_has_no_files():
    pytest.importorskip("sklearn")
    seen = look("demo")
    assert (seen.files, seen.sizes.median, seen.classes) == (1437, (8, 8), {})


def test_the_modality_follows_from_the_names(photos, tmp_path):
    draw(tmp_path / "both" / "a.png", (9, 9))
    assert recognize(str(photos)).name == "image"
    assert recognize(str(photos / "*" / "a.png")).name == "image"
    assert [recognize(name).name for name in ("demo", "tfds:cifar10", "", str(tmp_path / "absent"))] == ["text"] * 4
    (tmp_path / "both" / f"a{Audio.extractor.suffixes[0]}").write_bytes(b"")
    with pytest.raises(InputError, match="modalities image and audio: choose one with --modality=image"):
        recognize(str(tmp_path / "both"))
    (tmp_path / "both" / "readme.txt").write_text("about")
    assert recognize(str(tmp_path / "both")).name == "text"


def test_the_command(photos, tmp_path, capsys):
    ok("inspect", photos, "--evaluation-file", photos / "cat", "--batch-size", 2)
    report = capsys.readouterr().out
    for part in ("median 40 x 20, smallest 8 x 9, largest 100 x 70", "320: 64 per image", "2 classes", "images by the smaller of width and",
                 "of 3 images, 3 (100.00%) are also in the corpus"):  # fmt: skip
        assert part in report
    ok("inspect", photos, "--json", "--modality", "image")
    found = json.loads(capsys.readouterr().out)
    assert (found["files"], found["sizes"]["largest"], found["classes"]) == (5, [100, 70], {"cat": 3, "dog": 2})
    (tmp_path / "table.tsv").write_text("path\nphotos/cat/a.png\n")
    ok("inspect", tmp_path / "table.tsv", "--modality", "image", "--text", "path")
    assert "files            1 of" in capsys.readouterr().out


def test_wrong_flags(photos, tmp_path, capsys):
    assert "no columns: leave out --text and --label" in failure(capsys, "inspect", photos, "--label", "kind")
    assert "--encoding-errors is for text" in failure(capsys, "inspect", photos, "--encoding-errors", "replace")
    assert "There is no codebook in" in failure(capsys, "inspect", photos, "--vocab", tmp_path)
    assert "There is no modality 'video'" in failure(capsys, "inspect", photos, "--modality", "video")
    assert "no files that end in .png" in failure(capsys, "inspect", tmp_path / "*.txt", "--modality", "image")
    (tmp_path / "a.txt").write_text("one")
    assert "are for images and audio" in failure(capsys, "inspect", tmp_path / "a.txt", "--label", "kind")


def test_recordings(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    if Audio.extractor.__abstractmethods__:
        pytest.skip("there is no extractor of recordings")
    for name, seconds in (("a/1", 0.4), ("a/2", 1.5), ("b/1", 3.1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(int(10 * seconds)).normal(0, 0.1, round(16_000 * seconds))
        soundfile.write(tmp_path / f"{name}.wav", noise, 16_000)
    soundfile.write(tmp_path / "b" / "silent.wav", np.zeros(16_000), 16_000)
    seen = recognize(str(tmp_path)).inspect(asking.Asked(str(tmp_path), show_progress=False))
    assert isinstance(seen, inspection.MediaInspection)
    assert (seen.files, seen.unreadable, seen.classes) == (4, 1, {"a": 2, "b": 1})
    assert (seen.sizes.smallest, seen.sizes.median, seen.sizes.largest) == ((0.4,), (1.5,), (3.1,))
    assert seen.sizes.histogram == ((0.25, 0.5, 1), (0.5, 1, 0), (1, 2, 1), (2, 4, 1))
    assert seen.sizes.total == {"seconds": pytest.approx(5.0)} and seen.fewest_units < seen.most_units
    report = str(seen)
    assert "median 1.5, smallest 0.4, largest 3.1, 0.00 hours in all" in report and "recordings by seconds" in report
    assert "silent.wav is silent" in report
