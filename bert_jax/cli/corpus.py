"""The commands that inspect and prepare a corpus: `train-vocab`, `prepare` and `inspect`."""

import argparse
import json
import shlex
from collections.abc import Mapping
from typing import Any

from bert_jax.cli.arguments import Add, anywhere, disk, say
from bert_jax.errors import InputError
from bert_jax.storage.files import check_directory, resolve_path

_CORPUS = (
    "demo; a file, folder or glob of .txt, .txt.gz, .txt.xz (one paragraph per line, a blank line between documents); or a data set: "
    "tfds:NAME, hf:OWNER/NAME, a folder written by save_to_disk, or .parquet files"
)

_KINDS = ("wordpiece", "characters", "words", "bytes")
_CASING = "uncased lowercases the text; auto: uncased, except for bytes (default: %(default)s)"


def add_corpus_commands(add: Add) -> None:
    """Add `train-vocab`, `prepare` and `inspect`."""
    vocabulary = add(
        "train-vocab", _train_vocab, "train a vocabulary on a corpus of text", "corpus/ vocab --size 21128",
        "demo characters --kind characters", more="The codebook of images or audio is learned by `prepare` or `train`.",
    )  # fmt: skip
    vocabulary.add_argument("corpus", metavar="CORPUS", help=_CORPUS)
    vocabulary.add_argument("out", metavar="OUT", type=anywhere, help="the directory to write tokenizer.json and vocab.txt to")
    vocabulary.add_argument("--size", type=int, default=30_522, help="number of tokens, including special tokens (default: %(default)s)")
    vocabulary.add_argument("--kind", choices=_KINDS, default="wordpiece", help="what a token is (default: %(default)s)")
    option = vocabulary.add_argument
    option("--casing", choices=("auto", "uncased", "cased"), default="auto", help=_CASING)
    accents = "replace é with e; auto: if uncased, unless the corpus would lose meaning, and never for bytes (default: %(default)s)"
    option("--strip-accents", choices=("auto", "true", "false"), default="auto", help=accents)
    option("--min-frequency", type=int, default=2, help="omit tokens that occur less often (default: %(default)s)")
    longest = "longer words become [UNK]; for scripts without spaces, try 1000, or --kind characters or bytes (default: %(default)s)"
    option("--max-word-length", type=int, default=100, metavar="CHARACTERS", help=longest)
    _add_encoding_errors(vocabulary)

    prepare = add(
        "prepare",
        _prepare,
        "build the vocabulary and records of a training run in advance",
        "--config=configs/pretrain_folder.py --workdir=runs/mine --config.corpus.source=corpus/",
        more="The corpus is text, images or audio, as the configuration says; the vocabulary of images and audio is a codebook.",
    )
    prepare.set_defaults(takes_config=True)
    prepare.add_argument("--config", required=True, help="the run's configuration file; override a value with --config.a.b=value")
    prepare.add_argument("--workdir", required=True, type=anywhere, help="the run's workdir")
    prepare.add_argument(
        "--beam",
        nargs="?",
        const="--runner=FnApiRunner",
        metavar="OPTIONS",
        help="use Apache Beam, for a corpus too large for one machine: --beam='--runner=DataflowRunner --project=...' "
        "(default: this process)",
    )

    inspect = add(
        "inspect", _inspect, "report corpus statistics before training", "corpus/ --vocab vocab", "train.tsv --evaluation-file test.tsv",
        "photos/ --evaluation-file labeled_photos/", "clips.csv --modality audio --text path --label speaker",
        more="For images and audio, the report counts unreadable files, classes (the folders, or --label), copies of the same content, and "
        "units (those of the codebook in --vocab, otherwise those of the default options).",
    )  # fmt: skip
    inspect.add_argument(
        "corpus",
        metavar="CORPUS",
        help=f"{_CORPUS}; a file, folder or glob of images or recordings; or a labeled .tsv, .csv or .jsonl file; "
        "or the skipped.json of a stopped run, to show the skipped batches",
    )
    inspect.add_argument("--modality", help="text, image or audio (default: by the files' suffixes; text for tables, data sets and demo)")
    inspect.add_argument("--text", default="", metavar="COLUMN", help="the column of paths in a table of images or audio (default: text)")
    inspect.add_argument("--label", default="", metavar="COLUMN", help="count the classes in this column of a table or data set")
    vocabulary_help = "the vocabulary used to count tokens, or the codebook used to count units (default: count characters)"
    inspect.add_argument("--vocab", type=anywhere, help=vocabulary_help)
    inspect.add_argument("--length", type=int, default=128, help="row length in training (default: %(default)s)")
    inspect.add_argument("--batch-size", type=int, default=256, help="rows per training step (default: %(default)s)")
    overlap = "report which of this file's texts, or of this folder's or table's images or recordings, the corpus contains (repeatable)"
    inspect.add_argument("--evaluation-file", type=disk, action="append", default=[], help=overlap)
    inspect.add_argument("--json", action="store_true", help="print JSON")
    _add_encoding_errors(inspect)


def _add_encoding_errors(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--encoding-errors", choices=("strict", "replace"), default="strict", help="how to handle invalid UTF-8 (default: %(default)s)"
    )


def _train_vocab(flags: argparse.Namespace) -> None:
    from bert_jax.config import CorpusConfig, VocabularyConfig
    from bert_jax.modalities.text.sources import open_source
    from bert_jax.modalities.text.tokenizer import Tokenizer

    if flags.out.exists() and (not flags.out.is_dir() or any(flags.out.iterdir())):
        raise InputError(f"{flags.out} already exists, and a model may depend on the vocabulary in it. Name another directory.")
    check_directory(flags.out)  # before reading the corpus, which may take long
    vocabulary = VocabularyConfig(
        kind=flags.kind, size=flags.size, min_frequency=flags.min_frequency, casing=flags.casing,
        strip_accents=flags.strip_accents, max_word_length=flags.max_word_length,
    )  # fmt: skip
    corpus = CorpusConfig(source=flags.corpus, encoding_errors=flags.encoding_errors)
    paragraphs = (paragraph for document in open_source(corpus.source, corpus).documents() for paragraph in document)
    tokenizer = Tokenizer.train(paragraphs, vocabulary)
    tokenizer.save(flags.out)
    say(f"Wrote a vocabulary of {tokenizer.vocab_size:,} tokens to {flags.out}")


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
    """Format the counts of the splits side by side, followed by the values that belong to no split."""
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
    from bert_jax.config import RowsConfig
    from bert_jax.modalities import find, recognize
    from bert_jax.modalities.inspection import Asked
    from bert_jax.stages.advice import advice

    asked = Asked(
        flags.corpus, flags.vocab, RowsConfig(length=flags.length), flags.batch_size, flags.evaluation_file, flags.text, flags.label,
        flags.encoding_errors,
    )  # fmt: skip
    report = (find(flags.modality) if flags.modality else recognize(flags.corpus)).inspect(asked)
    values = report.to_dict()
    lines = advice(values.get("script", ""), values.get("visible_characters", 0))
    print(json.dumps(values | {"advice": lines}, ensure_ascii=False) if flags.json else "\n".join([str(report), *lines]))
