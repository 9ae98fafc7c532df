"""Four fake devices and two processes compute what one does, and share what they should."""

import json
import shutil
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
import tiny

from bert_jax.runtime.metrics import TIMINGS, read_metrics
from bert_jax.storage.files import only_writer

pytestmark = pytest.mark.slow

MESHES = ["4,1,1", "2,2,1", "1,2,2", "2,2,2", "2,2,1 twice", "2,2,2 twice"]


@pytest.fixture(scope="module")
def devices() -> dict[str, Any]:
    return json.loads(children.finish([children.start("devices.py", devices=8)])[0])


@pytest.mark.parametrize("mesh", MESHES)
def test_ten_steps_on_a_mesh_equal_those_of_one_device(devices: dict[str, Any], mesh: str) -> None:
    found, wanted = (np.array(devices["runs"][name]["losses"]) for name in (mesh, "one"))
    assert wanted.shape == (10, 4)
    assert wanted[-1, :2].sum() < wanted[0, :2].sum() - 0.1, "it learns, so every update counts"
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
    assert devices["runs"][mesh]["programs"] == 1
    averages = (devices["runs"][name]["average of a kernel"] for name in (mesh, "one"))
    np.testing.assert_allclose(next(averages), next(averages), atol=1e-4)


@pytest.mark.parametrize("mesh", MESHES)
def test_an_example_that_is_not_finite_on_one_device_skips_the_update_on_all(devices: dict[str, Any], mesh: str) -> None:
    assert devices["runs"][mesh]["skipped"] == 1 and devices["runs"][mesh]["unchanged by a skip"]


def test_rows_are_cut_over_data_and_fsdp(devices: dict[str, Any]) -> None:
    wanted = {"one": 8, "4,1,1": 2, "2,2,1": 2, "1,2,2": 4, "2,2,2": 2, "2,2,1 twice": 2, "2,2,2 twice": 2}
    assert {name: run["rows"] for name, run in devices["runs"].items()} == wanted


def test_parameters_and_moments_are_born_and_kept_as_the_table_says(devices: dict[str, Any]) -> None:
    layers = "encoder/layers"
    wanted = {
        "embeddings/tokens": [50, 16], "embeddings/positions": [40, 16], "embeddings/segments": [2, 32], "embeddings/norm/scale": [32],
        f"{layers}/query/kernel": [1, 16, 16], f"{layers}/query/bias": [1, 16], f"{layers}/attention_output/kernel": [1, 16, 16],
        f"{layers}/attention_output/bias": [1, 32], f"{layers}/feed_forward/kernel": [1, 16, 32], f"{layers}/feed_forward/bias": [1, 32],
        f"{layers}/feed_forward_output/kernel": [1, 32, 16], f"{layers}/feed_forward_norm/scale": [1, 32],
        "pooler/dense/kernel": [16, 16], "masked_token/dense/kernel": [16, 16], "masked_token/bias": [50],
        "next_sentence/dense/kernel": [32, 2],
    }  # fmt: skip
    run = devices["runs"]["1,2,2"]
    assert wanted.items() <= run["born"].items()
    assert run["born"] == run["shards"] == run["moments"][0] == run["moments"][1] == run["average"]
    whole = devices["runs"]["one"]["born"]
    assert devices["runs"]["4,1,1"]["born"] == whole, "data parallel alone keeps whole copies"
    numbers = [sum(int(np.prod(shape)) for shape in shapes.values()) for shapes in (run["born"], whole)]
    assert numbers[0] < 0.35 * numbers[1], "four devices hold about a quarter each"


def test_rounds_of_accumulation_are_summed_over_devices_once(devices: dict[str, Any]) -> None:
    assert 0 < devices["sent"]["4"] < 1.1 * devices["sent"]["1"]


def test_a_vocabulary_that_the_axis_does_not_divide_stays_whole(devices: dict[str, Any]) -> None:
    assert devices["odd vocabulary"] == [99, 16]


def test_dropout_does_not_depend_on_the_mesh(devices: dict[str, Any]) -> None:
    drawn = devices["dropout"]
    assert 0 < np.mean(np.array(drawn["one"]) == 0) < 1
    assert all(other == drawn["one"] for other in drawn.values())


def test_the_data_axis_takes_the_devices_that_are_left(devices: dict[str, Any]) -> None:
    assert devices["left over"] == {"data": 2, "fsdp": 1, "tensor": 2}


def test_a_mesh_that_does_not_fit_is_the_users_mistake(devices: dict[str, Any]) -> None:
    assert "data=3, fsdp=1, tensor=1 needs 3 devices, but there are 4" in devices["product"]
    assert "needs 3 devices, but there are 4" in devices["indivisible"] and "--config.mesh" in devices["indivisible"]
    assert "batch of 6 rows" in devices["batch"] and "multiple of 4" in devices["batch"]


# Two processes.

LOOP = {"log_every": 4, "evaluate_every": 40, "save_every": 10, "keep": 2}
STEPS = 40


def lines(directory: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(directory)]


def tokens(directory: Path, step: int) -> np.ndarray:
    """The global batch of one step, whoever read it."""
    parts = sorted(directory.glob(f"tokens-{step}-*.npy"))
    return np.concatenate([np.load(part) for part in parts])


@pytest.fixture(scope="module")
def unbroken_and_stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """Two processes train to the end, and again until one of them, and not the other, hears that it is to stop."""
    unbroken, stopped = tmp_path_factory.mktemp("unbroken"), tmp_path_factory.mktemp("stopped")
    runs = [
        {"directory": str(unbroken), "steps": STEPS, "mesh": {"tensor": 2}},
        {"directory": str(unbroken), "steps": STEPS, "short_until": 30},
        {"directory": str(stopped), "steps": STEPS, "short_until": 30, "signal": "SIGTERM", "at": 13, "after": 10, "process": 1},
    ]
    return unbroken, stopped, children.train(runs, LOOP, processes=2)


def test_a_signal_to_one_process_stops_both_at_one_step_with_a_checkpoint(unbroken_and_stopped: tuple[Path, Path, list[str]]) -> None:
    unbroken, stopped, outputs = unbroken_and_stopped
    last = max(int(path.name) for path in (stopped / "checkpoints").iterdir())
    assert 13 <= last < STEPS
    for output in outputs:
        assert f"stopped at step {last} of {STEPS} and saved a checkpoint" in output
    assert [line["step"] for line in lines(unbroken)] == [*range(4, STEPS + 1, 4), STEPS]


def test_a_mesh_may_not_cut_rows_over_processes(unbroken_and_stopped: tuple[Path, Path, list[str]]) -> None:
    for output in unbroken_and_stopped[2]:
        assert "would split rows across the 2 processes" in output and "--config.mesh.tensor" in output


def test_two_processes_resume_to_the_result_of_an_unbroken_run(unbroken_and_stopped: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    unbroken, stopped, _ = unbroken_and_stopped
    resumed = Path(shutil.copytree(stopped, tmp_path / "resumed"))
    run = {"directory": str(resumed), "steps": STEPS, "short_until": 30}
    for output in children.train([run | {"signal": "SIGTERM", "process": 1}], LOOP, processes=2):
        assert f"stopped at step {STEPS} of {STEPS} and saved a checkpoint" in output
    assert [line["step"] for line in lines(resumed)] == [line["step"] for line in lines(unbroken)][:-1], "its evaluation is to come"
    children.train([run], LOOP, processes=2)
    assert lines(resumed) == lines(unbroken)
    assert all((tokens(resumed, step) == tokens(unbroken, step)).all() for step in range(1, STEPS + 1))
    assert (tokens(unbroken, 30).shape, tokens(unbroken, 31).shape) == ((8, 32), (4, 40)), "long rows at the end"


@tiny.long
def test_one_process_resumes_what_two_began(unbroken_and_stopped: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    unbroken, stopped, _ = unbroken_and_stopped
    resumed = Path(shutil.copytree(stopped, tmp_path / "resumed"))
    begun = max(int(path.name) for path in (stopped / "checkpoints").iterdir())
    for path in resumed.glob("tokens-*"):
        path.unlink()
    children.train([{"directory": str(resumed), "steps": STEPS, "short_until": 30}], LOOP)
    assert all((tokens(resumed, step) == tokens(unbroken, step)).all() for step in range(begun + 1, STEPS + 1))
    found, wanted = lines(resumed), lines(unbroken)
    assert [(line["step"], line["split"], line.get("real_tokens")) for line in found] == [
        (line["step"], line["split"], line.get("real_tokens")) for line in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_workdir_that_another_process_writes_is_refused_by_all(tmp_path: Path) -> None:
    port = children.free_port()
    with only_writer(tmp_path):
        owner = (tmp_path / "lock").read_text().strip()
        arguments = [{"workdir": str(tmp_path), "processes": 2, "process": process, "port": port} for process in range(2)]
        told = children.finish([children.start("distributed.py", json.dumps(one)) for one in arguments], wanted=2, errors=True)
    for lines_told in told:
        [refusal] = [line for line in lines_told.splitlines() if line.startswith("error: ")]
        assert refusal.startswith(f"error: Another process is writing {tmp_path}: {owner}. Wait for it, stop it")
