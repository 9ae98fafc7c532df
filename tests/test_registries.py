"""The registries of tasks, modalities and families: they list what is in their folders, and looking at them is cheap."""

import subprocess
import sys
from pathlib import Path

import bert_jax
from bert_jax.modalities import MODALITIES
from bert_jax.tasks import TASKS, choices, questions
from bert_jax.tasks.base import FinetuningTask

PACKAGE = Path(bert_jax.__file__).parent
SHARED_BY_TASKS = {
    "attention", "base", "display", "embedding", "influence", "numbers", "places", "pooled", "published", "question", "scores",
    "similar", "spread", "stored",
}  # fmt: skip


def members(folder: str) -> set[str]:
    """The modules and folders of a folder of the package."""
    modules, folders = ((PACKAGE / folder).glob(pattern) for pattern in ("*.py", "*/__init__.py"))
    return {path.stem for path in modules} - {"__init__"} | {path.parent.name for path in folders}


def test_every_task_is_listed() -> None:
    listed = {type(task).__module__.removeprefix("bert_jax.tasks.") for task in TASKS}
    assert members("tasks") - SHARED_BY_TASKS == listed
    assert len({task.kind for task in TASKS}) == len(TASKS) and len({question.name for _, question in questions()}) == 8


def test_every_modality_is_listed() -> None:
    assert members("modalities") - {"base", "inspection", "media"} == {modality.name for modality in MODALITIES}


def test_options_are_chosen_by_the_name_that_they_store() -> None:
    for task in TASKS:
        if isinstance(task, FinetuningTask):
            (chosen,) = (found[task.kind] for base, found in choices().items() if task.kind in found)
            assert chosen is task.options and task.options().name == task.kind


def test_looking_at_them_imports_neither_jax_nor_flax() -> None:
    program = "import sys, bert_jax.tasks, bert_jax.families, bert_jax.modalities, bert_jax.cli\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "bert_jax.tasks.classification" in loaded and not {"jax", "flax", "sklearn", "tensorflow_datasets"} & {*loaded}
