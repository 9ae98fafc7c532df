"""The tasks that models are trained for, one module or folder per task; `TASKS` lists the built-in ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bert_jax.config import RunConfig, TaskOptions, to_dict
from bert_jax.config.overrides import Choices, apply_overrides, from_dict, load_config
from bert_jax.errors import InputError
from bert_jax.tasks.answering import ANSWERING
from bert_jax.tasks.attention import Attention
from bert_jax.tasks.base import FinetuningTask, Task
from bert_jax.tasks.classification import CLASSIFICATION
from bert_jax.tasks.contrastive import EMBEDDING
from bert_jax.tasks.embedding import Embed
from bert_jax.tasks.multilabel import MULTILABEL
from bert_jax.tasks.pretraining import PRETRAINING
from bert_jax.tasks.question import Question
from bert_jax.tasks.regression import REGRESSION
from bert_jax.tasks.similar import Similar
from bert_jax.tasks.tagging import TAGGING

if TYPE_CHECKING:
    from bert_jax.modalities.base import Modality

TASKS: tuple[Task, ...] = (PRETRAINING, CLASSIFICATION, MULTILABEL, REGRESSION, TAGGING, ANSWERING, EMBEDDING)
COMMON_QUESTIONS: tuple[Question, ...] = (Embed(), Similar(), Attention())


def find(kind: str, others: Iterable[Task] = ()) -> Task:
    """Return the task of this kind, from the built-in tasks and `others`.

    Raises:
        InputError: there is no such task.
    """
    tasks = {task.kind: task for task in (*TASKS, *others)}
    if kind not in tasks:
        raise InputError(f"There is no task of the kind {kind!r}. The kinds are {', '.join(tasks)}; pass other tasks as objects.")
    return tasks[kind]


def finetuning(options: TaskOptions, others: Iterable[Task] = ()) -> FinetuningTask[Any]:
    """Return the task that the options belong to."""
    task = find(options.name, others)
    assert isinstance(task, FinetuningTask)
    return task


def questions(others: Iterable[Task] = ()) -> Iterator[tuple[Task, Question]]:
    """Yield every question of the tasks, with the task whose models answer it."""
    return ((task, question) for task in (*TASKS, *others) for question in task.questions)


def choices(others: Iterable[Task] = (), modalities: Iterable[Modality[Any, Any]] = ()) -> Choices:
    """Return the options classes of all fine-tuning tasks and modalities, by the names that a configuration may use for them."""
    from bert_jax.modalities import choices as of_modalities

    options: dict[str, type] = {}
    for task in (*TASKS, *others):
        if isinstance(task, FinetuningTask):
            options |= {task.name: task.options, task.kind: task.options}
    return {TaskOptions: options, **of_modalities(modalities)}


def checked(config: RunConfig, others: Iterable[Task] = (), modalities: Iterable[Modality[Any, Any]] = ()) -> RunConfig:
    """Return the configuration after validating the options of its task and modality.

    Raises:
        InputError: there is no such task or modality, or it does not accept these options.
    """
    return from_dict(RunConfig, to_dict(config), choices(others, modalities))


def configured(path: str, overrides: Sequence[str], others: Iterable[Task] = ()) -> RunConfig:
    """Load a configuration file and apply command-line overrides of the form `a.b=value`.

    Raises:
        InputError: see `bert_jax.config.overrides`.
    """
    return apply_overrides(load_config(path, choices(others)), overrides, choices(others))
