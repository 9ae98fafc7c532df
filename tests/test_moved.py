"""Modules that moved are still found under their former names."""

import importlib
import subprocess
import sys

import pytest

from bert_jax.runtime.moved import MODULES


@pytest.mark.parametrize("name", MODULES)
def test_a_former_name_gives_the_module(name: str) -> None:
    present = importlib.import_module(f"bert_jax.{MODULES[name]}")
    sys.modules.pop(f"bert_jax.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"bert_jax.{name} is now bert_jax.{MODULES[name]}"):
        found = importlib.import_module(f"bert_jax.{name}")
    assert found is present and found.__spec__.name == f"bert_jax.{MODULES[name]}"


def test_it_is_said_once_and_where_it_is_written() -> None:
    program = "from bert_jax.tokenizer import Tokenizer\nimport bert_jax.objectives.losses as losses\n"
    program += "print(Tokenizer.__module__, losses.__name__)\n"
    ran = subprocess.run([sys.executable, "-W", "default", "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["bert_jax.modalities.text.tokenizer", "bert_jax.training.losses"]
    assert ran.stderr.count("DeprecationWarning") == 3 and "is now bert_jax.modalities.text.tokenizer" in ran.stderr
