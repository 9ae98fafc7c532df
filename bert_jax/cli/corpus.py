"""The commands that look at a corpus and prepare it: train-vocab, prepare, inspect."""

import argparse
import json
import shlex
from collections.abc import Mapping
from typing import Any

from bert_jax.cli.arguments import Add, anywhere, disk, say
from bert_jax.errors import InputError
from bert_jax.storage.files import check_directory, resolve_path

_CORPUS = "demo, tfds:NAME, or a file, folder or glob of .txt, .txt.gz, .txt.xz: a paragraph a line, a blank line between documents"


def add_corpus_commands(add: Add) -> None:
    """Adds train-vocab, prepare and inspect."""
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


def _train_vocab(flags: argparse.Namespace) -> None:
    from bert_jax.config import CorpusConfig, VocabularyConfig
    from bert_jax.modalities.text.sources import open_source
    from bert_jax.modalities.text.tokenizer import Tokenizer

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
    say(f"{tokenizer.vocab_size:,} tokens in {flags.out}")


def _prepare(flags: argparse.Namespace) -> None:
    from bert_jax.modalities import find
    from bert_jax.stages.run import prepare_data
    from bert_jax.storage.files import only_writer
    from bert_jax.tasks import configured

    config = configured(flags.config, flags.overrides)
    with only_writer(flags.workdir):
        beam = shlex.split(flags.beam) if flags.beam else None
        reader, prepared = prepare_data(config, flags.workdir, find(config.corpus.modality), beam)
    say(f"{prepared.path}\n\n{_columns(prepared.info)}\nvocabulary  {reader.vocab_size:,} tokens")


def _columns(info: Mapping[str, Any]) -> str:
    """The counts of each split beside each other, and what is of neither below."""
    splits = {name: value for name, value in info.items() if isinstance(value, Mapping)}
    lines = [("", *splits)]
    lines += [(name.replace("_", " "), *(f"{split[name]:,}" for split in splits.values())) for name in next(iter(splits.values()), {})]
    first = max(len(line[0]) for line in lines)
    others = max(len(cell) for line in lines for cell in line[1:])
    table = [f"{line[0]:{first}}" + "".join(f"  {cell:>{others}}" for cell in line[1:]) for line in lines]
    return "\n".join(table + [f"{name.replace('_', ' ')}  {value}" for name, value in info.items() if name not in splits])


def _inspect(flags: argparse.Namespace) -> None:
    if flags.corpus.rpartition("/")[2] == "skipped.json":
        from bert_jax.stages.skipped import describe_skipped

        for line in describe_skipped(resolve_path(flags.corpus)):
            print(line)
        return
    from bert_jax.config import CorpusConfig, RowsConfig
    from bert_jax.modalities.text.inspection import inspect
    from bert_jax.modalities.text.tokenizer import Tokenizer

    corpus = CorpusConfig(source=flags.corpus, encoding_errors=flags.encoding_errors)
    tokenizer = Tokenizer.load(flags.vocab) if flags.vocab else None
    inspection = inspect(corpus, RowsConfig(length=flags.length), flags.batch_size, tokenizer, flags.evaluation_file)
    print(json.dumps(inspection.to_dict(), ensure_ascii=False) if flags.json else inspection)
