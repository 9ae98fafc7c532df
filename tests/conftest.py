"""What holds for every test, and trained models for those that need one."""

import os
import shutil

from children import PROGRAMS, XLA_FLAGS

# Before JAX is imported.
os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
# The cores are shared with other test processes: further threads of PyTorch and scikit-learn would mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import Undisturbed

from bert_jax import errors
from bert_jax.config import EncoderConfig, VocabularyConfig
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import ModelDescription
from bert_jax.tasks.stored import parameter_shapes
from bert_jax.training.checkpoints.saving import Checkpoints
from bert_jax.training.loop import Job, train
from bert_jax.training.state import TrainState

# Python processes that tests start find the package as the tests do.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])

# A type that changes by accident is an error here.
jax.config.update("jax_numpy_dtype_promotion", "strict")

# The same examples at every run: a change is judged by what it changes.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

# What several tests compile alike is compiled once.
jax.config.update("jax_compilation_cache_dir", PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

_ENCODER = EncoderConfig(layers=2, width=32, heads=2, feed_forward=64, max_positions=48)
_TEXT = ["这家酒店的服务很好。房间也很干净", "再也不来了,太差", "the cat sat on the mat, good"]


def random_parameters(description: ModelDescription, vocab_size: int, seed: int) -> Any:
    """Parameters large enough for answers that differ; biases and layer norms are random too."""
    shapes = parameter_shapes(description, vocab_size)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)


def write_model(
    directory: Path,
    description: ModelDescription,
    seeds: tuple[int, ...] = (0,),
    scores: tuple[float, ...] = (0.0,),
    kind: str = "wordpiece",
    reader: Any = None,
) -> Path:
    """A model directory with a scored checkpoint of random parameters for each seed, and a vocabulary of this kind or another reader."""
    tokenizer = reader or Tokenizer.train(_TEXT, VocabularyConfig(kind=kind, size=100, min_frequency=1), show_progress=False)
    model_directory.write(directory, description, tokenizer)
    checkpoints = Checkpoints(directory / "checkpoints", len(seeds), model_directory.identity(description, tokenizer))
    for step, (seed, score) in enumerate(zip(seeds, scores, strict=True), 1):
        state = TrainState(jnp.int32(step), random_parameters(description, tokenizer.vocab_size, seed), optimizer_state=())
        checkpoints.save(step, state, {"step": step}, score)
    checkpoints.close()
    return directory


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def nothing_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test's messages show what another has typed."""
    monkeypatch.setattr(errors, "_TYPED", {})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; where there is none, the tests that need it are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tiny_pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny pre-trained model with a next-sentence head."""
    return write_model(tmp_path_factory.mktemp("run") / "pretrain", ModelDescription("pretraining", _ENCODER, 32, "nsp"))


@pytest.fixture(scope="session")
def tiny_classifier(tiny_pretrained: Path) -> Path:
    """The directory of a tiny classifier, the first checkpoint of which (seed 1) scored best, beside the pre-trained model."""
    description = ModelDescription("classification", _ENCODER, 32, labels=("negative", "neutral", "positive"), pooling="mean")
    return write_model(tiny_pretrained.parent / "finetune", description, seeds=(1, 2), scores=(0.9, 0.8))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A whole run of the toy task, and what was compiled in it."""
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def run() -> Iterator[Callable[[Job], int]]:
    """`train`, after which the thread that works ahead has ended."""
    jobs = []

    def train_and_remember(job: Job) -> int:
        jobs.append(job)
        return train(job)

    yield train_and_remember
    for job in jobs:
        job.batches.close()
        if job.next_phase:
            job.next_phase.batches.close()
