"""The structure of the package: imports point one way, and no file or function grows beyond what a reader can hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bert_jax"

# From the bottom to the top: a module imports from its own folder and from those before it. docs/architecture.md says the same.
LAYERS = (
    "errors", "storage", "runtime", "config", "data", "modalities", "model", "training", "tasks", "families", "convert", "inference",
    "report", "stages", "serving", "cli", "__main__",
)  # fmt: skip
# `import bert_jax` offers `load`, inside a function.
FRONT = ("__init__", "bert_jax")
MOST_LINES, MOST_FUNCTION_LINES, MOST_ENTRIES = 400, 60, 19


def modules() -> dict[str, Path]:
    """Every module by its dotted name below `bert_jax`."""
    found = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE.rglob("*.py")}
    return {name: path for name, path in found.items() if "__pycache__" not in name}


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, those inside its functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("bert_jax.") for alias in node.names if alias.name.startswith("bert_jax."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            if node.module and node.module.partition(".")[0] == "bert_jax":
                module = node.module.removeprefix("bert_jax").removeprefix(".")
                for alias in node.names:
                    whole = f"{module}.{alias.name}".removeprefix(".")
                    yield whole if whole in known else module


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def layer(module: str) -> int:
    return LAYERS.index(module.partition(".")[0])


def test_every_folder_has_a_place_in_the_order(graph: dict[str, set[str]]) -> None:
    assert {module.partition(".")[0] for module in graph} - set(FRONT) <= set(LAYERS)


def test_imports_point_downward(graph: dict[str, set[str]]) -> None:
    upward = {
        (module, other.partition(".")[0])
        for module, others in graph.items()
        if module not in FRONT
        for other in others
        if other and layer(other) > layer(module)
    }
    assert not upward


def test_no_modules_import_each_other(graph: dict[str, set[str]]) -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in finished:
            for other in sorted(graph.get(module, ())):
                # A package's front gathers what its modules have.
                if other not in FRONT and not module.startswith(f"{other}."):
                    visit(other, (*path, module))
            finished.add(module)

    for module in graph:
        if module not in FRONT:
            visit(module, ())


def test_the_root_is_short() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_files_are_short() -> None:
    long = {name: count for name, path in modules().items() if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES}
    assert not long


def test_functions_are_short() -> None:
    long = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1] if len(node.body) > 1 and ast.get_docstring(node) else node.body[0]
                if (node.end_lineno or 0) - first.lineno + 1 > MOST_FUNCTION_LINES:
                    long.append(f"{name}.{node.name}")
    assert not long


def test_the_description_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {module.partition(".")[0] for module, path in modules().items() if path.parent != PACKAGE}
    assert folders <= set(re.findall(r"^ *([a-z_]+)/", text, re.MULTILINE))
