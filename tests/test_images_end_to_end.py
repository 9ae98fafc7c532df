"""From a folder of images to a classifier and its answers, as a user gets there: tiny images, in files that Pillow wrote."""

import base64
import contextlib
import io
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import failure, json_lines, ok
from small_run import write_files

import bert_jax
from bert_jax.cli import main
from bert_jax.config import RunConfig
from bert_jax.convert.exports import export_model
from bert_jax.convert.onnx import export_model_to_onnx
from bert_jax.data.pipeline import Batches
from bert_jax.errors import InputError
from bert_jax.inference import Bert, load
from bert_jax.modalities.image.modality import Image, ImagesConfig
from bert_jax.modalities.media.items import Masked
from bert_jax.modalities.media.options import CodebookConfig
from bert_jax.model import directory as model_directory
from bert_jax.runtime.metrics import read_metrics
from bert_jax.stages.run import prepare_data
from bert_jax.training.checkpoints.loading import chosen

pillow = pytest.importorskip("PIL.Image")

CONFIG = """
from bert_jax.config import *
from bert_jax.modalities.image.modality import ImagesConfig
from bert_jax.modalities.media.options import CodebookConfig

def get_config():
    return RunConfig(
        encoder=EncoderConfig(layers=1, width=16, heads=2, feed_forward=32, max_positions=40),
        vocabulary=CodebookConfig(size=16),
        corpus=ImagesConfig(source="images", size=8, patch=2, color=False, valid_fraction=0.2),
        pretrain=PretrainConfig(
            steps=30, batch_size=8, rows=RowsConfig(length=40, examples_per_row=2), masking=MaskingConfig(rate=0.4, whole_words=True),
            evaluation_batches=1, optimizer=OptimizerConfig(learning_rate=1e-2),
            loop=LoopConfig(log_every=10, evaluate_every=15, save_every=15),
        ),
        finetune=FinetuneConfig(
            data=LabelledConfig(train="images", dev_fraction=0.2), length=18, batch_size=8, epochs=3, examples_per_row=1,
            optimizer=OptimizerConfig(learning_rate=1e-2), loop=LoopConfig(log_every=5, evaluate_every=6, save_every=6),
        ),
    )
"""
CLASSES = ("dark", "light")
TEXT = re.compile(r"\b(text|sentence|token|word)s?\b", re.IGNORECASE)
"""What only the reader of a text is told about."""


def pixels(index: int) -> np.ndarray:
    """An image of class index % 2, dark or light, with noise."""
    return (np.random.default_rng(index).integers(0, 80, (8, 8)) + 170 * (index % 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 60 images, in a folder per class, and a configuration; not the working directory."""
    folder = tmp_path_factory.mktemp("files")
    for index in range(60):
        path = folder / "images" / CLASSES[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(pixels(index)).save(path)
    (folder / "config.py").write_text(CONFIG, encoding="utf-8")
    return folder


def trained(files: Path, workdir: Path, *values: str, status: int = 0) -> None:
    with contextlib.chdir(files):  # as it is typed: relative paths
        arguments = ["train", "--config=config.py", f"--workdir={workdir}", *(f"--config.{value}" for value in values)]
        assert main(arguments) == status


@pytest.fixture(scope="module")
def finished(files: Path) -> Path:
    """The workdir of a run that has ended."""
    trained(files, Path("run"))
    return files / "run"


@pytest.fixture(scope="module")
def pretrained(finished: Path) -> Bert:
    return load(finished / "pretrain")


@pytest.fixture(scope="module")
def classifier(finished: Path) -> Bert:
    return load(finished / "finetune")


def image(files: Path, index: int) -> Path:
    return files / "images" / CLASSES[index % 2] / f"{index:02}.png"


# The run.


def test_a_run_learns_and_is_done(files: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["pretrain"]["steps"] == 30 and summary["finetune"]["accuracy"] == 1, "dark or light"
    losses = [line["mlm_loss"] for line in read_metrics(finished / "pretrain") if line["split"] == "train"]
    assert losses[-1] < losses[0]
    capsys.readouterr()
    trained(files, Path("run"))
    told = capsys.readouterr().out
    assert "is done" in told
    assert "Masked units  " in told and "most frequent code" in told and "Next part  " in told and "test images, trained on" in told
    assert not TEXT.search(told)


def test_records_hold_the_pixels(files: Path, finished: Path) -> None:
    config = ImagesConfig(source=str(files / "images"), size=8, patch=2, color=False, valid_fraction=0.2)
    modality = Image()
    prepared = modality.prepare(config, modality.load(finished / "vocabulary"), finished / "data")
    documents = [document for split in (prepared.train, prepared.valid) for document in split.fetch(range(len(split)))]
    assert len(documents) == 60
    written = {config.extractor().extract(pixels(index)).tobytes() for index in range(60)}
    assert {np.asarray(document.units).tobytes() for document in documents} == written
    assert all(document.sentence_starts.tolist() == [0, 8] for document in documents)
    assert len(list((finished / "data" / "documents").iterdir())) == 1, "the records of the run were found"


def test_predictions_name_the_files(files: Path, finished: Path) -> None:
    lines = json_lines((finished / "finetune" / "predictions.jsonl").read_text(encoding="utf-8"))
    assert len(lines) == 12 and all(line["label"] == Path(line["text"]).parent.name and Path(line["text"]).is_file() for line in lines)


def test_the_report_shows_pictures(finished: Path) -> None:
    report = (finished / "report.html").read_text(encoding="utf-8")
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)">', report)
    sizes = [pillow.open(io.BytesIO(base64.b64decode(data))).size for data, _ in found]
    captions = [caption for _, caption in found]
    assert captions.count("original") == captions.count("masked") == captions.count("completed") > 2
    assert {size for size, (_, caption) in zip(sizes, found, strict=True) if caption} == {(8, 8)}
    assert (8 * 3 - 1, 2 * 3 - 1) in sizes, "the 16 codes in two rows"
    assert "masked units have the predicted code" in report and "Does the second part follow?" in report


def test_the_report_speaks_of_images(finished: Path) -> None:
    report = re.sub("<style>.*?</style>|<script>.*?</script>", "", (finished / "report.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    results, _, _ = report.partition("<h2>Configuration</h2>")
    assert "Classified images" in results and "Masked-unit accuracy" in results and "Real units/s" in results
    words = re.sub("<[^>]*>", " ", results)
    assert "images" in words and not TEXT.search(words)
    assert not TEXT.search(" ".join(re.findall('aria-label="([^"]*)"', results)))


def test_verify_covers_it(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ok("verify", finished)
    assert "is intact" in capsys.readouterr().out
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    codebook = copy / "pretrain" / "codebook.safetensors"
    damaged = bytearray(codebook.read_bytes())
    damaged[-1] ^= 1
    codebook.write_bytes(damaged)
    assert main(["verify", str(copy)]) == 2
    assert "codebook.safetensors" in "".join(capsys.readouterr())
    with pytest.raises(InputError, match=r"codebook\.safetensors does not match its checksum: it is damaged\. Restore it"):
        load(copy / "pretrain")


def test_an_interrupted_run_goes_on_to_the_same_parameters(
    files: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = Batches.__next__, []

    def interrupted(batches: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            signal.raise_signal(signal.SIGINT)
        return step(batches)

    monkeypatch.setattr(Batches, "__next__", interrupted)
    trained(files, tmp_path / "run", "finetune=none", status=130)
    assert not (tmp_path / "run" / "summary.json").exists()
    monkeypatch.undo()
    trained(files, tmp_path / "run", "finetune=none")
    again, before = (load(run / "pretrain").params for run in (tmp_path / "run", finished))
    import jax

    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), again, before)))
    assert chosen(tmp_path / "run" / "pretrain" / "checkpoints", False)[0].name == "30"


# Questions.


def test_paths_bytes_and_arrays_get_the_same_answer(files: Path, classifier: Bert, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image(files, 3)
    monkeypatch.chdir(files)
    given: list[Any] = [path, str(path), f"images/light/{path.name}", path.read_bytes(), pixels(3), pixels(3)[:, :, None]]
    answers = [classifier.classify(one) for one in given]
    assert {answer.label for answer in answers} == {"light"}
    assert all(answer.probabilities == answers[0].probabilities for answer in answers)
    assert [answer.label for answer in classifier.classify([image(files, 0), path.read_bytes(), pixels(4)])] == ["dark", "light", "dark"]


def test_an_array_of_several_images_is_several(classifier: Bert) -> None:
    several = np.stack([pixels(index) for index in range(20)])
    found = classifier.classify(several[..., None].repeat(3, -1))
    assert [answer.label for answer in found] == [CLASSES[index % 2] for index in range(20)]
    one_by_one = [classifier.classify(picture) for picture in several]
    for answer, alone in zip(classifier.classify(list(several)), one_by_one, strict=True):
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert classifier.classify([]) == []


def test_regions_are_filled_in(files: Path, pretrained: Bert) -> None:
    path = image(files, 5)
    corner = pretrained.fill_mask(f"{path}#xywh=0,0,4,4")
    assert len(corner) == 4 and all(len(mask) == 5 and mask[0].token.isdigit() for mask in corner)
    mask = np.arange(16) < 4
    for same in (f"{path}#xywh=percent:0,0,50,50", Masked(path, "xywh=0,0,4,4"), Masked(pixels(5), mask), Masked(path.read_bytes(), mask)):
        assert pretrained.fill_mask(same) == corner
    several = pretrained.fill_mask([f"{path}#xywh=0,0,4,4", f"{image(files, 6)}#xywh=0,0,8,8"], top_k=1)
    assert [len(masks) for masks in several] == [4, 16]
    chosen_codes = pretrained.fill_mask(f"{path}#xywh=0,0,2,2", words=["3", "7"])
    assert {prediction.token for prediction in chosen_codes[0]} == {"3", "7"}


def test_what_is_masked_is_not_seen(files: Path, pretrained: Bert) -> None:
    changed = pixels(5).copy()
    changed[:4, :4] = 255 - changed[:4, :4]
    masked, other = (pretrained.fill_mask(Masked(picture, "xywh=0,0,4,4")) for picture in (pixels(5), changed))
    assert masked == other
    changed[5, 5] = 255 - changed[5, 5]
    assert pretrained.fill_mask(Masked(changed, "xywh=0,0,4,4")) != masked


def test_other_questions(files: Path, pretrained: Bert) -> None:
    paths = [image(files, index) for index in range(6)]
    scores = pretrained.score(paths)
    codes = pretrained.tokenizer.tokens(pretrained.tokenizer.encode(paths[2]).ids)
    alone = [pretrained.fill_mask(Masked(paths[2], np.arange(16) == i), words=[code])[0][0] for i, code in enumerate(codes)]
    assert scores[2] == pytest.approx(sum(np.log(prediction.probability) for prediction in alone), rel=1e-4)
    assert pretrained.score(paths[2]) == pytest.approx(scores[2], abs=1e-4)
    vectors = pretrained.embed(paths)
    assert vectors.shape == (6, 16)
    np.testing.assert_allclose(pretrained.embed(pixels(3)), vectors[3], atol=1e-5)
    with pytest.raises(InputError, match="A prompt is text, but this model reads images: leave it out"):
        pretrained.embed(paths, prompt="a photo of ")


def test_the_lower_half_that_follows(files: Path, pretrained: Bert) -> None:
    """A is the upper half of its image, and B the lower one; what is in the other halves does not matter."""
    a, b = pixels(0), pixels(2)
    probability = pretrained.next_sentence(a, b)
    assert 0 < probability < 1
    changed = [picture.copy() for picture in (a, b)]
    changed[0][4:], changed[1][:4] = 77, 99
    assert pretrained.next_sentence(*changed) == pytest.approx(probability, abs=1e-6)
    changed[1][4:] = 99
    assert pretrained.next_sentence(*changed) != pytest.approx(probability, abs=1e-6)
    paths = [image(files, 0), image(files, 1)], [image(files, 0), image(files, 2)]
    assert len(pretrained.next_sentence(*paths)) == 2
    with pytest.raises(InputError, match="A single image and a list cannot be paired: give two images"):
        pretrained.next_sentence(a, [b])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "reads images.*int"),
        (None, "reads images.*NoneType"),
        ([{"path": "a.png"}], r"Image 0 .*is not a path, bytes or an array but dict"),
        ("gone.png", r"Image 0 \(counted from 0\) does not exist"),
        ("it was a nice film", r"Image 0 \(counted from 0\) does not exist"),
        ("", "is not the path of an image: The path is empty"),
        (["x" * 5000], "Image 0 .*File name too long"),
        (["a\0b"], "Image 0 .*NUL"),
        ("gs://bucket/a.png", "Image 0 .*is not the path of an image: The file .* cannot be in a bucket: use a path on disk"),
        ("https://example.com/a.png", "Image 0 .*is not the path of an image: .*Use a local path"),
        (b"", r"Image 0 \(counted from 0\) is empty"),
        (b"GIF89a", r"Image 0 .*is not an image in one of the formats PNG, JPEG"),
        (np.zeros((2, 2, 2, 2, 2)), r"Image 0 .*is an array of shape \[2, 2, 2, 2\], not pixels"),
        (np.zeros((1, 8)), r"Image 0 .*only 8 x 1 pixels"),
        ((np.zeros(100, np.float32), 16000), "Image 0 .*is a recording, not an image"),
    ],
)
def test_what_is_no_image(classifier: Bert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        classifier.classify(given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{}", r"has no \[MASK\]: say what to mask at the end of its path, as in FILE#xywh=8,8,16,16"),
        ("{}#xywh=1,2", "has no region 'xywh=1,2': write xywh=10,10,20,20"),
        ("{}#xywh=8,8,16,16", "has no patch whose center is in 'xywh=8,8,16,16': it has 8 x 8 pixels"),
        ("{}#t=1,2", "has no region 't=1,2'"),
        (Masked(pixels(0), np.zeros(9, np.bool_)), r"has 16 units, but its mask has the shape \[9\]"),
        (Masked(pixels(0), np.zeros(16, np.bool_)), r"has no \[MASK\]"),
    ],
)
def test_what_cannot_be_filled_in(files: Path, pretrained: Bert, given: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"Image 0 \(counted from 0\) {message}"):
        pretrained.fill_mask(given.format(image(files, 0)) if isinstance(given, str) else given)


def test_the_questions_of_another_kind_of_model(files: Path, pretrained: Bert, classifier: Bert) -> None:
    with pytest.raises(InputError, match="classify requires"):
        pretrained.classify(image(files, 0))
    with pytest.raises(InputError, match="fill_mask requires"):
        classifier.fill_mask(image(files, 0))


# The command line.


def test_the_command_line_classifies_files(
    files: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files / "images" / "dark")
    capsys.readouterr()
    ok("classify", "../../run/finetune", "00.png", "../light/01.png", "--json")
    lines = json_lines(capsys.readouterr().out)
    assert [(line["text"], line["label"]) for line in lines] == [("00.png", "dark"), ("../light/01.png", "light")]
    ok("classify", "../../run/finetune", "00.png")
    assert "dark" in capsys.readouterr().out
    message = failure(capsys, "classify", "../../run/finetune", "00.png", "gone.png")
    assert "The image 'gone.png' does not exist." in message


def test_the_command_line_fills_in(
    files: Path, finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files / "images")
    capsys.readouterr()
    ok("fill-mask", "../run/pretrain", "dark/00.png#xywh=0,0,4,2", "--json")
    (line,) = json_lines(capsys.readouterr().out)
    assert line["text"] == "dark/00.png#xywh=0,0,4,2" and len(line["masks"]) == 2
    ok("fill-mask", "../run/pretrain", "dark/00.png#xywh=0,0,4,2")
    assert capsys.readouterr().out
    message = failure(capsys, "fill-mask", "../run/pretrain", "dark/00.png")
    assert "The image 'dark/00.png' has no [MASK]: say what to mask at the end of its path" in message
    ok("score", "../run/pretrain", "dark/00.png", "--json")
    ok("embed", "../run/pretrain", "dark/00.png", "light/01.png", "--output", files / "vectors.npy")
    ok("next-sentence", "../run/pretrain", "dark/00.png", "dark/02.png", "--json")
    assert np.load(files / "vectors.npy").shape == (2, 16)


@pytest.fixture
def listed(files: Path, tmp_path: Path) -> Path:
    """A list of images in the folder where they are, with some that are not."""
    shutil.copytree(files / "images", tmp_path / "set")
    (tmp_path / "set" / "cut.png").write_bytes(image(files, 0).read_bytes()[:50])
    lines = ["dark/00.png", "gone.png", "light/01.png", "cut.png", "", "../outside.png", "dark/02.png"]
    (tmp_path / "set" / "list.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "set" / "list.txt"


def test_a_list_of_files(finished: Path, listed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line gets a record; those without an answer say why, and are shown and counted."""
    monkeypatch.chdir(listed.parents[1])
    capsys.readouterr()
    ok("classify", finished / "finetune", "set/list.txt", "--output", "out.jsonl")
    told = capsys.readouterr().err
    records = json_lines(Path("out.jsonl").read_text())
    assert [record["line"] for record in records] == [1, 2, 3, 4, 6, 7]
    assert [record.get("label") for record in records] == ["dark", None, "light", None, None, "dark"]
    assert records[0]["text"] == "dark/00.png" and records[1]["error"] == "does not exist."
    assert records[3]["error"].startswith("is not an image that Pillow can read") and "leads out of" in records[4]["error"]
    assert "set/list.txt line 2: does not exist." in told and "line 4: is not an image" in told
    assert "3 answers, 3 invalid lines in out.jsonl" in told and "6/6 images" in told and not TEXT.search(told)


def test_a_table_of_files(finished: Path, listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (listed.parent / "images.csv").write_text("file,about\nlight/03.png,x\ndark/04.png,y\n")
    capsys.readouterr()
    ok("classify", finished / "finetune", listed.parent / "images.csv", "--text", "file", "--json")
    assert [line["label"] for line in json_lines(capsys.readouterr().out)] == ["light", "dark"]


def test_an_interrupted_list_is_resumed(
    finished: Path, listed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bert_jax.cli.predict.CHUNK", 2)
    arguments = ["classify", str(finished / "finetune"), str(listed), "--output", str(listed.parent / "out.jsonl")]
    ok(*arguments)
    whole = (listed.parent / "out.jsonl").read_bytes()
    (listed.parent / "out.jsonl").unlink()
    answer, calls = Bert.ask, []

    def interrupted(*given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answer(*given, **options)

    monkeypatch.setattr(Bert, "ask", interrupted)
    assert main(arguments) == 130
    assert not (listed.parent / "out.jsonl").exists()
    capsys.readouterr()
    ok(*arguments)
    assert "resuming after" in capsys.readouterr().err
    assert (listed.parent / "out.jsonl").read_bytes() == whole


# Files that cannot be read.


@pytest.fixture
def damaged(files: Path, tmp_path: Path) -> Path:
    """The folder with two files that are no images, one of them in a class."""
    shutil.copytree(files / "images", tmp_path / "files" / "images")
    shutil.copy(files / "config.py", tmp_path / "files")
    whole = image(files, 7).read_bytes()
    (tmp_path / "files" / "images" / "light" / "07.png").write_bytes(whole[:60])
    (tmp_path / "files" / "images" / "dark" / "empty.png").write_bytes(b"")
    return tmp_path / "files"


def test_a_damaged_file_stops_the_run(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(damaged, Path("run"), "finetune=none", status=2)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and "images/dark/empty.png is empty. Remove or repair the file" in message
    assert "--config.corpus.unreadable=skip" in message


def test_a_damaged_file_stops_the_preparation(damaged: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the codebook is there already, so that each file is read for the first time."""
    trained(damaged, Path("run"), "finetune=none", f"vocabulary.path={finished / 'vocabulary'}", status=2)
    assert ".png is" in (message := capsys.readouterr().err.strip().splitlines()[-1]) and "corpus.unreadable=skip" in message


def test_damaged_files_are_skipped_on_request(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = ImagesConfig(source=str(damaged / "images"), size=8, patch=2, color=False, valid_fraction=0.2, unreadable="skip")
    config = RunConfig(corpus=images, vocabulary=CodebookConfig(size=16))
    _, prepared = prepare_data(config, damaged / "run", Image())
    told = "".join(capsys.readouterr())
    assert "skipped 2 files that cannot be read" in told
    assert "images/dark/empty.png is empty" in told and "images/light/07.png is not an image" in told
    assert sum(prepared.info[split]["unreadable"] for split in ("train", "valid")) == 2
    assert sum(prepared.info[split]["documents"] for split in ("train", "valid")) == 59
    assert len(prepared.train) + len(prepared.valid) == 59


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_damaged_labelled_file_stops_the_run_before_training(
    damaged: Path, files: Path, finished: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    values = ["pretrain=none", f"finetune.checkpoint={finished / 'pretrain'}"]
    values += [f"finetune.data.{name}={files / 'images'}" for name in ("train", "dev", "test")]
    trained(damaged, Path("run"), *values, f"finetune.data.{split}=images", status=2)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: The image ") and "images/dark/empty.png is empty. Repair it, or remove it from" in message
    assert not read_metrics(damaged / "run" / "finetune")


# Where text and images meet.


def test_checkpoints_of_another_modality(
    files: Path, finished: Path, tiny_pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_files(tmp_path, 10, 20, "steps=2", "dropout=0.1")
    for stage in ("finetune", "pretrain"):
        capsys.readouterr()
        other = "pretrain" if stage == "finetune" else "finetune"
        trained(files, tmp_path / "images", f"{other}=none", f"{stage}.checkpoint={tiny_pretrained}", status=2)
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert "was trained on the modality 'text', but the corpus of this configuration has the modality 'image'" in message
        arguments = ["train", f"--config={config}", f"--workdir={tmp_path / 'words'}", f"--config.{other}=none"]
        assert main([*arguments, f"--config.{stage}.checkpoint={finished / 'pretrain'}"]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ") and "'image'" in message and "set --config.corpus=image" in message
        shutil.rmtree(tmp_path / "images")
        shutil.rmtree(tmp_path / "words")


def test_a_model_of_text_reads_no_bytes(tiny_pretrained: Path, files: Path) -> None:
    bert = load(tiny_pretrained)
    for given in ([b"bytes"], [image(files, 0)], [pixels(0)]):
        with pytest.raises(InputError, match=r"Text 0 \(counted from 0\) is not a string but \w+: pass strings"):
            bert.embed(given)
    for one in (b"bytes", image(files, 0)):
        with pytest.raises(InputError, match=r"This model reads texts, not .*: pass one text, or several"):
            bert.embed(one)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_there_is_no_export(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str) -> None:
    with pytest.raises(InputError, match="reads image units, which other libraries have no equivalent for"):
        export_model(finished / stage, tmp_path / "out")
    with pytest.raises(InputError, match="reads image units, which other libraries have no equivalent for"):
        export_model_to_onnx(finished / stage, tmp_path / "out.onnx")
    assert "reads image units" in failure(capsys, "export", finished / stage, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_package_offers_it(finished: Path, files: Path) -> None:
    """As the guide has it: `bert_jax.load`, and the same answer in a fresh process's terms."""
    description, reader = model_directory.read(finished / "finetune")
    assert description.input.modality == "image" and reader.nouns.input == "image"
    check: Callable[[Any], Any] = bert_jax.load(finished / "finetune").classify
    assert check(image(files, 2)).label == "dark"
