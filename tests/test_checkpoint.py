"""What is committed is verified before it is used; what is damaged is named, set aside or refused, and never trusted."""

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from command_line import failure, ok

import bert_jax
from bert_jax.cli import main
from bert_jax.errors import InputError, TrainingError
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.storage.files import seal
from bert_jax.training.checkpoints import manifest
from bert_jax.training.checkpoints.loading import UnverifiedCheckpointWarning, chosen
from bert_jax.training.checkpoints.saving import Checkpoints
from bert_jax.training.checkpoints.verification import faults
from bert_jax.training.state import TrainState


def state(step: int) -> TrainState:
    params = {"dense": {"kernel": jnp.full((8, 4), step, jnp.float32), "bias": jnp.zeros(4)}}
    return TrainState(jnp.int32(step), params, {"mu": jnp.full(3, -step, jnp.float32)})


def position(step: int) -> dict[str, Any]:
    return {"data": "some text", "rows": step}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the steps 1 to 3."""
    directory = tmp_path_factory.mktemp("written") / "checkpoints"
    checkpoints = Checkpoints(directory, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), position(step), score=-step)
    checkpoints.close()
    return directory


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "checkpoints"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def largest(directory: Path) -> Path:
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
}


def resumed(directory: Path) -> tuple[int, TrainState, dict[str, Any]]:
    checkpoints = Checkpoints(directory, keep=3)
    try:
        assert checkpoints.latest is not None
        return checkpoints.latest, *checkpoints.restore(state(0))
    finally:
        checkpoints.close()


def test_a_manifest_says_what_the_checkpoint_consists_of(written: Path) -> None:
    saved = manifest.read(written / "3")
    assert saved is not None
    names = {path.relative_to(written / "3").as_posix() for path in (written / "3").rglob("*") if path.is_file()}
    assert names - saved.files.keys() == {"manifest.json", "_CHECKPOINT_METADATA", "commit_success.txt"}
    assert saved.arrays == {
        "params/dense/kernel": ((8, 4), "float32"),
        "params/dense/bias": ((4,), "float32"),
        "optimizer/step": ((), "int32"),
        "optimizer/state/mu": ((3,), "float32"),
    }
    assert (saved.data, saved.score) == ("some text", -3)
    versions = json.loads((written / "3" / "manifest.json").read_text())["content"]["versions"]
    assert versions["jax"] == jax.__version__ and "orbax-checkpoint" in versions


def test_what_a_killed_run_did_not_come_to_remove_is_removed_at_the_next_start(copy: Path) -> None:
    Checkpoints(copy, keep=1).close()
    assert {path.name for path in copy.iterdir()} == {"1", "3"}, "the best and the newest"


def test_every_file_of_a_checkpoint_is_watched(copy: Path) -> None:
    files = [path for path in sorted((copy / "2").rglob("*")) if path.is_file()]
    for path in files:
        before = path.read_bytes()
        for damage in DAMAGES.values():
            damage(path)
            found = faults(copy / "2")
            # Orbax adds these two when all else is written; nothing is restored from them.
            assert bool(found) == (path.parent.name != "2" or path.name == "manifest.json"), path
            assert all(str(path) in line for line in found)
            path.write_bytes(before)
    assert not faults(copy / "2")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("item", ["params", "optimizer", "position"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(
    copy: Path, item: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = largest(copy / "3" / item)
    DAMAGES[damage](file)
    step, found, where = resumed(copy)
    assert (step, int(found.step), where) == (2, 2, position(2))
    assert found.params["dense"]["kernel"][0, 0] == 2
    warning = capsys.readouterr().err
    assert str(file) in warning and "3.damaged" in warning
    assert (copy / "3.damaged").is_dir() and not (copy / "3").exists()
    # The step comes again, and its checkpoint with it.
    checkpoints = Checkpoints(copy, keep=3)
    checkpoints.save(3, state(3), position(3))
    checkpoints.close()
    assert resumed(copy)[0] == 3


def test_what_is_no_longer_kept_leaves_at_once_and_wholly(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(copy, keep=1)
    checkpoints.save(4, state(4), position(4))
    checkpoints.close()
    assert {path.name for path in copy.iterdir()} == {"1", "4"}, "the best and the newest"
    # A blow in the midst of removing one.
    (copy / "removed").mkdir()
    shutil.copytree(copy / "1", copy / "removed" / "2")
    largest(copy / "removed" / "2").unlink()
    assert resumed(copy)[0] == 4
    assert {path.name for path in copy.iterdir()} == {"1", "4"} and not capsys.readouterr().err


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
def test_what_orbax_writes_last_is_not_needed(copy: Path, name: str) -> None:
    for damage in DAMAGES.values():
        if (copy / "3" / name).exists():
            damage(copy / "3" / name)
        step, found, where = resumed(copy)
        assert (step, int(found.step), where) == (3, 3, position(3))


def test_a_manifest_that_was_edited_is_not_believed(copy: Path) -> None:
    path = copy / "3" / "manifest.json"
    path.write_text(path.read_text().replace('"score": -3', '"score": -1'))
    with pytest.raises(InputError, match=r"3/manifest\.json has changed since it was written"):
        chosen(copy, best=True)


def test_with_no_whole_checkpoint_nothing_is_begun_anew(copy: Path) -> None:
    for step in (1, 2, 3):
        flip(largest(copy / str(step) / "params"))
    with pytest.raises(InputError, match=r"No checkpoint in .* is intact: .*/1/params/.*remove"):
        Checkpoints(copy, keep=3)
    assert {path.name for path in copy.iterdir()} == {"1", "2", "3"}, "nothing was thrown away"


def test_the_last_good_checkpoint_outlives_a_save_that_fails(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (2, 3):
        flip(largest(copy / str(step) / "params"))
    checkpoints = Checkpoints(copy, keep=1)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", fail)
    checkpoints.save(4, state(4), position(4))
    with pytest.raises(TrainingError, match=r"step 4 .* could not be written \(No space left"):
        checkpoints.close()
    monkeypatch.undo()
    assert resumed(copy)[0] == 1


def test_a_score_that_is_no_number_neither_hides_nor_replaces_the_best(tmp_path: Path) -> None:
    for order in itertools.permutations((1.0, math.nan, 0.5)):
        directory = tmp_path / "_".join(map(str, order)) / "checkpoints"
        checkpoints = Checkpoints(directory, keep=1)
        for step, score in enumerate(order, 1):
            checkpoints.save(step, state(step), position(step), score)
        checkpoints.close()
        best = order.index(1.0) + 1
        assert {int(path.name) for path in directory.iterdir() if path.name.isdigit()} == {best, 3}
        assert chosen(directory, best=True)[0].name == str(best)


def test_a_score_that_cannot_be_written_is_reported(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a run that evaluates first, because it was stopped during an evaluation, and has saved nothing yet."""
    checkpoints = Checkpoints(copy, keep=3)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "set_score", fail)
    with pytest.raises(TrainingError, match=r"step 3 .* could not be written \(No space left"):
        checkpoints.set_score(3, 1.0)
    checkpoints.close()


def test_checkpoints_of_an_older_version_are_taken_with_a_warning(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (1, 2, 3):
        (copy / str(step) / "manifest.json").unlink()
        (copy / str(step) / "metrics").mkdir()
        (copy / str(step) / "metrics" / "metrics").write_text(json.dumps({"score": -step}))
    with pytest.warns(UnverifiedCheckpointWarning, match="older version"):
        path, saved = chosen(copy, best=True)
    assert path.name == "1" and saved.arrays["params/dense/kernel"] == ((8, 4), "float32")
    assert resumed(copy)[0] == 3
    assert "an older version wrote them" in capsys.readouterr().err
    assert not any(faults(copy / str(step)) for step in (1, 2, 3)), "from now on they are watched"
    assert chosen(copy, best=True)[0].name == "1"


def test_a_model_is_not_loaded_from_damaged_parameters(tiny_classifier: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_classifier, tmp_path / "model"))
    file = largest(directory / "checkpoints" / "1" / "params")  # the best
    flip(file)
    with pytest.raises(InputError, match="has changed since it was written") as raised:
        bert_jax.load(directory)
    assert str(file) in str(raised.value)
    shutil.rmtree(directory / "checkpoints" / "1")
    assert bert_jax.load(directory).labels == ("negative", "neutral", "positive")


def test_a_vocabulary_that_was_changed_is_refused(tiny_pretrained: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_pretrained, tmp_path / "model"))
    file = directory / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    one, other = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    file.write_text(json.dumps(content))
    (directory / "vocab.txt").write_bytes(Tokenizer.load(directory).token_lines())
    with pytest.raises(InputError, match=r"The vocabulary in .* is not the one that the checkpoint .* was trained with"):
        bert_jax.load(directory)


def test_a_list_of_tokens_that_was_changed_is_refused(tiny_pretrained: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_pretrained, tmp_path / "model"))
    lines = (directory / "vocab.txt").read_text().splitlines()
    lines[-1], lines[-2] = lines[-2], lines[-1]
    (directory / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"vocab\.txt and .*tokenizer\.json do not contain the same vocabulary"):
        bert_jax.load(directory)


def test_a_description_that_was_changed_is_refused(tiny_classifier: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_classifier, tmp_path / "model"))
    description, _ = model_directory.read(directory)
    changed = dataclasses.replace(description, labels=tuple(reversed(description.labels)))
    model_directory.write_json(directory / "model.json", model_directory.to_dict(changed))
    with pytest.raises(InputError, match=r"model\.json does not describe .*labels"):
        bert_jax.load(directory)


def test_parameters_come_back_bit_by_bit(written: Path) -> None:
    step, found, _ = resumed(written)
    for path, array in tiny.flat(found.params).items():
        assert np.array_equal(array, tiny.flat(state(step).params)[path])


# The command that looks at everything.


@pytest.fixture
def workdir(tiny_classifier: Path, tmp_path: Path) -> Path:
    """The models of a run, with a sealed folder of other files."""
    directory = Path(shutil.copytree(tiny_classifier.parent, tmp_path / "run"))
    (directory / "summary.json").write_text("{}")
    seal(directory)
    return directory


def test_a_whole_workdir_is_said_to_be_so(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ok("verify", workdir)
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith(f"{workdir} is intact: ")
    ok("verify", workdir / "finetune")


def test_verify_says_what_is_wrong_where(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = [
        largest(workdir / "finetune" / "checkpoints" / "2" / "optimizer"),
        largest(workdir / "pretrain" / "checkpoints" / "1" / "params"),
        workdir / "summary.json",
    ]
    for path in damaged:
        flip(path)
    (workdir / "finetune" / "vocab.txt").write_text("[PAD]\n")
    assert main(["verify", str(workdir)]) == 2
    told = capsys.readouterr()
    assert all(str(path) in told.out for path in [*damaged, workdir / "finetune" / "vocab.txt"])
    assert f"error: {workdir} is damaged: 5 faults" in told.err.splitlines()[-1]


def test_where_there_is_nothing_to_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run or model" in failure(capsys, "verify", tmp_path)
