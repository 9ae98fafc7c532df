"""A route for each question that the models answer, such as /fill-mask and /tag, with the options of its command."""

import argparse
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, create_model

from bert_jax.serving.conventions.fields import Request, Text, answer
from bert_jax.serving.served import Models
from bert_jax.tasks.question import Question


class Answered(BaseModel):
    """The model that answered, and a record for each text, as a line of the command's output file."""

    model: str
    answers: list[dict[str, Any]]


def routes(models: Models) -> APIRouter:
    """Return a route for each question that a model answers; vectors have the routes of the other conventions."""
    router = APIRouter(tags=["bert_jax"])
    named: dict[str, list[Question]] = {}
    for one in models.by_name.values():
        for name, question in one.questions.items():
            if not question.vectors:
                named.setdefault(name, []).append(question)
    for name, group in named.items():
        _add(router, models, name, group)
    return router


def _add(router: APIRouter, models: Models, name: str, group: Sequence[Question]) -> None:
    of_pairs, files = group[0].pairs, group[0].files
    fields: dict[str, Any] = {"texts": (Text | list[Text], ...), "model": (str | None, None), "truncate": (bool, False)}
    if of_pairs != "none":
        fields["pairs"] = (Text | list[Text], ...) if of_pairs == "required" else (Text | list[Text] | None, None)
    options = {option: list[Text] if option in files else kind for option, kind in _options(group).items()}
    fields |= {option: (kind, ...) if option in files else (kind | None, None) for option, kind in options.items()}
    body = create_model(f"{name.title().replace('_', '')}Request", __base__=Request, **fields)

    async def respond(request: Any) -> Any:
        model = models.find(request.model, name)
        texts, pairs = _listed(request.texts), getattr(request, "pairs", None)
        own = {option: value for option in options if (value := getattr(request, option)) is not None}
        answers, _ = await model.ask(name, texts, None if pairs is None else _listed(pairs), truncate=request.truncate, **own)
        question = model.questions[name]
        return answer({"model": model.name, "answers": [_plain(question.record(found)) for found in answers]})

    respond.__annotations__["request"] = body
    description = group[0].help[0].upper() + group[0].help[1:] + "."
    path = "/" + name.replace("_", "-")
    router.add_api_route(path, respond, methods=["POST"], name=name, description=description, response_model=Answered)


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with lists in place of arrays."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in record.items()}


class _Recorder(argparse.ArgumentParser):
    """Notes the types of the options that a question adds to its command."""

    def __init__(self) -> None:
        super().__init__(add_help=False)
        self.kinds: dict[str, Any] = {}

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an option, and note the type of its values."""
        action = super().add_argument(*names, **settings)
        kind: Any = action.type or (bool if action.nargs == 0 else str)
        if not isinstance(kind, type):
            kind = typing.get_type_hints(kind)["return"]
        self.kinds[action.dest] = kind
        return action


def _options(group: Sequence[Question]) -> dict[str, Any]:
    """Return the type of each option."""
    recorder = _Recorder()
    for question in {type(question): question for question in group}.values():
        question.add_options(recorder)
    return {option: recorder.kinds[option] for question in group for option in question.options}
