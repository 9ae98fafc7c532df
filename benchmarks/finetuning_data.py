"""Published data sets for fine-tuning -> tables with a header and tagged words, as finetuning.py reads them.

    python benchmarks/finetuning_data.py --published=DOWNLOADS --output=tasks

DOWNLOADS has the files as they are published, also packed as .xz, in any folders: SST-2 (sst2.train.tsv, sst2.dev.tsv), MRPC
(msr_paraphrase_train.txt, msr_paraphrase_test.txt), RTE (rte/train.tsv, rte/dev.tsv), the STS benchmark (sts-train.csv, sts-dev.csv,
sts-test.csv), GoEmotions (goemotions/train.tsv, dev.tsv, test.tsv, emotions.txt), WNUT-17 (wnut17.train.conll, wnut17.dev.conll,
wnut17.test.conll), a part of SQuAD 1.1 (squad1.1-train-part.json, and the first eight articles of squad1.1-dev.json), and in Chinese
ChnSentiCorp without the training texts that are in its dev or test set (chnsenticorp.train.clean.tsv, chnsenticorp.dev.tsv), OCNLI
(train.10k.json, ocnli/dev.json), the translated STS benchmark (cnsd-sts-train.txt, ...), CMRC 2018 (cmrc2018_trial.json,
cmrc2018_dev.json), DRCD (DRCD_dev.json, DRCD_test.json) and MSRA names (msra.train.txt, msra.test.txt). Sets of which a file is missing are
skipped.
"""

import argparse
import json
import lzma
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

Lines: TypeAlias = list[str]
Fields: TypeAlias = Iterator[tuple[str, ...]]


class Source(NamedTuple):
    """A data set: the published file of each split, the header of its tables, and how lines become rows.

    Without a header, files are copied as they are, with this extension; of SQuAD's only so many articles, all if 0.
    """

    files: dict[str, str]
    header: tuple[str, ...] = ()
    rows: Callable[[Lines], Fields] | None = None
    extension: str = ".conll"
    articles: int = 0


def sst2(lines: Lines) -> Fields:
    """Header sentence, label."""
    return ((text, {"0": "negative", "1": "positive"}[label]) for text, label in (line.split("\t") for line in lines[1:]))


def chnsenticorp(lines: Lines) -> Fields:
    """Header label, text_a."""
    return ((text, {"0": "negative", "1": "positive"}[label]) for label, text in (line.split("\t", 1) for line in lines[1:]))


def mrpc(lines: Lines) -> Fields:
    """Header Quality, #1 ID, #2 ID, #1 String, #2 String."""
    return ((a, b, {"0": "different", "1": "same"}[label]) for label, _, _, a, b in (line.split("\t") for line in lines[1:]))


def rte(lines: Lines) -> Fields:
    """Header index, sentence1, sentence2, label."""
    return ((a, b, label) for _, a, b, label in (line.split("\t") for line in lines[1:]))


def stsb(lines: Lines) -> Fields:
    """Genre, file, year, id, score, sentence1, sentence2; some lines have more fields."""
    return ((fields[5], fields[6], fields[4]) for fields in (line.split("\t") for line in lines))


def stsb_zh(lines: Lines) -> Fields:
    """Id, sentence1, sentence2, score, separated by two bars."""
    return ((a, b, score) for _, a, b, score in (line.split("||") for line in lines))


def ocnli(lines: Lines) -> Fields:
    """A JSON object per line; annotators did not agree on those with the label -."""
    rows = map(json.loads, lines)
    return ((row["sentence1"], row["sentence2"], row["label"]) for row in rows if row["label"] != "-")


def goemotions(lines: Lines) -> Fields:
    """Text, numbers of labels, id."""
    return ((text, labels) for text, labels, _ in (line.split("\t") for line in lines))


PAIR = ("text", "text_pair")
SOURCES = {
    "sst2": Source({"train": "sst2.train.tsv", "test": "sst2.dev.tsv"}, ("text", "label"), sst2),
    "mrpc": Source({"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt"}, (*PAIR, "label"), mrpc),
    "rte": Source({"train": "rte/train.tsv", "test": "rte/dev.tsv"}, (*PAIR, "label"), rte),
    "stsb": Source({"train": "sts-train.csv", "dev": "sts-dev.csv", "test": "sts-test.csv"}, (*PAIR, "score"), stsb),
    "goemotions": Source(
        {split: f"goemotions/{split}.tsv" for split in ("train", "dev", "test")}, ("text", "labels"), goemotions
    ),
    "wnut17": Source({split: f"wnut17.{split}.conll" for split in ("train", "dev", "test")}),
    "squad": Source({"train": "squad1.1-train-part.json", "test": "squad1.1-dev.json"}, extension=".json", articles=8),
    "chnsenticorp": Source(
        {"train": "chnsenticorp.train.clean.tsv", "test": "chnsenticorp.dev.tsv"}, ("text", "label"), chnsenticorp
    ),
    "ocnli": Source({"train": "train.10k.json", "test": "ocnli/dev.json"}, (*PAIR, "label"), ocnli),
    "stsb_zh": Source({split: f"cnsd-sts-{split}.txt" for split in ("train", "dev", "test")}, (*PAIR, "score"), stsb_zh),
    "cmrc": Source({"train": "cmrc2018_trial.json", "test": "cmrc2018_dev.json"}, extension=".json"),
    "drcd": Source({"train": "DRCD_dev.json", "test": "DRCD_test.json"}, extension=".json"),
    "msra": Source({split: f"msra.{split}.txt" for split in ("train", "test")}),
}


def main() -> None:
    """Convert what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path, required=True, help="a folder with the files as they are published")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write to, with a folder per set")
    flags = parser.parse_args()
    for name, source in SOURCES.items():
        found = {split: find(flags.published, file) for split, file in source.files.items()}
        if missing := [source.files[split] for split, path in found.items() if path is None]:
            print(f"{name} is skipped because {', '.join(missing)} is missing", file=sys.stderr)
            continue
        for split, path in found.items():
            assert path is not None
            convert(source, path, flags.output / name / split)
        print(f"{name}: {flags.output / name}")


def find(folder: Path, name: str) -> Path | None:
    """The file of this name, packed or not, anywhere below a folder."""
    return next(iter(sorted([*folder.rglob(name), *folder.rglob(f"{name}.xz")])), None)


def convert(source: Source, path: Path, output: Path) -> None:
    """Write a split as `output` with its extension."""
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    text = data.decode("utf-8-sig").replace("\r\n", "\n")
    output.parent.mkdir(parents=True, exist_ok=True)
    if source.articles:
        published = json.loads(text)
        text = json.dumps(published | {"data": published["data"][: source.articles]}, ensure_ascii=False)
    if source.rows is None:
        output.with_suffix(source.extension).write_text(text, encoding="utf-8")
        return
    rows = source.rows([line for line in text.split("\n") if line.strip()])
    lines = ["\t".join(source.header), *("\t".join(field.strip() for field in row) for row in rows)]
    output.with_suffix(".tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
