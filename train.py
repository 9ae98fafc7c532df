"""Pre-train and fine-tune a BERT: python train.py --config=configs/demo.py --workdir=runs/demo"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from bert_jax.arguments import anywhere
from bert_jax.cli import config_overrides, run_command
from bert_jax.errors import print_unraisable


def main(arguments: Sequence[str] | None = None) -> int:
    """Flags to a `RunConfig`, and the run; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Every value of the configuration can be changed: --config.pretrain.optimizer.learning_rate=3e-4. "
        "The same command again continues an interrupted run, or says that it is done.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a configuration file, such as configs/demo.py")
    parser.add_argument(
        "--workdir", required=True, type=anywhere, help="where everything of this run is kept: a directory, or gs://BUCKET/FOLDER"
    )
    parser.add_argument("--debug", action="store_true", help="stop with a traceback where a NaN or a tracer's leak arises (slow)")
    parser.add_argument("--distributed", action="store_true", help="join the other processes of a TPU pod or a SLURM job first")
    flags, rest = parser.parse_known_args(arguments)

    def command() -> None:
        from bert_jax.overrides import apply_overrides, load_config

        config = apply_overrides(load_config(flags.config), config_overrides(parser, rest))
        import jax

        if flags.distributed:
            jax.distributed.initialize()
        from bert_jax.stages.run import run

        given = sys.argv[1:] if arguments is None else arguments
        with ExitStack() as checks:
            if flags.debug:
                # Not by jax.config.update: a logsumexp, which looks away for a moment, would end that check for all that is compiled.
                checks.enter_context(jax.debug_nans(True))
                checks.enter_context(jax.checking_leaks())
            run(config, flags.workdir, command=shlex.join(["python", "train.py", *given]))

    return run_command(command)


if __name__ == "__main__":
    sys.unraisablehook = print_unraisable
    sys.exit(main())
