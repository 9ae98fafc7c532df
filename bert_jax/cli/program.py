"""The commands of `python -m bert_jax`: train; train-vocab, prepare, inspect; compile, verify; import, export; one per use of a model;
explore, serve.

Each command imports what it needs when it runs, so that `--help` responds immediately.
"""

import argparse
import atexit
import gc
import io
import os
import shlex
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence

from bert_jax.cli import training
from bert_jax.cli.conversion import add_conversion_commands
from bert_jax.cli.corpus import add_corpus_commands
from bert_jax.cli.models import add_model_commands
from bert_jax.cli.runs import add_run_commands
from bert_jax.cli.serving import add_serving_commands
from bert_jax.config.renamed import RenamedWarning
from bert_jax.errors import InputError, Interrupted, TrainingError, storage_failure

_OBJECTS_PER_COLLECTION = 50_000
INPUT_ERROR, TRAINING_ERROR, INTERRUPTED, PIPE_CLOSED = 2, 1, 128, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line of `python -m bert_jax` and return its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    return _run(_parser(), given, shlex.join(["python", "-m", "bert_jax", *given]))


def train(arguments: Sequence[str] | None = None) -> int:
    """Run one command line of `python train.py` and return its exit status."""
    parser = argparse.ArgumentParser(prog="train.py", description=training.DESCRIPTION, epilog=training.EPILOG, allow_abbrev=False)
    training.add_arguments(parser)
    given = sys.argv[1:] if arguments is None else arguments
    return _run(parser, given, shlex.join(["python", "train.py", *given]))


def collect_rarely() -> None:
    """Have Python look for unreachable objects less often, and not at exit; called once, when a process starts.

    Importing JAX and tracing a model make some 500,000 objects, all of which remain. Walking through them again and again takes
    0.7 of 3.1 seconds of a command that classifies two texts.
    """
    gc.set_threshold(_OBJECTS_PER_COLLECTION, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def _run(parser: argparse.ArgumentParser, given: Sequence[str], typed: str) -> int:
    flags, rest = parser.parse_known_args(given)
    flags.command = typed
    command = flags.parser
    if command.get_default("takes_config"):
        flags.overrides = config_overrides(command, rest)
    elif "texts" in flags and not any(argument.startswith("-") for argument in rest):
        flags.texts += rest  # argparse stops collecting texts once an option separates them from the model
    elif rest:
        command.error(f"unrecognized arguments: {' '.join(rest)}")
    return run_command(lambda: flags.run(flags))


def run_command(command: Callable[[], None]) -> int:
    """Run `command` and return the exit status: 0 for success, 2 for bad input, 1 if training cannot continue or storage fails.

    An interruption that lost no work is 128 + the signal: 130 for Ctrl-C, 143 for SIGTERM. Each of these failures is reported in one
    paragraph on stderr; any other exception is a bug in the program and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # Chinese text on a terminal limited to Latin letters
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("default", category=RenamedWarning)  # Python hides deprecations in a library from its users
            command()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return INPUT_ERROR
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return TRAINING_ERROR
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return INTERRUPTED + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
    except BrokenPipeError:
        # The reader has closed the pipe; without this, flushing stdout at shutdown would raise the same error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        failure = storage_failure(error)
        if not failure:
            raise
        print(f"error: A file cannot be read or written ({failure}). Fix the cause and run the same command again.", file=sys.stderr)
        return TRAINING_ERROR
    return 0


def config_overrides(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """Return `a.b=value` for every `--config.a.b=value` or `--config.a.b value`; report any other argument through `parser.error`."""
    overrides: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("--config."):
            parser.error(f"unrecognized arguments: {argument}")
        if "=" not in argument and left and not left[0].startswith("--"):
            argument += "=" + left.pop(0)
        overrides.append(argument.removeprefix("--config."))
    return overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bert_jax",
        description="Inspect and prepare text, images and audio, pre-train and fine-tune BERT models on them, and use trained models.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], None], description: str, *examples: str, more: str = ""
    ) -> argparse.ArgumentParser:
        lines = ["examples:", *(f"  python -m bert_jax {name} {example}" for example in examples)]
        lines += ["", *textwrap.wrap(more)] if more else []
        command = commands.add_parser(
            name,
            help=description,
            description=description[0].upper() + description[1:] + ".",
            epilog="\n".join(lines),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run, parser=command)
        return command

    training.add_arguments(
        add("train", training.train, "pre-train and fine-tune a BERT", "--config=configs/demo.py --workdir=runs/demo", more=training.EPILOG)
    )
    add_corpus_commands(add)
    add_run_commands(add)
    add_conversion_commands(add)
    add_model_commands(add)
    add_serving_commands(add)
    return parser
