"""The commands that use a trained model: one per question that models answer, with its flags."""

import argparse
from collections.abc import Callable

from bert_jax.cli.arguments import Add, add_engine, anywhere, disk
from bert_jax.tasks import COMMON_QUESTIONS, questions
from bert_jax.tasks.question import Question


def add_model_commands(add: Add) -> None:
    """Add a command for every question of the registered tasks, such as fill-mask, classify and embed."""
    named: dict[str, list[Question]] = {}
    for question in (*(question for _, question in questions()), *COMMON_QUESTIONS):
        named.setdefault(question.name, []).append(question)
    for name, group in named.items():
        # Models of different tasks may answer a question each in its way.
        examples = dict.fromkeys(example for question in group for example in question.examples)
        command = add(name.replace("_", "-"), _ask(group), group[0].help, *examples)
        for question in group:
            question.add_options(command)
        _add_inputs(command, group[0])


def _add_inputs(command: argparse.ArgumentParser, question: Question) -> None:
    of_pairs = question.pairs == "required"
    tables = ".tsv, .csv or .jsonl (by column names)"
    kinds = ", ".join(f"{suffix} ({what})" for suffix, what in question.formats.items())
    kinds = " or ".join(filter(None, [tables if of_pairs else f".txt (one text or path per line), {tables}", kinds]))
    what = question.sides if of_pairs else "one or more texts, or paths of images or recordings, whichever the model reads"
    command.add_argument("model", metavar="MODEL", type=anywhere, help="the directory of a trained stage")
    command.add_argument("texts", nargs="*", metavar="INPUT", help=f"{what}; or one file of them: {kinds}, optionally .gz or .xz")
    lines = "" if of_pairs else "; if its extension is unrecognized, as one text or path per line"
    command.add_argument("--input", type=disk, metavar="FILE", help=f"read this file instead of INPUT arguments{lines}")
    command.add_argument("--text", default="text", metavar="COLUMN", help="the column that holds the text or path (default: %(default)s)")
    command.add_argument(
        "--output",
        type=disk,
        metavar="FILE",
        help=f"write to this .jsonl{' or .npy' * question.vectors} file instead of the terminal; run the same command again to "
        "resume an interrupted one" + f"; a .json file has the {question.by_id} to each id of the input" * bool(question.by_id),
    )
    add_engine(command)
    command.add_argument("--json", action="store_true", help="print JSON, one line per input")
    if of_pairs:
        second = "the column that holds the second text or path (default: %(default)s)"
        command.add_argument("--text-pair", default="text_pair", metavar="COLUMN", help=second)
    elif question.pairs == "optional":
        command.add_argument("--text-pair", metavar="COLUMN", help="the column that holds the second text or path, for a model of pairs")
        command.add_argument("--pair", action="store_true", help="the two INPUTs are one pair, A and B, for a model of pairs")


def _ask(group: list[Question]) -> Callable[[argparse.Namespace], None]:
    def run(flags: argparse.Namespace) -> None:
        from bert_jax.cli.predict import answer

        answer(group, flags)

    return run
