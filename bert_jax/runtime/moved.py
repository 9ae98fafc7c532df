"""Former module names. Importing one returns the module under its present name and issues a DeprecationWarning."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = {
    "objectives": "training",
    "accents": "modalities.text.accents",
    "answer_files": "inference.answer_files",
    "arguments": "cli.arguments",
    "bucket": "storage.bucket",
    "bulk_encoding": "modalities.text.bulk_encoding",
    "charts": "report.svg",
    "data.beam": "data.records.beam",
    "data.builder": "data.records.builder",
    "data.classes": "tasks.classification.labels",
    "data.corpora": "data.records.corpora",
    "data.demo": "modalities.text.demo",
    "data.encoding": "modalities.text.encoding",
    "data.files": "storage.streams",
    "data.held_out": "data.records.held_out",
    "data.inspection": "modalities.text.inspection",
    "data.segmentation": "modalities.text.segmentation",
    "data.sentences": "modalities.text.sentences",
    "data.sources": "modalities.text.sources",
    "data.text": "modalities.text.files",
    "data.words": "modalities.text.words",
    "embedding": "tasks.embedding",
    "files": "storage.files",
    "forward": "inference.forward",
    "metrics": "runtime.metrics",
    "model_directory": "model.directory",
    "objectives.losses": "training.losses",
    "objectives.masking": "training.masking",
    "overrides": "config.overrides",
    "predict": "cli.predict",
    "processes": "runtime.processes",
    "progress": "runtime.progress",
    "scores": "tasks.classification.scores",
    "small_files": "storage.small_files",
    "tokenizer": "modalities.text.tokenizer",
    "tokenizer_files": "modalities.text.tokenizer_files",
    "train": "cli.training",
    "training.manifest": "training.checkpoints.manifest",
    "training.verification": "training.checkpoints.verification",
    "unknown": "modalities.text.unknown",
    "verify": "stages.verify",
    "vocabulary": "modalities.text.vocabulary",
}
"""Former name -> present name, relative to `bert_jax`."""


class _Moved(Loader):
    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)  # noqa: TID251  # from the table above
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importing the former name has just replaced it


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, module = name.partition(".")
        if package != "bert_jax" or module not in MODULES:
            return None
        warnings.warn(f"{name} is now bert_jax.{MODULES[module]}; the old name still works.", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, _Moved(f"bert_jax.{MODULES[module]}"))


def install() -> None:
    """Make the former names importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # Ahead of the path finder, which would load bert_jax/training/losses.py a second time as bert_jax.objectives.losses.
        sys.meta_path.insert(0, _Finder())
