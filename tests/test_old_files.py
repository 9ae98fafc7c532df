"""Files of version 0.1.0 as it was before its modules were rearranged: a later version loads, resumes, verifies and exports them."""

import contextlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import bert_jax
from bert_jax.cli import main
from bert_jax.config.renamed import RenamedWarning

ARCHIVE = Path(__file__).with_name("reference") / "files.tar.xz"  # by make_files.py beside it
# Another processor rounds otherwise.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files, in the working directory, as when they were made."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture(scope="module")
def answers(old: Path) -> Any:
    return json.loads((old / "answers.json").read_text(encoding="utf-8"))


def test_models_load_and_answer_as_they_did(old: Path, answers: Any) -> None:
    pretrained, classifier = bert_jax.load("finished/pretrain"), bert_jax.load("finished/finetune")
    texts = answers["texts"]
    found = pretrained.fill_mask("房间很[MASK]。", top_k=3)
    assert [[(p.token, p.id) for p in mask] for mask in found] == [[(token, i) for token, i, _ in mask] for mask in answers["fill_mask"]]
    np.testing.assert_allclose([p.probability for p in found[0]], [p for _, _, p in answers["fill_mask"][0]], **CLOSE)
    np.testing.assert_allclose(pretrained.next_sentence("他打开门。", "屋里没有人。"), answers["next_sentence"], **CLOSE)
    np.testing.assert_allclose(pretrained.score(texts), answers["score"], **CLOSE)
    np.testing.assert_allclose(pretrained.embed(texts), answers["embed"], **CLOSE)
    for one, wanted in zip(classifier.classify(texts), answers["classify"], strict=True):
        assert one.label == wanted["label"] and one.probabilities.keys() == wanted["probabilities"].keys()
        np.testing.assert_allclose([*one.probabilities.values()], [*wanted["probabilities"].values()], **CLOSE)


@pytest.mark.parametrize("name", ["finished", "interrupted", "of_cls/finetune"])
def test_they_are_verified(old: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", name]) == 0
    assert "is intact" in capsys.readouterr().out


def test_a_finished_run_is_done(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (old / "finished" / "SHA256SUMS").read_bytes()
    with pytest.warns(RenamedWarning):
        assert main(["train", "--config=config.py", "--workdir=finished"]) == 0
    assert "is done" in capsys.readouterr().out
    assert (old / "finished" / "SHA256SUMS").read_bytes() == before


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_end(old: Path) -> None:
    records = sorted((old / "interrupted" / "data").rglob("*array_record*"))
    with pytest.warns(RenamedWarning):
        assert main(["train", "--config=config.py", "--workdir=interrupted"]) == 0
    assert sorted((old / "interrupted" / "data").rglob("*array_record*")) == records, "prepared once"
    lines = [
        [json.loads(line) for line in (old / run / "pretrain" / "metrics.jsonl").read_text().splitlines()]
        for run in ("interrupted", "finished")
    ]
    for one, other in zip(*lines, strict=True):
        assert (one["step"], one["split"]) == (other["step"], other["split"])
        # Dropout draws other numbers than in that version.
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-2)
    for stage in ("finetune", "finetune_from_scratch"):
        found, wanted = (
            [json.loads(line) for line in (old / run / stage / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
            for run in ("interrupted", "finished")
        )
        assert [line.keys() for line in found] == [line.keys() for line in wanted]
        assert [(line["text"], line["label"]) for line in found] == [(line["text"], line["label"]) for line in wanted]


@pytest.mark.parametrize(("model", "exported"), [("finished/pretrain", "exported-pretrain"), ("of_cls/finetune", "exported-classifier")])
def test_they_are_exported_as_they_were(old: Path, tmp_path: Path, model: str, exported: str) -> None:
    assert main(["export", model, str(tmp_path / "out")]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in (old / exported).iterdir()}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (old / exported / name).read_bytes(), name
    found, wanted = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", old / exported))
    assert found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)
