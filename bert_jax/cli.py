"""Commands of python -m bert_jax: train; train-vocab, prepare, compile, inspect, verify; import, export; and one for each use of a model.

What a command needs is imported when it runs, so that --help answers at once.
"""

import argparse
import io
import json
import os
import re
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert_jax import train as training
from bert_jax.arguments import anywhere, disk
from bert_jax.errors import InputError, Interrupted, TrainingError, as_typed, storage_failure
from bert_jax.files import check_directory, place

INPUT_ERROR, TRAINING_ERROR, INTERRUPTED, PIPE_CLOSED = 2, 1, 128, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line of `python -m bert_jax`; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    return _run(_parser(), given, shlex.join(["python", "-m", "bert_jax", *given]))


def train(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line of `python train.py`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="train.py", description=training.DESCRIPTION, epilog=training.EPILOG, allow_abbrev=False)
    training.add_arguments(parser)
    given = sys.argv[1:] if arguments is None else arguments
    return _run(parser, given, shlex.join(["python", "train.py", *given]))


def _run(parser: argparse.ArgumentParser, given: Sequence[str], typed: str) -> int:
    flags, rest = parser.parse_known_args(given)
    flags.command = typed
    command = flags.parser
    if command.get_default("takes_config"):
        flags.overrides = config_overrides(command, rest)
    elif "texts" in flags and not any(argument.startswith("-") for argument in rest):
        flags.texts += rest  # argparse takes no more of them once an option has come between the model and a text
    elif rest:
        command.error(f"unrecognized arguments: {' '.join(rest)}")
    return run_command(lambda: flags.run(flags))


def run_command(command: Callable[[], None]) -> int:
    """Runs it and returns the exit status: 0, or 2 for bad input, 1 for training that cannot go on or storage that fails.

    An interruption that lost nothing is 128 + the signal: 130 for Ctrl-C, 143 for SIGTERM. All these are told in one paragraph
    on stderr; any other exception is a fault of the program and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # Chinese on a terminal that knows Latin letters alone
    try:
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
        # Whoever read the output has enough; Python would complain once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        failure = storage_failure(error)
        if not failure:
            raise
        print(f"error: A file cannot be read or written ({failure}). Mend that and run the same command again.", file=sys.stderr)
        return TRAINING_ERROR
    return 0


def config_overrides(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """`a.b=value` for every `--config.a.b=value` or `--config.a.b value`; anything else is an error of the parser."""
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
        description="Pre-train and fine-tune BERT models, prepare text for them, look at it, and use trained models.",
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
    _add_text_commands(add)
    _add_conversion_commands(add)
    _add_model_commands(add)
    return parser


Add = Callable[..., argparse.ArgumentParser]

_CORPUS = "demo, tfds:NAME, or a file, folder or glob of .txt, .txt.gz, .txt.xz: a paragraph a line, a blank line between documents"


def _add_text_commands(add: Add) -> None:
    vocabulary = add(
        "train-vocab", _train_vocab, "train a vocabulary on a corpus", "corpus/ vocab --size 21128", "demo characters --kind characters"
    )
    vocabulary.add_argument("corpus", metavar="CORPUS", help=_CORPUS)
    vocabulary.add_argument("out", metavar="OUT", type=anywhere, help="the directory to write tokenizer.json and vocab.txt to")
    vocabulary.add_argument("--size", type=int, default=30_522, help="tokens, special ones included (default: %(default)s)")
    vocabulary.add_argument("--kind", choices=("wordpiece", "characters"), default="wordpiece", help="default: %(default)s")
    option = vocabulary.add_argument
    option("--casing", choices=("uncased", "cased"), default="uncased", help="uncased lowers the case (default: %(default)s)")
    accents = "whether é becomes e; auto: where the case is lowered, and the corpus keeps its meaning (default: %(default)s)"
    option("--strip-accents", choices=("auto", "true", "false"), default="auto", help=accents)
    option("--min-frequency", type=int, default=2, help="rarer tokens are left out (default: %(default)s)")
    longest = "longer words become [UNK]; scripts without spaces take 1000, say, or --kind characters (default: %(default)s)"
    option("--max-word-length", type=int, default=100, metavar="CHARACTERS", help=longest)
    _add_encoding_errors(vocabulary)

    prepare = add(
        "prepare",
        _prepare,
        "make the vocabulary and the records of a training run ahead of it",
        "--config=configs/pretrain_folder.py --workdir=runs/mine --config.corpus.source=corpus/",
    )
    prepare.set_defaults(takes_config=True)
    prepare.add_argument("--config", required=True, help="the configuration of the run; --config.a.b=value changes a value")
    prepare.add_argument("--workdir", required=True, type=anywhere, help="that of the run")
    prepare.add_argument(
        "--beam",
        nargs="?",
        const="--runner=FnApiRunner",
        metavar="OPTIONS",
        help="on Apache Beam, for a corpus beyond one machine: --beam='--runner=DataflowRunner --project=...' (default: this process)",
    )

    plan = add(
        "compile",
        _compile,
        "compile a pre-training step for TPUs that need not be here: whether it fits, and what it costs",
        "--config=configs/pretrain_base_en.py --topology=v5e:4x4",
        "--config=configs/pretrain_large_en.py --topology=v5p:4x4x4 --config.mesh.fsdp=8 --json plan.json",
    )
    plan.set_defaults(takes_config=True)
    plan.add_argument("--config", required=True, help="the configuration of the run; --config.a.b=value changes a value")
    plan.add_argument("--topology", required=True, metavar="KIND:SHAPE", help="v4:4x4x4, v5e:16x16, v5p:4x4x4 or v6e:16x16, say")
    plan.add_argument("--quick", action="store_true", help="in a quarter of the time: sizes and times come out a few percent too high")
    plan.add_argument("--json", type=disk, metavar="FILE", help="write the plan to this file too")

    command = add(
        "verify",
        _verify,
        "tell whether checkpoints, models, vocabularies and records are what was written",
        "runs/demo",
        "runs/demo/pretrain",
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="that of a run, or the directory of a model")

    inspect = add(
        "inspect", _inspect, "look at a corpus before training on it", "corpus/ --vocab vocab", "train.tsv --evaluation-file test.tsv"
    )
    inspect.add_argument(
        "corpus",
        metavar="CORPUS",
        help=f"{_CORPUS}; or a labelled .tsv, .csv or .jsonl file; or the skipped.json of a run that stopped, to see its batches",
    )
    inspect.add_argument("--vocab", type=anywhere, help="a vocabulary, for counts in tokens; without one in characters")
    inspect.add_argument("--length", type=int, default=128, help="row length of the training (default: %(default)s)")
    inspect.add_argument("--batch-size", type=int, default=256, help="rows in a step of the training (default: %(default)s)")
    inspect.add_argument("--evaluation-file", type=disk, action="append", default=[], help="look for its texts in the corpus (repeatable)")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    _add_encoding_errors(inspect)


def _add_encoding_errors(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--encoding-errors", choices=("strict", "replace"), default="strict", help="bytes that are not UTF-8 (default: %(default)s)"
    )


def _add_conversion_commands(add: Add) -> None:
    command = add(
        "import",
        _import,
        "make a model directory of a BERT from elsewhere",
        "google-bert/bert-base-chinese runs/bert-base-chinese",
        "downloads/bert-base-chinese runs/bert-base-chinese",
    )
    command.add_argument(
        "source", metavar="SOURCE", help="a Hugging Face directory, a name on its hub, or a directory with Google's TensorFlow checkpoint"
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="the new directory")
    command.add_argument("--initialize-missing", action="store_true", help="start heads that SOURCE lacks from random numbers")
    command = add(
        "export",
        _export,
        "make a Hugging Face directory, or an ONNX file, of a trained model",
        "runs/demo/pretrain exported --license apache-2.0",
        "runs/demo/finetune classifier.onnx",
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="the directory of a trained stage, or of an imported model")
    command.add_argument("out", metavar="OUT", type=disk, help="the new directory, or a new file NAME.onnx")
    command.add_argument(
        "--architecture", default="", metavar="CLASS", help="write the heads of this class of transformers alone, such as BertForMaskedLM"
    )
    command.add_argument("--license", default="", metavar="NAME", help="for the model card, such as apache-2.0 or cc-by-sa-4.0")


def _add_model_commands(add: Add) -> None:
    run = "runs/demo"
    fill = add(
        "fill-mask",
        _on_model("fill_mask"),
        "fill the blanks of texts",
        f"{run}/pretrain '这家酒店的服务很[MASK]。'",
        f"{run}/pretrain texts.txt --words 好,差 --output filled.jsonl",
    )
    fill.add_argument("--top-k", type=int, default=5, help="predictions for each [MASK] (default: %(default)s)")
    fill.add_argument("--words", type=_words, metavar="WORD,WORD,...", help="predict none but these (default: the whole vocabulary)")
    follows = add(
        "next-sentence",
        _on_model("next_sentence"),
        "tell whether a sentence follows another",
        f"{run}/pretrain '他打开门。' '屋里没有人。'",
        f"{run}/pretrain pairs.tsv --text a --text-pair b",
    )
    embed = add(
        "embed",
        _on_model("embed"),
        "turn texts into vectors",
        f"{run}/pretrain '房间很干净' '房间很整洁'",
        f"{run}/pretrain texts.txt --output vectors.npy",
    )
    embed.add_argument(
        "--pooling",
        metavar="MODE[+MODE]",
        help="a text's vector from those of its tokens: mean, cls, max, mean_sqrt_len_tokens, weightedmean, lasttoken, or several joined "
        "by + (default: the model's own)",
    )
    embed.add_argument("--layer", type=int, metavar="N", help="the layer they are from; -1 is the last (default: -1)")
    embed.add_argument("--normalize", action="store_const", const=True, help="scale vectors to length 1 (default: the model's own)")
    embed.add_argument("--prompt", metavar="TEXT", help="a text to put before each text, such as 'query: '; '' for none")
    embed.add_argument("--prompt-name", metavar="NAME", help="one of the model's prompts, instead (default: the model's own)")
    classify = add(
        "classify",
        _on_model("classify"),
        "classify texts",
        f"{run}/finetune '房间很干净' '再也不来了'",
        f"{run}/finetune reviews.tsv --text text --output classified.jsonl",
    )
    score = add(
        "score",
        _on_model("score"),
        "tell how likely texts are",
        f"{run}/pretrain '房间很干净' '房间很干静'",
        f"{run}/pretrain texts.txt --output scores.jsonl",
    )
    for command in (fill, follows, embed, classify, score):
        _add_texts(command, of_pairs=command is follows, vectors=command is embed)
    follows.add_argument("--text-pair", default="text_pair", metavar="COLUMN", help="that with the second sentence (default: %(default)s)")
    classify.add_argument("--text-pair", metavar="COLUMN", help="that with the second text, for a classifier of pairs")


def _add_texts(command: argparse.ArgumentParser, of_pairs: bool, vectors: bool) -> None:
    tables = ".tsv, .csv or .jsonl (by column names)"
    kinds = tables if of_pairs else f".txt (a text a line), {tables}"
    metavar, what = ("SENTENCE", "two, A and B") if of_pairs else ("TEXT", "one or several")
    command.add_argument("model", metavar="MODEL", type=anywhere, help="the directory of a trained stage")
    command.add_argument("texts", nargs="*", metavar=metavar, help=f"{what}; or one file of them: {kinds}, also .gz and .xz")
    lines = "" if of_pairs else "; of another ending it has a text a line"
    command.add_argument("--input", type=disk, metavar="FILE", help=f"the same file, whatever its name{lines}")
    command.add_argument("--text", default="text", metavar="COLUMN", help="the column of the file with the text (default: %(default)s)")
    command.add_argument(
        "--output",
        type=disk,
        metavar="FILE",
        help=f"write to this .jsonl{' or .npy' * vectors} file instead of the terminal; the same command goes on with an unfinished one",
    )
    command.add_argument("--json", action="store_true", help="print JSON, a line for each text")


def _say(text: str) -> None:
    """Prints with paths as they were typed."""
    print(as_typed(text))


def _words(text: str) -> list[str]:
    words = [word for word in re.split("[,，]", text) if word]
    if not words:
        raise argparse.ArgumentTypeError("it names no word, as 好,差 would")
    return words


def _on_model(name: str) -> Callable[[argparse.Namespace], None]:
    def run(flags: argparse.Namespace) -> None:
        from bert_jax import predict

        getattr(predict, name)(flags)

    return run


def _import(flags: argparse.Namespace) -> None:
    from bert_jax.convert.imports import import_model, summary

    _say(f"{summary(import_model(flags.source, flags.workdir, flags.initialize_missing))}\n{flags.workdir} is ready")


def _export(flags: argparse.Namespace) -> None:
    if flags.out.suffix == ".onnx":
        from bert_jax.convert.onnx import export_model_to_onnx

        export_model_to_onnx(flags.workdir, flags.out)
        _say(f"{flags.out} is an ONNX graph")
        return
    from bert_jax.convert.exports import export_model

    _say(f"{flags.out} holds a {export_model(flags.workdir, flags.out, flags.license, flags.architecture)} and its model card")


def _train_vocab(flags: argparse.Namespace) -> None:
    from bert_jax.config import CorpusConfig, VocabularyConfig
    from bert_jax.data.sources import open_source
    from bert_jax.tokenizer import Tokenizer

    if flags.out.exists() and (not flags.out.is_dir() or any(flags.out.iterdir())):
        raise InputError(f"{flags.out} exists already, and a model may depend on the vocabulary in it: name another directory.")
    check_directory(flags.out)  # before the corpus is read, which may take long
    vocabulary = VocabularyConfig(
        kind=flags.kind, size=flags.size, min_frequency=flags.min_frequency, casing=flags.casing,
        strip_accents=flags.strip_accents, max_word_length=flags.max_word_length,
    )  # fmt: skip
    corpus = CorpusConfig(source=flags.corpus, encoding_errors=flags.encoding_errors)
    paragraphs = (paragraph for document in open_source(corpus.source, corpus).documents() for paragraph in document)
    tokenizer = Tokenizer.train(paragraphs, vocabulary)
    tokenizer.save(flags.out)
    _say(f"{tokenizer.vocab_size:,} tokens in {flags.out}")


def _prepare(flags: argparse.Namespace) -> None:
    from bert_jax.files import only_writer
    from bert_jax.overrides import apply_overrides, load_config
    from bert_jax.stages.run import prepare_data

    config = apply_overrides(load_config(flags.config), flags.overrides)
    with only_writer(flags.workdir):
        tokenizer, prepared = prepare_data(config, flags.workdir, beam=shlex.split(flags.beam) if flags.beam else None)
    _say(f"{prepared.path}\n\n{_columns(prepared.info)}\nvocabulary  {tokenizer.vocab_size:,} tokens")


def _compile(flags: argparse.Namespace) -> None:
    from bert_jax.model_directory import write_json
    from bert_jax.overrides import apply_overrides, load_config
    from bert_jax.stages.plan import plan_launch

    if flags.json and not flags.json.parent.is_dir():
        raise InputError(f"--json {flags.json} cannot be written: there is no directory {flags.json.parent}.")
    plan = plan_launch(apply_overrides(load_config(flags.config), flags.overrides), flags.topology, flags.quick)
    if flags.json:
        write_json(flags.json, plan.to_dict())
    print(plan)


def _columns(info: Mapping[str, Any]) -> str:
    """The counts of each split beside each other, and what is of neither below."""
    splits = {name: value for name, value in info.items() if isinstance(value, Mapping)}
    lines = [("", *splits)]
    lines += [(name.replace("_", " "), *(f"{split[name]:,}" for split in splits.values())) for name in next(iter(splits.values()), {})]
    first = max(len(line[0]) for line in lines)
    others = max(len(cell) for line in lines for cell in line[1:])
    table = [f"{line[0]:{first}}" + "".join(f"  {cell:>{others}}" for cell in line[1:]) for line in lines]
    return "\n".join(table + [f"{name.replace('_', ' ')}  {value}" for name, value in info.items() if name not in splits])


def _verify(flags: argparse.Namespace) -> None:
    from bert_jax.verify import verify

    found, files = verify(flags.workdir)
    for fault in found:
        _say(fault)
    if found:
        raise InputError(f"{flags.workdir} is damaged: {len(found):,} fault{'s' * (len(found) > 1)}, {files:,} files are whole.")
    _say(f"{flags.workdir} is whole: {files:,} files are what was written.")


def _inspect(flags: argparse.Namespace) -> None:
    if flags.corpus.rpartition("/")[2] == "skipped.json":
        from bert_jax.stages.skipped import describe_skipped

        for line in describe_skipped(place(flags.corpus)):
            print(line)
        return
    from bert_jax.config import CorpusConfig, RowsConfig
    from bert_jax.data.inspection import inspect
    from bert_jax.tokenizer import Tokenizer

    corpus = CorpusConfig(source=flags.corpus, encoding_errors=flags.encoding_errors)
    tokenizer = Tokenizer.load(flags.vocab) if flags.vocab else None
    inspection = inspect(corpus, RowsConfig(length=flags.length), flags.batch_size, tokenizer, flags.evaluation_file)
    print(json.dumps(inspection.to_dict(), ensure_ascii=False) if flags.json else inspection)
