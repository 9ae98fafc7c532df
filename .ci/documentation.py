"""Run the documentation: every shell and Python block of README.md, docs/*.md, SECURITY.md and CONTRIBUTING.md, in order.

    python .ci/documentation.py            # in the root of a clone, in an environment that contains only pip

The blocks run in the clone's own directory, with the paths that they name. Training is shortened by a few overrides appended to the
command; nothing else is changed. Shell blocks run in bash; the Python blocks of a page share one session. A block that cannot run here is
preceded by `<!-- not run: REASON -->`, with one of the reasons below; a block without a language is an error. After the pages come the
examples in the --help of each command.

The files that a reader is expected to have (corpus/, reviews.tsv, ...) are first created from the demo's text.
"""

import argparse
import itertools
import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]

REASONS = {
    "network": "downloads more than packages",
    "accelerator": "needs a GPU, a TPU or the TPU compiler",
    "cluster": "needs several machines",
    "own data": "needs files that are not in the repository",
    "hours": "takes hours",
    "tests": ".ci/run runs it itself",
    "service": "needs a running server; tests/test_serving.py runs it",
    "contributors": "needs a Git checkout, or packages that .ci/run installs later",
}
SHORTENED = {
    "demo": "pretrain.steps=60 pretrain.evaluation_batches=4 pretrain.loop.evaluate_every=30 pretrain.loop.save_every=30 finetune.epochs=1",
    "pretrain_folder": "pretrain.steps=20 pretrain.loop.evaluate_every=10 pretrain.loop.save_every=10",
    "finetune_tsv": "finetune.epochs=1",
    "finetune_pairs": "finetune.epochs=1",
    "finetune_multilabel": "finetune.epochs=1",
    "finetune_regress": "finetune.epochs=1",
    "finetune_answer": "finetune.epochs=1",
    "finetune_embed": "finetune.epochs=1",
    "finetune_tag": "finetune.epochs=1",
    "demo_images": "pretrain.steps=20 pretrain.evaluation_batches=2 pretrain.loop.evaluate_every=20 pretrain.loop.save_every=20 "
    "finetune.epochs=1 finetune.compare_from_scratch=false",
    "demo_audio": "pretrain.steps=20 pretrain.evaluation_batches=2 pretrain.loop.evaluate_every=20 pretrain.loop.save_every=20 "
    "finetune.epochs=1 finetune.compare_from_scratch=false",
    "pretrain_images": "pretrain.steps=4 pretrain.loop.evaluate_every=4 pretrain.loop.save_every=4 vocabulary.size=64",
    "pretrain_audio": "pretrain.steps=4 pretrain.loop.evaluate_every=4 pretrain.loop.save_every=4 vocabulary.size=64",
    "finetune_images": "finetune.epochs=1",
    "finetune_audio": "finetune.epochs=1",
}
SHORTENED_ADAPTATION = "adapt.steps=5 adapt.evaluation_batches=1"

_BLOCK = re.compile(r"(?P<before>[^\n]*)\n(?:[ ]*\n)?(?P<indent> *)```(?P<language>[^\n]*)\n(?P<code>.*?)\n *```", re.DOTALL)
_MARK = re.compile(r"<!-- not run: (?P<reason>[^>]*?) -->")

Example = tuple[str, str]
"""The name of a command and an example in its --help."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its location, language and text, and the reason why it is not run (empty if it is run)."""

    page: str
    line: int
    language: str
    code: str
    skipped: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page.

    Raises:
        ValueError: a block has no known language, or is not run for an unknown reason.
    """
    text = "\n" + page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language"))
        mark = _MARK.fullmatch(found["before"].strip())
        block = Block(page.name, line, found["language"].strip(), found["code"], mark["reason"] if mark else "")
        if block.language not in ("bash", "python", "text"):
            raise ValueError(f"{page.name}:{line}: the block is neither bash nor python nor text but {block.language!r}.")
        if mark and block.skipped not in REASONS:
            raise ValueError(f"{page.name}:{line}: {block.skipped!r} is not a known reason; use one of: {', '.join(REASONS)}.")
        yield block


def pages() -> list[Path]:
    """The pages, in reading order."""
    first = [ROOT / "docs" / f"{name}.md" for name in ("tour", "tasks", "media", "models", "launch")]
    last = [ROOT / f"{name}.md" for name in ("SECURITY", "CONTRIBUTING")]
    return [ROOT / "README.md", *first, *sorted({*(ROOT / "docs").glob("*.md")} - {*first}), *last]


def make_readers_files() -> None:
    """Create the files that a reader is expected to have, in the clone's directory."""
    from bert_jax.modalities.text import demo

    documents = ["\n".join(paragraphs) for paragraphs, _ in zip(demo.documents("newspaper"), range(300), strict=False)]
    texts, labels = demo.labelled_reviews()["train"]
    rows = [f"{text}\t{'positive' if label else 'negative'}" for text, label in zip(texts[:400], labels, strict=False)]
    files = {
        "corpus/a.txt": "\n\n".join(documents[:150]),
        "corpus/more/b.txt": "\n\n".join(documents[150:]),
        "reviews.tsv": "\n".join(["text\tlabel", *rows]),
        "train.tsv": "\n".join(["text\tlabel", *rows[:90]]),
        "test.tsv": "\n".join(["text\tlabel", *rows[80:120]]),
        "texts.txt": "\n".join(["房间很[MASK]。", "服务[MASK]好。"]),
        "mentions.tsv": "\n".join(["text\tlabels", *mentions(texts[:400])]),
        "names.conll": "\n\n".join(people(text[:60] for text in texts[:200])),
        "words.jsonl": "\n".join(json.dumps({"words": [*text[:60]]}, ensure_ascii=False) for text in texts[:2]),
        "judged.tsv": "\n".join(["a\tb\tlabel", *judged(texts[:200])]),
        "similar.tsv": "\n".join(["a\tb\tscore", *similar(texts[:200])]),
        "questions.json": json.dumps(squad(rows_of_questions := [*questions(texts[:400])]), ensure_ascii=False),
        "questions.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows_of_questions),
        "related.tsv": "\n".join(["question\tanswer", *(f"{text[:15]}\t{text[10:30]}" for text in texts[:200] if len(text) > 30)]),
        "pairs.tsv": "a\tb\n他打开门。\t屋里没有人。",
    }
    for name, text in files.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text + "\n", encoding="utf-8")
    make_readers_media()
    export = [sys.executable, "-m", "bert_jax", "export", "runs/demo/pretrain", "downloads/bert-base-chinese"]
    subprocess.run(export, cwd=ROOT, check=True)


def judged(texts: Sequence[str]) -> Iterator[str]:
    """Pairs of the parts of a text, and of parts of two texts."""
    for text, other in itertools.pairwise(texts):
        if len(text) > 30 and len(other) > 30:
            yield f"{text[:15]}\t{text[15:30]}\tsame"
            yield f"{text[:15]}\t{other[15:30]}\tother"


def people(texts: Iterable[str]) -> Iterator[str]:
    """Texts as characters with tags; those for staff are entities."""
    for text in texts:
        tags = ["O"] * len(text)
        for word in ("服务员", "前台", "老板", "客人"):
            for start in (index for index in range(len(text)) if text.startswith(word, index)):
                tags[start : start + len(word)] = ["B-PER", *["I-PER"] * (len(word) - 1)]
        yield "\n".join(f"{character}\t{tag}" for character, tag in zip(text, tags, strict=True) if character.strip())


def mentions(texts: Iterable[str]) -> Iterator[str]:
    """Rows of texts with what they mention."""
    marks = {"房": "room", "服务": "service", "早餐": "breakfast", "不": "negated"}
    for text in texts:
        if found := ",".join(label for mark, label in marks.items() if mark in text):
            yield f"{text}\t{found}"


def questions(texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Questions about reviews; the answers are the clauses that say it, or there is none."""
    for number, text in enumerate(texts):
        for word in ("房间", "服务", "早餐"):
            found = re.search(f"[\\w]*{word}[\\w]*", text)
            if found or number % 10 == 0:
                answers = [{"text": found[0], "start": found.start()}] if found else []
                yield {"question": f"{word}怎么样？", "passage": text, "answers": answers}


def squad(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The same in the layout of SQuAD, with a question about each passage."""
    paragraphs = []
    for number, row in enumerate(rows):
        answers = [{"text": answer["text"], "answer_start": answer["start"]} for answer in row["answers"]]
        paragraphs.append({"context": row["passage"], "qas": [{"id": str(number), "question": row["question"], "answers": answers}]})
    return {"version": "1.1", "data": [{"title": "reviews", "paragraphs": paragraphs}]}


def similar(texts: Sequence[str]) -> Iterator[str]:
    """Rows of pairs of texts with the share of characters that they have in common, from 0 to 5."""
    for text, other in itertools.pairwise(text for text in texts if len(text) > 25):
        for a, b in ((text[:20], other[:20]), (text[:20], text[5:25])):
            yield f"{a}\t{b}\t{5 * len({*a} & {*b}) / len({*a} | {*b}):.2f}"


def make_readers_media() -> None:
    """Create images and recordings with the standard library alone; the page that uses them installs what reads them."""
    import base64
    import struct
    import wave

    from bert_jax.modalities.image.demo import digits
    from bert_jax.modalities.media.png import data_uri

    for index, (_, pixels, label) in enumerate(digits()[:120]):
        png = base64.b64decode(data_uri(pixels[:, :, None].repeat(3, 2), scale=5).partition(",")[2])
        for path in (ROOT / "photos" / f"{index}.png", ROOT / "labeled_photos" / "ab"[int(label) % 2] / f"{index}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
    rng = random.Random(0)
    for index in range(60):
        period, count = 40 + 40 * (index % 2), rng.randint(8_000, 30_000)
        samples = [int(9_000 * math.sin(2 * math.pi * i / period) + rng.gauss(0, 500)) for i in range(count)]
        for path in (ROOT / "recordings" / f"{index}.wav", ROOT / "labeled_recordings" / "ab"[index % 2] / f"{index}.wav"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 16_000, count, "NONE", ""))
                file.writeframes(struct.pack(f"<{count}h", *samples))
    clips = "".join(f"recordings/{index}.wav,{'ab'[index % 2]}\n" for index in range(60))
    (ROOT / "clips.csv").write_text(f"path,speaker\n{clips}", encoding="utf-8")


def run_shell(code: str, output: TextIO | None = None) -> int:
    """The exit status of a block run in bash, with a `python` that appends the overrides that shorten training.

    What it prints goes to `output`, or to the terminal.
    """
    cases = "\n".join(
        f'*" --config=configs/{name}.py "*) set -- "$@" {" ".join(f"--config.{value}" for value in values.split())} ;;'
        for name, values in SHORTENED.items()
    )
    shorten = f"""python() {{
        case " $* " in *" train.py "* | *" bert_jax train "*)
            case " $* " in {cases}
            esac
            case " $* " in *" --config.adapt."*) set -- "$@" {" ".join(f"--config.{value}" for value in SHORTENED_ADAPTATION.split())} ;;
            esac ;;
        esac
        # In the background, the shell's own process becomes the program, so that kill ends it.
        [ "$BASH_SUBSHELL" = 0 ] || exec python "$@"
        command python "$@"
    }}"""
    bash = ["bash", "-euo", "pipefail", "-c", f"{shorten}\n{code}"]
    errors = subprocess.STDOUT if output else None
    return subprocess.run(bash, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=errors).returncode


def run_server(code: str) -> int:
    """The exit status of a server that is stopped as soon as it serves."""
    arguments = shlex.split(code.replace("python ", f"{sys.executable} ", 1))
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        for line in server.stdout:
            print(line, end="", flush=True)
            if line.startswith("serving at"):
                server.terminate()
        return server.wait()


def help_examples() -> Iterator[Example]:
    """The name of each command and the examples in its --help."""
    from bert_jax.cli.program import _parser

    for action in _parser()._subparsers._group_actions:  # type: ignore[union-attr]
        for name, command in action.choices.items():  # type: ignore[union-attr]
            for line in (command.epilog or "").splitlines():
                if line.strip().startswith("python -m bert_jax"):
                    yield name, line.strip()


# --help examples that cannot run here: a part of the command, and the reason.
_EXAMPLES_NOT_RUN = {"google-bert/": "network", "--topology": "accelerator", ".onnx": "own data"}


def main() -> int:
    """Run everything; the exit status is 1 if a block fails, and then no further block runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the blocks without running them")
    flags = parser.parse_args()
    found = [block for page in pages() for block in blocks(page)]
    ran, skipped, begun = 0, [block for block in found if block.skipped], time.monotonic()
    os.chdir(ROOT)
    sys.path[0] = ""  # as for a Python session in the clone's directory
    names: dict[str, dict[str, object]] = {}
    for block in found:
        where = f"{block.page}:{block.line}"
        if block.language == "text" or block.skipped or flags.list:
            if block.language != "text":
                print(f"-- {where} {block.language} {f'not run: {block.skipped}' if block.skipped else ''}", flush=True)
            continue
        print(f"\n-- {where} (at {time.monotonic() - begun:.0f} s)\n{block.code}\n", flush=True)
        ran += 1
        if block.language == "python":
            exec(compile(block.code, where, "exec"), names.setdefault(block.page, {"__name__": "__main__"}))  # noqa: S102
        elif status := run_shell(block.code):
            print(f"FAILED: {where} exited with status {status}", file=sys.stderr)
            return 1
        if "--config=configs/demo.py --workdir=runs/demo" in block.code and not (ROOT / "reviews.tsv").exists():
            make_readers_files()
    if not flags.list:
        ran += run_help_examples()
    print(f"\n{ran} blocks and examples ran, {len(skipped)} blocks were not run, in {time.monotonic() - begun:.0f} s")
    for reason in REASONS:
        if those := [f"{block.page}:{block.line}" for block in skipped if block.skipped == reason]:
            print(f"not run, {reason} ({REASONS[reason]}): {', '.join(those)}")
    return 0


def run_help_examples() -> int:
    """Run the --help examples; return how many ran.

    What the others use is made first, and servers come last, one after another; the others run side by side.

    Raises:
        SystemExit: an example failed.
    """
    first: list[Example] = []
    side_by_side: list[Example] = []
    servers: list[Example] = []
    for name, line in help_examples():
        if reason := next((reason for part, reason in _EXAMPLES_NOT_RUN.items() if part in line), ""):
            print(f"-- {name} --help: not run, {reason}: {line}", flush=True)
        else:
            group = first if name in ("train", "train-vocab") else servers if name in ("serve", "explore") else side_by_side
            group.append((name, line))
    for example in first:
        report(example, run_shell(example[1]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for example, ended in zip(side_by_side, pool.map(run_captured, side_by_side), strict=True):
            report(example, *ended)
    for example in servers:
        report(example, run_server(example[1]))
    return len(first) + len(side_by_side) + len(servers)


def run_captured(example: Example) -> tuple[int, str]:
    """The exit status and the output of an example."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        status = run_shell(example[1], output)
        output.seek(0)
        return status, output.read()


def report(example: Example, status: int, output: str = "") -> None:
    """Print an example and its output, and end if it failed."""
    name, line = example
    print(f"\n-- {name} --help: {line}\n{output}", flush=True)
    if status:
        sys.exit(f"FAILED: the example in {name} --help exited with status {status}: {line}")


if __name__ == "__main__":
    sys.exit(main())
