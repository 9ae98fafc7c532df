"""The training command: `python -m bert_jax train`, of which `train.py` is a thin front."""

import argparse
from contextlib import ExitStack

from bert_jax.cli.arguments import anywhere

DESCRIPTION = "Pre-train and fine-tune a BERT: vocabulary, records, pre-training, fine-tuning and a report, in one resumable run."
EPILOG = (
    "Every value of the configuration can be changed: --config.pretrain.optimizer.learning_rate=3e-4. "
    "Run the same command again to resume an interrupted run; a finished one says so."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command, beside `--config.a.b=value`."""
    parser.set_defaults(run=train, parser=parser, takes_config=True)
    parser.add_argument(
        "--config", required=True, help="a configuration file; those that come along, such as configs/demo.py, are found from anywhere"
    )
    parser.add_argument(
        "--workdir", required=True, type=anywhere, help="where everything of this run is kept: a directory, or gs://BUCKET/FOLDER"
    )
    parser.add_argument("--debug", action="store_true", help="stop with a traceback where a NaN or a tracer's leak arises (slow)")
    parser.add_argument("--distributed", action="store_true", help="join the other processes of a TPU pod or a SLURM job first")


def train(flags: argparse.Namespace) -> None:
    """Runs the configuration; `flags.command` is what was typed."""
    from bert_jax.tasks import configured

    config = configured(flags.config, flags.overrides)
    import jax

    if flags.distributed:
        jax.distributed.initialize()
    from bert_jax.stages.run import run

    with ExitStack() as checks:
        if flags.debug:
            # Not by jax.config.update: a logsumexp, which looks away for a moment, would end that check for all that is compiled.
            checks.enter_context(jax.debug_nans(True))
            checks.enter_context(jax.checking_leaks())
        run(config, flags.workdir, command=flags.command)
