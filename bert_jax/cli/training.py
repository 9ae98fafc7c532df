"""The training command, `python -m bert_jax train`; `train.py` is a thin wrapper around it."""

import argparse
from contextlib import ExitStack

from bert_jax.cli.arguments import anywhere

DESCRIPTION = "Pre-train and fine-tune a BERT: vocabulary, records, pre-training, fine-tuning and a report, in one resumable run."
EPILOG = (
    "Override any configuration value with a flag such as --config.pretrain.optimizer.learning_rate=3e-4. "
    "Run the same command again to resume an interrupted run; for a finished run, it prints the results."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, other than `--config.a.b=value`."""
    parser.set_defaults(run=train, parser=parser, takes_config=True)
    parser.add_argument(
        "--config", required=True, help="a configuration file; built-in ones, such as configs/demo.py, are found from any directory"
    )
    parser.add_argument(
        "--workdir", required=True, type=anywhere, help="where the run keeps all its files: a directory, or gs://BUCKET/FOLDER"
    )
    parser.add_argument("--debug", action="store_true", help="stop with a traceback at the first NaN or leaked tracer (slow)")
    parser.add_argument("--distributed", action="store_true", help="connect to the other processes of a TPU pod or SLURM job first")


def train(flags: argparse.Namespace) -> None:
    """Run the configuration; `flags.command` is the command line as typed."""
    from bert_jax.tasks import configured

    config = configured(flags.config, flags.overrides)
    import jax

    from bert_jax.runtime.programs import keep_programs

    keep_programs()
    if flags.distributed:
        jax.distributed.initialize()
    from bert_jax.stages.run import run

    with ExitStack() as checks:
        if flags.debug:
            # Context managers rather than jax.config.update: logsumexp disables the NaN check temporarily, which would otherwise
            # switch it off for everything that is compiled.
            checks.enter_context(jax.debug_nans(True))
            checks.enter_context(jax.checking_leaks())
        run(config, flags.workdir, command=flags.command)
