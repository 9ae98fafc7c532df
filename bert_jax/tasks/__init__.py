"""What models learn, a module or folder for each task; `TASKS` lists them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bert_jax.config import RunConfig, TaskOptions, to_dict
from bert_jax.config.overrides import Choices, apply_overrides, from_dict, load_config
from bert_jax.errors import InputError
from bert_jax.tasks.base import FinetuningTask, Question, Task
from bert_jax.tasks.classification import CLASSIFICATION
from bert_jax.tasks.embedding import Embed
from bert_jax.tasks.pretraining import PRETRAINING

if TYPE_CHECKING:
    from bert_jax.modalities.base import Modality

TASKS: tuple[Task, ...] = (PRETRAINING, CLASSIFICATION)
OF_EVERY_MODEL: tuple[Question, ...] = (Embed(),)


def find(kind: str, others: Iterable[Task] = ()) -> Task:
    """The task of this kind, out of the given ones and those that come along.

    Raises:
        InputError: there is none.
    """
    tasks = {task.kind: task for task in (*TASKS, *others)}
    if kind not in tasks:
        raise InputError(f"There is no task of the kind {kind!r}. The kinds are {', '.join(tasks)}; others are handed in as objects.")
    return tasks[kind]


def finetuning(options: TaskOptions, others: Iterable[Task] = ()) -> FinetuningTask[Any]:
    """The task that options are for."""
    task = find(options.name, others)
    assert isinstance(task, FinetuningTask)
    return task


def questions(others: Iterable[Task] = ()) -> Iterator[tuple[Task, Question]]:
    """Every question of a task, with the task whose models answer it."""
    return ((task, question) for task in (*TASKS, *others) for question in task.questions)


def choices(others: Iterable[Task] = (), modalities: Iterable[Modality[Any, Any]] = ()) -> Choices:
    """The options of every task to fine-tune and of every modality, by the names that a configuration may give them."""
    from bert_jax.modalities import choices as of_modalities

    found: dict[str, type] = {}
    for task in (*TASKS, *others):
        if isinstance(task, FinetuningTask):
            found |= {task.name: task.options, task.kind: task.options}
    return {TaskOptions: found, **of_modalities(modalities)}


def checked(config: RunConfig, others: Iterable[Task] = (), modalities: Iterable[Modality[Any, Any]] = ()) -> RunConfig:
    """The configuration with the options of its task and its modality checked by these.

    Raises:
        InputError: there is no such task or modality, or it does not take these options.
    """
    return from_dict(RunConfig, to_dict(config), choices(others, modalities))


def configured(path: str, overrides: Sequence[str], others: Iterable[Task] = ()) -> RunConfig:
    """The configuration of a file with the overrides of a command line, `a.b=value`.

    Raises:
        InputError: see `bert_jax.config.overrides`.
    """
    return apply_overrides(load_config(path, choices(others)), overrides, choices(others))
