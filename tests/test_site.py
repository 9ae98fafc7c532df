"""The documentation site and what else describes the package: no configuration value without a meaning, no link to nowhere."""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import bert_jax
from bert_jax.config import RunConfig
from bert_jax.config.overrides import _paths
from bert_jax.errors import InputError
from bert_jax.tasks import choices, configured

ROOT = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    """A module of .ci/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def configuration() -> ModuleType:
    return load("configuration")


def test_the_reference_has_every_value_that_a_command_may_set(configuration: ModuleType) -> None:
    page = configuration.page()
    listed = re.findall(r"^`([\w.]+)`", page, re.MULTILINE)
    groups = {section.prefix for section in configuration.sections()}
    selectors = {f"{section.prefix}.{section.config.CHOSEN_BY}" for section in configuration.sections() if section.names}
    assert {*listed} | selectors == {*_paths(RunConfig, (), choices())} - groups
    assert "`pretrain.optimizer.learning_rate`{ #pretrain.optimizer.learning_rate }: a number; default `0.0001`\n:   The highest" in page
    assert "`finetune.optimizer.learning_rate`{ #finetune.optimizer.learning_rate }: a number; default `3e-05`" in page


def test_the_names_that_select_a_class_do(configuration: ModuleType) -> None:
    selecting = re.findall(r"Selected by (.+), or in a file by `[\w.]+\.(\w+)`", configuration.page())
    for setting, cls in ((setting, cls) for settings, cls in selecting for setting in re.findall("`(.+?)`", settings)):
        config = configured("configs/finetune_tsv.py", [setting])
        assert cls in {type(config.finetune.task).__name__, type(config.corpus).__name__, type(config.vocabulary).__name__}, setting
    assert len(selecting) == 11
    with pytest.raises(InputError):
        configured("configs/finetune_tsv.py", ["finetune.task=nothing"])


def test_a_field_without_a_meaning_is_named(configuration: ModuleType) -> None:
    @dataclass
    class Base:
        given: int = 0
        """A meaning that
        has two lines."""
        missing: int = 0

    class Namesake(Base):
        given: int = 1

    assert configuration.meanings(Base) == {"given": "A meaning that has two lines."}
    assert configuration.meanings(Namesake) == configuration.meanings(Base)
    assert configuration.unexplained(Base()) == ["Base.missing"]


@pytest.fixture
def adapted() -> Iterator[Any]:
    """What the site makes of a text in a page."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    path = [*sys.path]
    hooks = load("site_hooks")
    sys.path[:] = path
    known = {"index.md", "tour.md", "CONTRIBUTING.md", "benchmarks/results/media_labels.svg"}
    files = SimpleNamespace(get_file_from_path=lambda uri: uri in known)

    def adapted(text: str, uri: str) -> str:
        return hooks.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=uri)), None, files)

    yield adapted


@pytest.mark.parametrize(
    ("uri", "text", "expected"),
    [
        ("index.md", "[a tour](docs/tour.md#load)", "[a tour](tour.md#load)"),
        ("tour.md", "[recipes](../CONTRIBUTING.md#recipes) and [x](../README.md)", "[recipes](CONTRIBUTING.md#recipes) and [x](index.md)"),
        ("tour.md", "![p](../benchmarks/results/media_labels.svg)", "![p](benchmarks/results/media_labels.svg)"),
        ("index.md", "[configs](configs/demo.py), [all](configs/)", "configs, all"),
        ("tour.md", "[gone](../configs/no.py) ![gone](no.svg)", "[gone](../configs/no.py) ![gone](no.svg)"),
        ("tour.md", "[out](https://a.org/b.md) [here](#load)", "[out](https://a.org/b.md) [here](#load)"),
        ("index.md", "```python\na[b](docs/tour.md)\n```", "```python\na[b](docs/tour.md)\n```"),
    ],
)
def test_links_of_the_repository_work_on_the_site(adapted: Any, uri: str, text: str, expected: str) -> None:
    assert adapted(text, uri) == expected


def test_the_notebook_has_the_outputs_of_a_whole_run() -> None:
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert [output["name"] for output in outputs if output["output_type"] == "stream"] == ["stdout"] * 5


@pytest.mark.parametrize(
    ("stored", "found", "equal"),
    [("0.4 a", "0.55 a", True), ("0.4 a", "0.6 a", False), ("0.4 a", "0.4 b", False), ("6 a", "5 a", False), ("1.0", "1.0 2.0", False)],
)
def test_what_a_notebook_prints_is_compared(stored: str, found: str, equal: bool) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed")
    assert load("notebook").same(stored, found) is equal


def test_the_citation_and_the_changes_name_this_version() -> None:
    citation = dict(re.findall(r"^([\w-]+): (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE))
    assert citation["version"] == bert_jax.__version__ and citation["title"] == "bert_jax" and citation["license"] == "Apache-2.0"
    released = re.findall(r"^## ([\d.]+) - ([\d-]+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == (bert_jax.__version__, citation["date-released"])


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- .+: (\w+\.md)$", text, re.MULTILINE)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= {*listed} and len(listed) == len({*listed})
