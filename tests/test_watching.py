"""A run that is watched while it trains: metrics that grow, a run that is resumed, and models that appear."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import serving

from bert_jax.runtime.metrics import FILE, MetricsWriter, read_new_metrics
from bert_jax.serving.failures import Failure
from bert_jax.serving.following import Following
from bert_jax.serving.served import Models
from bert_jax.serving.watching import Run

SECONDS = 20_000  # milliseconds


def line(step: int, split: str = "train", **values: float | None) -> str:
    return json.dumps({"step": step, "split": split, **values}) + "\n"


@pytest.fixture
def workdir(tmp_path: Path, tiny_pretrained: Path) -> Iterator[Path]:
    """A run that has just begun, whose lock is held as training holds it."""
    (tmp_path / "demo" / "pretrain").mkdir(parents=True)
    (tmp_path / "demo" / "config.json").write_text('{"pretrain": {"steps": 400}}')
    shutil.copy(tiny_pretrained / "model.json", tmp_path / "demo" / "pretrain")
    with (tmp_path / "demo" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path / "demo"


def test_new_lines_are_read_once_and_whole(tmp_path: Path) -> None:
    assert read_new_metrics(tmp_path) == ([], "", False, False)
    file = tmp_path / FILE
    file.write_text(line(1) + line(2)[:12])
    first = read_new_metrics(tmp_path)
    assert [one["step"] for one in first.lines] == [1] and not first.anew
    with file.open("a") as growing:
        growing.write(line(2)[12:] + "not JSON\n" + line(3))
    second = read_new_metrics(tmp_path, first.place)
    assert [one["step"] for one in second.lines] == [2, 3] and not second.anew
    assert read_new_metrics(tmp_path, second.place) == ([], second.place, False, False)
    # In parts, and past what has no end.
    steps, place, more = list[int](), "", True
    while more:
        lines, place, _, more = read_new_metrics(tmp_path, place, most=50)
        steps += [one["step"] for one in lines]
    assert steps == [1, 2, 3]
    file.write_text("x" * 120)
    assert read_new_metrics(tmp_path, most=50).more


def test_a_resumed_run_is_read_anew_even_if_its_file_is_as_long(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.write(step, "train", {"loss": step / 7})
    place = read_new_metrics(tmp_path).place
    with MetricsWriter(tmp_path, resume_step=10) as writer:
        writer.write(20, "train", {"loss": 20 / 7})
        writer.write(30, "train", {"loss": 31 / 7})
    found = read_new_metrics(tmp_path, place)
    assert found.anew and [one["step"] for one in found.lines] == [10, 20, 30]
    # A shorter one, one that is gone, and a place that nobody gave out.
    (tmp_path / FILE).write_text(line(1))
    assert read_new_metrics(tmp_path, found.place).anew and len(read_new_metrics(tmp_path, "9" * 40 + "-x").lines) == 1
    (tmp_path / FILE).unlink()
    assert read_new_metrics(tmp_path, found.place).anew


def test_a_request_names_a_stage_and_no_path(workdir: Path) -> None:
    run = Run(workdir)
    (workdir / "pretrain" / FILE).write_text(line(1, loss=2.5, mlm_loss=2.0, gradient_norm=3.0))
    (workdir.parent / "other").mkdir()
    (workdir.parent / "other" / FILE).write_text(line(1))
    with (workdir / "pretrain" / FILE).open("a") as foreign:
        foreign.write('{"step": 2, "split": "train", "loss": Infinity, "mlm_loss": NaN}\n')
    # Only what is shown is sent.
    assert run.metrics("pretrain", "")["lines"] == [
        {"step": 1, "split": "train", "loss": 2.5, "mlm_loss": 2.0}, {"step": 2, "split": "train", "loss": None, "mlm_loss": None}
    ]  # fmt: skip
    for name in ("../other", str(workdir / "pretrain"), "pretrain/../../other", "", ".", "data"):
        with pytest.raises(Failure, match="no stage"):
            run.metrics(name, "")
    assert str(workdir.parent) not in json.dumps(run.describe())


def test_its_state_is_that_of_the_lock_and_of_the_files(workdir: Path) -> None:
    run, stage = Run(workdir), workdir / "pretrain"
    assert run.exists and run.describe()["state"] == "running" and run.describe()["stages"] == []
    for name in ("finetune_fold_10", "finetune", "finetune_fold_9", "pretrain"):
        (workdir / name).mkdir(exist_ok=True)
        (workdir / name / FILE).write_text(line(1, loss=1.0))
    found = run.describe()["stages"]
    assert [one["name"] for one in found] == ["pretrain", "finetune", "finetune_fold_9", "finetune_fold_10"]
    assert found[0]["state"] == "running" and found[0]["steps"] == 400
    assert [one["metric"] for one in found[0]["curves"]] == ["loss", "mlm_loss", "mlm_accuracy", "nsp_accuracy", "real_tokens_per_second"]
    with (workdir / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_UN)
    (workdir / "lock").unlink()
    (workdir / "lock").touch()
    assert run.describe()["state"] == run.describe()["stages"][0]["state"] == "stopped"
    (stage / "skipped.json").write_text("{}")
    assert run.describe()["stages"][0]["state"] == "failed"
    (stage / "SHA256SUMS").touch()
    (workdir / "SHA256SUMS").touch()
    assert run.describe()["state"] == run.describe()["stages"][0]["state"] == "finished"
    (workdir / "config.json").write_text("{")  # while it is written
    assert run.describe()["stages"][0]["steps"] is None


class Stub:
    """A served model."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path, self.queue, self.closed = name, path, self, False

    def close(self) -> None:
        self.closed = True


def test_models_are_replaced_when_they_have_changed(workdir: Path) -> None:
    made: list[Models] = []
    named = {"demo-pretrain": str(workdir / "pretrain")}
    broken = False

    def load(name: str, path: str) -> Any:
        if broken:
            raise OSError("gone")
        return Stub(name, path)

    run = Run(workdir)
    following = Following(lambda: named, load, lambda models: made.append(models) or (lambda *_: None), run)  # type: ignore[arg-type, func-returns-value]
    following.look()
    following.look()
    assert run.models == 1 and len(made) == 2  # none, then one
    first: Any = made[-1].by_name["demo-pretrain"]
    broken = True
    (workdir / "pretrain" / "tokenizer.json").write_text("{}")
    following.look()  # while it trains, a checkpoint may be gone before it is read
    assert run.models == 1 and not first.closed
    broken = False
    (workdir / "pretrain" / "tokenizer.json").write_text("[]")
    following.look()
    assert run.models == 2 and made[-1].by_name["demo-pretrain"] is not first and not first.closed  # it may have requests
    following.look()
    assert first.closed
    broken = True
    (workdir / "SHA256SUMS").touch()
    (workdir / "pretrain" / "tokenizer.json").write_text("{}")
    with pytest.raises(OSError, match="gone"):
        following.look()


def test_a_person_sees_how_it_goes(browser: Any, workdir: Path, tiny_pretrained: Path) -> None:
    stage = workdir / "pretrain"
    metrics = stage / FILE
    with serving(str(workdir), command="explore") as (_, port), browser.new_context(reduced_motion="reduce", locale="en-US") as context:
        context.set_default_timeout(SECONDS)
        page, faults, asked = context.new_page(), [], []
        page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_text("demo: running").wait_for()
        assert page.locator("main > section").count() == 1
        last = line(200, loss=6.0, mlm_accuracy=0.25)
        metrics.write_text(line(100, loss=8.0, mlm_accuracy=0.1) + line(100, "valid", loss=7.5) + last[:-4])
        page.get_by_text("running, step 100 of 400").wait_for()
        with metrics.open("a") as growing:
            growing.write(last[-4:])
        page.get_by_text("running, step 200 of 400").wait_for()
        assert page.locator("#run svg").evaluate_all("found => found.map((one) => one.getAttribute('aria-label').split('. ')[0])") == [
            "Loss; last: training 6, held out 7.5", "Masked-token accuracy; last: training 25%"
        ]  # fmt: skip
        page.get_by_text("The numbers as a table").click()
        rows = page.locator("#run tbody tr").evaluate_all("found => found.map((row) => [...row.cells].map((cell) => cell.textContent))")
        assert rows == [["100", "8", "7.5", "10%"], ["200", "6", "", "25%"]]
        # Resumed at an earlier step.
        metrics.write_text(line(100, loss=8.0))
        page.get_by_text("running, step 100 of 400").wait_for()
        assert page.locator("#run tbody tr").count() == 1 and page.locator("#run details").get_attribute("open") is not None
        # The model appears with its first checkpoint.
        for path in tiny_pretrained.iterdir():
            if path.is_dir():
                shutil.copytree(path, stage / path.name)
            elif path.name != "model.json":
                shutil.copy(path, stage)
        page.locator("#fill .tokens button").first.wait_for()
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        page.get_by_role("button", name="中文").click()
        assert page.locator("#run figcaption b").all_text_contents() == ["损失"]
        filled = {"text": "很[MASK]", "masks": [[{"token": "好", "probability": 0.5}]]}
        (workdir / "examples.json").write_text(json.dumps({"fill_mask": [filled]}))
        (workdir / "SHA256SUMS").touch()
        page.get_by_text("demo：已完成").wait_for()
        page.get_by_text("Filled-in blanks").click()
        assert page.locator("#run article").text_content() == "很[MASK]好50%"
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not faults and {one for one in asked if not one.startswith((f"http://127.0.0.1:{port}/", "data:"))} == set()
