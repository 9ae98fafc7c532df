"""The command line as tests call it."""

import json
from typing import Any

import pytest

from bert_jax.cli import main


def ok(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one paragraph of bad input."""
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
