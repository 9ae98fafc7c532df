"""Entry point of `python -m bert_jax COMMAND`."""

import sys

from bert_jax.cli import collect_rarely, main
from bert_jax.errors import print_unraisable

if __name__ == "__main__":
    sys.unraisablehook = print_unraisable
    collect_rarely()
    sys.exit(main())
