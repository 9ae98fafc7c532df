"""`benchmarks/gpu.py` at tiny size on a CPU: every kind of cell, and a command that stops in time and goes on where it stopped."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.model.resolution import resolve_compute

ROOT = Path(__file__).parents[1]
WORDS = "the cat dog house runs sleeps a tree bird sings river green old man".split()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a vocabulary."""
    folder, draw = tmp_path_factory.mktemp("text"), random.Random(0)
    sentences = [" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) + "." for _ in range(400)]
    (folder / "corpus.txt").write_text("\n\n".join("\n".join(sentences[i : i + 5]) for i in range(0, 400, 5)))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS]) + "\n")
    return folder


@pytest.fixture(scope="module")
def gpu() -> Any:
    """The benchmark as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import gpu  # type: ignore[import-not-found]

        yield gpu


def command(text: Path, output: Path, *more: str) -> list[str]:
    files = (f"--corpus={text / 'corpus.txt'}", f"--vocab={text / 'vocab.txt'}", f"--output={output}")
    return [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", *files, *more]


def run(text: Path, output: Path, *more: str) -> str:
    return subprocess.run(command(text, output, *more), capture_output=True, text=True, check=True).stdout


def test_it_stops_in_time_and_goes_on_where_it_stopped(text: Path, tmp_path: Path) -> None:
    output, lines = tmp_path / "gpu", tmp_path / "gpu.jsonl"
    shown = run(text, output, "--until=0", "--only=peak")
    assert "product peak: not started" in shown and "0 of 1 cells" in shown and not lines.exists()
    lines.write_text('{"cell": "product peak", "card": "another card", "versions": {}}\n{"cell": "product pe')
    assert "1 of 1 cells" in run(text, output, "--only=peak")
    kept = lines.read_bytes()
    _, cut, own = kept.splitlines()
    assert json.loads(own)["tflops"] > 0 and json.loads(own)["versions"]["jax"] and cut == b'{"cell": "product pe'
    shown = run(text, output, "--only=peak")
    assert lines.read_bytes() == kept and "1 of 1 cells" in shown, "nothing is measured twice"


@pytest.fixture(scope="module")
def data(gpu: Any, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return gpu.Data(str(text / "corpus.txt"), text / "vocab.txt", tmp_path_factory.mktemp("records"), gpu.TINY)


def test_a_step_and_its_trace(gpu: Any, data: Any) -> None:
    found = gpu.step(data, "base", 512)
    assert found["rows"] * found["length"] == 128 and found["attention"] == "dense" and found["scan_layers"] is False
    real = (1 - found["padding"]) * 128
    assert found["tokens_per_second"] == pytest.approx(real / found["step_ms"] * 1e3, rel=0.01)
    assert found["mfu"] > 0 and found["tflops"] > 0 and len(found["all_ms"]) == gpu.TINY.repeats
    traced = gpu.trace(data, "base", 512)
    assert traced["kernel_ms"] == pytest.approx(sum(traced["classes"].values()), rel=0.01) and traced["kernel_ms"] > 0
    assert "matrix products" in traced["classes"] and traced["kernels"]


def test_torch_takes_the_same_rows(gpu: Any, data: Any) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    found, setting = gpu.torch_step(data, "base", 512), data.setting("base", 512)
    batches = gpu.first_rows(setting)
    assert found["rows"] == 4 and found["padding"] == pytest.approx(sum((b["tokens"] == 0).mean() for b in batches) / 4, abs=1e-3)
    assert setting.masked(batches)[0]["masked_positions"].shape[0] == 4


def test_switches_are_settings_and_cells_have_names_of_their_own(gpu: Any) -> None:
    encoder = EncoderConfig.preset("base", attention_dropout=0.0)
    for values, _ in gpu.SWITCHES.values():
        resolve_compute(ComputeConfig(dtype="bfloat16", **values), encoder, [512], "gpu")
    names = [cell.name for cell in gpu.CELLS]
    assert len(set(names)) == len(names) > 2 * len(gpu.SWITCHES)


def test_kernels_have_the_class_of_what_they_compute(gpu: Any) -> None:
    from gpu_trace import kernel_class  # type: ignore[import-not-found]

    wanted = {
        "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT": "matrix products",
        "gemm_fusion_dot_42": "matrix products",
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma": "attention",
        "input_reduce_fusion_3": "reductions",
        "loop_convert_fusion": "copies and layout",
        "loop_add_fusion": "element by element",
        "MemcpyD2D": "copies and layout",
        "something else": "other",
    }
    assert {name: kernel_class(name) for name in wanted} == wanted


def test_a_cell_that_fails_is_a_line_and_comes_last(
    gpu: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command with cells that take no time: what fails is tried again after what was not tried."""
    started: list[str] = []

    def in_a_process(cell: Any, seconds: float) -> dict[str, Any]:
        started.append(cell.name)
        if cell.name == "who":
            return {"card": "NVIDIA H100", "versions": {"jax": "1"}}
        if cell.name == "base 512":
            return {"error": "RESOURCE_EXHAUSTED"}
        if cell.name == "product peak":
            return {"tflops": 800.0}
        if cell.name.endswith("trace"):
            return {"kernel_ms": 2.0, "classes": {"attention": 2.0}, "kernels": []}
        rate = 500 if "torch" in cell.name else 600
        return {"step_ms": 100.0, "tokens_per_second": rate, "mfu": 0.4, "tflops": 400.0, "peak_gib": 33.0, "compile_s": 30.0}

    monkeypatch.setattr(gpu, "in_a_process", in_a_process)
    monkeypatch.setattr(sys, "argv", command(text, tmp_path / "gpu", "--only=512")[1:])
    gpu.main()
    gpu.main()
    first = [cell.name for cell in gpu.CELLS if "512" in cell.name]
    assert started == ["who", *first, "who", "base 512"]
    shown = capsys.readouterr().out
    assert "base 512, attention=dense" in shown and "1.20" in shown and "attention 2.0" in shown and "RESOURCE_EXHAUSTED" in shown
    monkeypatch.setattr(gpu, "source_hash", lambda: "changed")
    started.clear()
    gpu.main()
    assert started == ["who", *(name for name in first if not name.endswith("torch"))], "torch does not depend on this package's source"
