"""Entry point of `python -m bert_jax COMMAND` and, in an installed package, of `bert_jax COMMAND`."""

import sys

from bert_jax.cli import collect_rarely, main
from bert_jax.errors import print_unraisable


def run() -> int:
    """Run a command of the shell; return its exit status."""
    sys.unraisablehook = print_unraisable
    collect_rarely()
    return main()


if __name__ == "__main__":
    sys.exit(run())
