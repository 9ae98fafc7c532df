"""`benchmarks/campaign.py`: its cells, what it measures and what not again, and trainings that go on after any interruption."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import long

from bert_jax.errors import InputError
from bert_jax.model.directory import write_json
from bert_jax.storage.files import only_writer

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
WORDS = "the cat dog house runs sleeps a tree bird sings river green old man".split()


@pytest.fixture(scope="module", autouse=True)
def own() -> Iterator[SimpleNamespace]:
    """The benchmark's modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import campaign  # type: ignore[import-not-found]
        import cells  # type: ignore[import-not-found]
        import label_efficiency  # type: ignore[import-not-found]
        import lines  # type: ignore[import-not-found]
        import scaling  # type: ignore[import-not-found]
        import trainings  # type: ignore[import-not-found]

        yield SimpleNamespace(
            campaign=campaign, cells=cells, lines=lines, trainings=trainings, scaling=scaling, label_efficiency=label_efficiency
        )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Corpora and labeled sets of a few kilobytes."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    for split in ("train", "valid"):
        sentences = [" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) + "." for _ in range(200)]
        text = "\n\n".join("\n".join(sentences[i : i + 5]) for i in range(0, 200, 5))
        (folder / "corpora").mkdir(exist_ok=True)
        (folder / "corpora" / f"en.{split}.txt").write_text(text, encoding="utf-8")
    for name in ("sst2", "rte", "mrpc"):
        (folder / "sets" / name).mkdir(parents=True)
        for split in ("train", "test"):
            rows = [f"{draw.choice(WORDS)} {i}\t{draw.choice(WORDS)}\t{'yes' if i % 2 else 'no'}" for i in range(60)]
            (folder / "sets" / name / f"{split}.tsv").write_text("text\ttext_pair\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return {"corpora": folder / "corpora", "sets": folder / "sets"}


def test_no_line_is_lost(own: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines.jsonl"
    own.lines.Lines(path).add({"cell": "a", "score": 1})
    with path.open("a") as file:
        file.write('{"cell": "b", "results": {"score": 1}')
    lines = own.lines.Lines(path)
    assert lines.found == [{"cell": "a", "score": 1}]
    lines.add({"cell": "b", "score": 2})
    assert own.lines.Lines(path).found == lines.found == [{"cell": "a", "score": 1}, {"cell": "b", "score": 2}]
    assert lines.of({"cell": "b"}) == [{"cell": "b", "score": 2}] and not lines.of({"cell": "b", "score": 1})


def resolvable(own: Any, trainings: Any, cell: Any) -> bool:
    try:
        for training in (*cell.timed, *own.campaign.needed(cell)):
            trainings.digest(training)
    except InputError:
        return False
    return True


def test_cells_are_settings_with_names_of_their_own(own: Any, tmp_path: Path) -> None:
    cells = own.cells.all_cells(10)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names) and all(name.count("/") == 2 for name in names)
    trainings = own.trainings.Trainings(tmp_path, {"corpora": Path("a"), "sets": Path("b")}, own.trainings.Deadline(math.inf))
    known = {cell.name: cell for cell in cells if resolvable(own, trainings, cell)}
    assert {"next_sentence/zh/sop", "covering/en/random 30%", "tokens/zh/wordpiece", "scaling/en/3x192 60 min"} <= known.keys()
    assert all(cell.alone for cell in cells if cell.timed)
    elsewhere = own.trainings.Trainings(tmp_path, {"corpora": Path("c"), "sets": Path("d")}, own.trainings.Deadline(math.inf))
    digests = {name: [trainings.digest(one) for one in cell.trainings.values()] for name, cell in known.items()}
    assert digests["next_sentence/zh/nsp"][:2] == [digests["covering/zh/mixture 30%"][i] for i in (0, 2)], "made once for both"
    assert digests["next_sentence/zh/nsp"][0] != digests["next_sentence/en/nsp"][0]
    sentiment = known["next_sentence/zh/nsp"].trainings["chnsenticorp"]
    assert elsewhere.digest(sentiment) == digests["next_sentence/zh/nsp"][1], "wherever the data is"
    assert not resolvable(own, trainings, own.cells.Cell("x", {"x": own.trainings.Training("x", "no_such_configuration")}))


def test_steps_take_the_time_of_the_cell_and_nothing_is_measured_twice(
    own: Any, tmp_path: Path, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command with trainings that take no time."""
    ran: list[tuple[str, int]] = []
    failing = ["rte"]

    def run(self: Any, training: Any, steps: int = 0) -> Any:
        ran.append((training.label, steps))
        if training.label in failing:
            failing.remove(training.label)
            raise own.trainings.Failed("out of luck")
        pretrained = {"mlm_bits_per_character": 1.5, "real_tokens": 5_000_000, "steps": steps, "nouns": {"input": "text"}}
        tuned = {"accuracy": 0.8, "test_examples": 1600, "labels": ["no", "yes"], "repeats": {"names": ["0", "1"]}}
        summary = {"pretrain": pretrained} if steps else {"finetune": tuned}
        self.workdir(training).mkdir(parents=True)
        write_json(self.workdir(training) / "summary.json", summary)
        return summary

    def time_steps(self: Any, given: Any) -> Any:
        ran.extend(("timed", len(self.digest(one))) for one in given)
        return {one: {"seconds_per_step": 0.2, "tokens_per_second": 10_000.0} for one in given}

    monkeypatch.setattr(own.campaign.signal, "signal", lambda *_: None)
    monkeypatch.setattr(own.trainings.Trainings, "run", run)
    monkeypatch.setattr(own.trainings.Trainings, "time_steps", time_steps)
    flags = [f"--{name}={path}" for name, path in places.items()]
    flags += [f"--workdir={tmp_path / 'work'}", f"--output={tmp_path / 'results'}", "--minutes=7", "--only=next_sentence/en/[ns]*p"]
    monkeypatch.setattr(sys, "argv", ["campaign.py", *flags])
    assert own.campaign.main() == 1
    assert "0 of 2 cells are done" in (shown := capsys.readouterr().out) and "nsp failed: out of luck" in shown
    pretraining = ("pre-training", 2100)
    assert ran == [*[("timed", 10)] * 3, pretraining, ("sst2", 0), ("rte", 0), pretraining, ("sst2", 0), ("rte", 0), ("mrpc", 0)]
    assert "next_sentence/en/nsp      " in shown and "1 of 2 cells are done" in shown
    ran.clear()
    assert own.campaign.main() == 0 and ran == [("rte", 0), ("mrpc", 0)], "it goes on where it failed"
    assert "rte accuracy 80.0 ± 1.0%" in capsys.readouterr().out
    ran.clear()
    assert own.campaign.main() == 0 and not ran
    lines = own.lines.Lines(tmp_path / "results.jsonl").found
    assert [line["cell"].rpartition("/")[2] for line in lines] == ["speed", "sop", "nsp"]
    result = lines[1]["results"]["pretrain"]["pretrain"]
    assert result["minutes"] == 7 and result["rate"]["seconds_per_step"] == 0.2 and result["mlm_bits_per_character"] == 1.5
    assert lines[1]["results"]["sst2"]["finetune"]["repeats"] and "labels" not in lines[1]["results"]["sst2"]["finetune"]
    monkeypatch.setattr(sys, "argv", ["campaign.py", *flags[:-1], "--list", "--only=*/en/*"])
    capsys.readouterr()
    assert own.campaign.main() == 0 and not ran
    shown = capsys.readouterr().out
    assert "* next_sentence/en/speed" in shown and "  next_sentence/en/none" in shown
    assert f"waits: there is no {places['corpora']}/large/en_wikipedia.txt.xz" in shown


def test_the_rate_is_that_of_the_usual_interval(own: Any) -> None:
    lines = [
        {"step": step, "real_tokens": 100 * step, "real_tokens_per_second": rate, "model_flops_per_second": 2e9, "mfu": 0.5}
        for step, rate in ((5, 1.0), (10, 500.0), (15, 250.0), (20, 500.0))
    ]
    assert own.trainings.windows(lines) == {"seconds_per_step": 0.2, "tokens_per_second": 500.0, "peak_flops": 4e9}


@long
def test_a_training_goes_on_after_its_time_was_up_and_after_its_command_was_killed(
    own: Any, tmp_path: Path, places: dict[str, Path]
) -> None:
    options = ("corpus.source={corpora}/en.train.txt", "corpus.valid_source={corpora}/en.valid.txt", "pretrain.loop.save_every=100000")
    training = own.trainings.Training("pre-training", "pretrain_folder", (*options, "pretrain.loop.log_every=20"))

    class WhenLogged:
        """Time that is up as soon as the training has begun."""

        @property
        def left(self) -> float:
            until(lambda: trainings.progress(training) > 0)
            return 0.01

    trainings = own.trainings.Trainings(tmp_path, places, WhenLogged(), tiny=True)
    with pytest.raises(own.trainings.OutOfTime):
        trainings.run(training, 1500)
    first = saved(trainings.workdir(training))
    assert trainings.steps(training) == 1500 and 0 < trainings.progress(training) <= first / 1500 < 1

    command = trainings._command(training, trainings.workdir(training), ["pretrain.steps=1500"])
    parent = "import json, sys, pathlib; sys.path.insert(0, sys.argv[1]); import trainings\n"
    parent += "with trainings.child(json.loads(sys.argv[2]), pathlib.Path(sys.argv[3])) as process: process.wait()"
    metrics = trainings.workdir(training) / "pretrain" / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns
    process = subprocess.Popen([sys.executable, "-c", parent, str(BENCHMARKS), json.dumps(command), str(tmp_path / "killed.log")])
    until(lambda: metrics.stat().st_mtime_ns != before and trainings.progress(training) * 1500 > first + 20)
    process.kill()
    process.wait()
    until(lambda: is_free(trainings.workdir(training)))
    assert first < saved(trainings.workdir(training)) < 1500

    trainings.deadline = own.trainings.Deadline(math.inf)
    assert trainings.run(training, 1500)["pretrain"]["steps"] == 1500
    assert trainings.spent(training)["starts"] == 2
    with pytest.raises(own.trainings.Failed, match="belongs to another configuration"):
        trainings.run(training, 2000)


def until(reached: Any) -> None:
    """Wait for a condition, for some minutes at most."""
    end = time.monotonic() + 600
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def saved(workdir: Path) -> int:
    """The step of the newest checkpoint."""
    return max(int(path.name) for path in (workdir / "pretrain" / "checkpoints").iterdir() if path.name.isdigit())


def is_free(workdir: Path) -> bool:
    try:
        with only_writer(workdir):
            return True
    except InputError:
        return False


def scaled(size: str, minutes: float, tokens: int, bits: float) -> dict[str, Any]:
    result = {"minutes": minutes, "real_tokens": tokens, "mlm_bits_per_character": bits, "mlm_loss": bits * math.log(2) * 4}
    rate = {"seconds_per_step": 0.1, "tokens_per_second": tokens / minutes / 60, "peak_flops": 1e11}
    return {"cell": f"scaling/en/{size} {minutes:g} min", "results": {"pretrain": {"pretrain": result | {"rate": rate}}}}


def test_sizes_are_drawn_and_advised_from(own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path = tmp_path / "campaign.jsonl"
    lines = own.lines.Lines(path)
    lines.add({"cell": "scaling/en/speed", "rates": {}})
    for line in (scaled("tiny", 5, 6_000_000, 2.0), scaled("tiny", 20, 24_000_000, 1.7), scaled("mini", 5, 2_000_000, 2.2)):
        lines.add(line)
    monkeypatch.setattr(sys, "argv", ["scaling.py", f"--campaign={path}", f"--output={tmp_path / 's'}", f"--advice={tmp_path / 'a.json'}"])
    own.scaling.main()
    assert json.loads((tmp_path / "a.json").read_text()) == {}, "a single point of a size is no curve"
    lines.add(scaled("mini", 20, 8_000_000, 1.6))
    own.scaling.main()
    assert "| mini | 2.200 (2.0M) | 1.600 (8.0M) |" in capsys.readouterr().out
    assert "English" in (tmp_path / "s_en.svg").read_text()
    stored = json.loads((tmp_path / "a.json").read_text())["latin"]
    assert stored["peak_flops"] == 1e11 and stored["tokens_per_character"] == pytest.approx(0.25)
    assert stored["sizes"]["mini"]["points"] == [[2_000_000, 2.2], [8_000_000, 1.6]]
    assert stored["sizes"]["tiny"]["tokens_per_second"] == 20_000


def test_labels_are_averaged_over_seeds(own: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    path = tmp_path / "campaign.jsonl"
    lines = own.lines.Lines(path)
    for size, accuracy in ((300, 0.8), (100, 0.6), (100, 0.7)):
        results = {
            f"seed {seed}": {
                "finetune": {
                    "train_examples": size, "accuracy": accuracy + seed / 100, "from_scratch_accuracy": 0.5, "linear_accuracy": 0.65,
                    "accuracy_error": 0.01,
                }
            }
            for seed in range(3)
        }  # fmt: skip
        lines.add({"cell": f"labels/demo/{size}", "results": results})
    monkeypatch.setattr(sys, "argv", ["label_efficiency.py", f"--campaign={path}", f"--output={tmp_path / 'labels'}"])
    own.label_efficiency.main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:4] == ["| 100 | 71.0% | 50.0% | 65.0% |", "| 300 | 81.0% | 50.0% | 65.0% |"]
    assert "linear model" in (tmp_path / "labels.svg").read_text()


@long
def test_the_command_is_killed_and_ends(own: Any, tmp_path: Path, places: dict[str, Path]) -> None:
    """All of a family at tiny size, killed at five moments."""
    command = [sys.executable, str(BENCHMARKS / "campaign.py"), *(f"--{name}={path}" for name, path in places.items())]
    command += [f"--workdir={tmp_path / 'work'}", f"--output={tmp_path / 'results'}", "--only=next_sentence/en/*"]
    command += ["--tiny", "--minutes=0.05"]
    for seconds in (8, 13, 21, 34, 55):
        process = subprocess.Popen(command)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(15)  # its training saves a checkpoint
    subprocess.run([*command, "--until=600"], check=True)
    names = [line["cell"] for line in own.lines.Lines(tmp_path / "results.jsonl").found]
    assert sorted(names) == [f"next_sentence/en/{name}" for name in ("none", "nsp", "sop", "speed")]
