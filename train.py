"""Pre-train and fine-tune a BERT: python train.py --config=configs/demo.py --workdir=runs/demo

Equivalent to `python -m bert_jax train`, for use from a checkout.
"""

import sys

from bert_jax.cli import collect_rarely
from bert_jax.cli import train as main
from bert_jax.errors import print_unraisable

if __name__ == "__main__":
    sys.unraisablehook = print_unraisable
    collect_rarely()
    sys.exit(main())
