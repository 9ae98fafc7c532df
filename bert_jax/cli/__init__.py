"""The command line: `python -m bert_jax COMMAND` and `train.py`."""

from bert_jax.cli.program import main, train

__all__ = ["main", "train"]
