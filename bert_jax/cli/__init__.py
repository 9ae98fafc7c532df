"""The command line: `python -m bert_jax COMMAND` and `train.py`."""

from bert_jax.cli.program import collect_rarely, main, train

__all__ = ["collect_rarely", "main", "train"]
