"""Fine-tuning on published data sets, side by side with the same encoder in transformers and torch, from scratch, and simple baselines.

    pip install -r benchmarks/requirements.txt
    python benchmarks/finetuning_data.py --published=DOWNLOADS --output=tasks
    python benchmarks/finetuning.py --encoder=downloads/all-MiniLM-L6-v2 --data=tasks --workdir=runs/finetuning \
        --output=benchmarks/results/finetuning

The encoder is a model of ours or of transformers; it is converted for the other one. Settings and numbers of steps are the same. Each seed
determines the new parameters, the dropout and the order of the examples. The last parameters are scored, by the same code. Torch pads each
batch to its longest input; its batches have as many inputs as ours have on average. The number of tokens per second does not count
padding, compilation and scoring. From scratch, only the architecture and the vocabulary of the encoder are used.

An interrupted benchmark resumes: finished measurements are in WORKDIR/measured.jsonl. Writes all with this learning rate to OUTPUT.json.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import checkout  # noqa: F401
from lines import Lines
from machine import machine, versions
from text_baselines import clauses, linear, similar

from bert_jax.config import RunConfig
from bert_jax.convert.exports import export_model
from bert_jax.convert.imports import import_model, is_foreign
from bert_jax.data.labelled import Labelled, load_labelled
from bert_jax.model import directory as model_directory
from bert_jax.model.directory import write_json
from bert_jax.runtime.metrics import read_metrics
from bert_jax.stages.finetune import finetune
from bert_jax.tasks import configured, finetuning
from bert_jax.tasks.base import Tuned
from bert_jax.training.host_memory import tune_malloc

SEEDS = (0, 1, 2)
FOREVER = 1 << 30
DEFAULT_RATE = 1e-4


class Set(NamedTuple):
    """A data set: the shipped configuration, its options beside the files, the scores to report, and a simple baseline."""

    config: str
    options: tuple[str, ...]
    scores: tuple[str, ...]
    baseline: Callable[[RunConfig, Labelled], Mapping[str, float]] = linear


PAIRS = ("finetune.data.text_pair=text_pair",)
CLS = ("finetune.task.pooling=cls",)
PASSAGES = ("finetune.length=384", "finetune.epochs=2")
MOST = "finetune.data.max_train_examples"
SETS = {
    "sst2": Set("finetune_tsv", (*CLS, "finetune.epochs=1"), ("accuracy",)),
    "mrpc": Set("finetune_pairs", (*CLS, *PAIRS, "finetune.epochs=3"), ("accuracy", "macro_f1")),
    "rte": Set("finetune_pairs", (*CLS, *PAIRS, "finetune.epochs=4", "finetune.length=256"), ("accuracy",)),
    "stsb": Set("finetune_regress", (*CLS, *PAIRS, "finetune.epochs=3"), ("spearman", "pearson"), similar),
    "wnut17": Set("finetune_tag", ("finetune.epochs=3",), ("f1", "accuracy")),
    "goemotions": Set("finetune_multilabel", (*CLS, "finetune.epochs=3", f"{MOST}=10000"), ("micro_f1", "macro_f1")),
    "squad": Set("finetune_answer", (*PASSAGES, f"{MOST}=2400"), ("exact_match", "f1"), clauses),
    "ocnli": Set("finetune_pairs", (*CLS, *PAIRS, "finetune.epochs=3"), ("accuracy",)),
    "stsb_zh": Set("finetune_regress", (*CLS, *PAIRS, "finetune.epochs=3"), ("spearman", "pearson"), similar),
    "cmrc": Set("finetune_answer", PASSAGES, ("exact_match", "f1"), clauses),
    "drcd": Set("finetune_answer", PASSAGES, ("exact_match", "f1"), clauses),
    "msra": Set("finetune_tag", ("finetune.epochs=1", "finetune.task.impossible=repair"), ("f1", "accuracy")),
}
ROWS = ("finetune.length=128", "finetune.batch_size=4", "finetune.examples_per_row=16")
"""Of all sets, unless they say otherwise. Four rows of 128 tokens hold about 40 short sentences."""


@dataclass(frozen=True)
class Cell:
    """What is measured at once: one library on one set with one seed.

    Attributes:
        name: the name of the set.
        config, labelled: the configuration and the labeled examples.
        encoder: the directory of the encoder.
        published: the same in the format of transformers.
    """

    name: str
    config: RunConfig
    labelled: Labelled
    encoder: Path
    published: Path


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True, help="a pre-trained model of ours or in the format of transformers")
    parser.add_argument("--data", type=Path, required=True, help="the folder that finetuning_data.py wrote")
    parser.add_argument("--workdir", type=Path, required=True, help="for the converted encoder and finished measurements")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="the sets to measure (default: all for which there is a folder)")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=[OURS, THEIRS], help=f"default: {OURS} {THEIRS}")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="default: 0 1 2")
    parser.add_argument("--learning-rate", type=float, default=DEFAULT_RATE, help="the peak learning rate of all sets (default: 1e-4)")
    parser.add_argument("--examples", type=int, default=0, help="train on so many examples only, for a trial")
    flags = parser.parse_args()
    tune_malloc()
    flags.workdir.mkdir(parents=True, exist_ok=True)
    encoder, published = converted(flags.encoder, flags.workdir)
    names = flags.sets or [name for name in SETS if (flags.data / name).is_dir()]
    rate = f"finetune.optimizer.learning_rate={flags.learning_rate}"
    options = [rate, *([f"{MOST}={flags.examples}"] if flags.examples else [])]
    positions = model_directory.read(encoder)[0].encoder.max_positions
    measured = Lines(flags.workdir / "measured.jsonl")
    own = [line for line in measured.found if line.get("learning_rate", DEFAULT_RATE) == flags.learning_rate]
    known = {(line["set"], line["seed"], line["library"]): line for line in own}
    for seed in flags.seeds:
        for name in names:
            missing = [library for library in flags.libraries if (name, seed, library) not in known]
            if not missing:
                continue
            config = configuration(name, flags.data, seed, positions, options)
            cell = Cell(name, config, labels(config), encoder, published)
            for library in missing:
                begun = time.time()
                found = LIBRARIES[library](cell)
                what = {"set": name, "seed": seed, "library": library, "learning_rate": flags.learning_rate}
                line = {**what, **found, "seconds": round(time.time() - begun), "machine": machine()}
                known[name, seed, library] = line
                measured.add(line)
    lines = sorted(known.values(), key=lambda line: ([*SETS].index(line["set"]), line["library"], line["seed"]))
    for row in table(lines):
        print(row)
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    packages = ("torch", "transformers")
    write_json(flags.output.with_suffix(".json"), {"versions": versions(packages), "runs": lines})


def converted(given: Path, workdir: Path) -> tuple[Path, Path]:
    """The encoder as a model of ours and of transformers."""
    foreign = is_foreign(given)
    other = workdir / ("encoder" if foreign else "transformers")
    if not other.is_dir():
        convert = import_model if foreign else export_model
        convert(given, other)
    return (other, given) if foreign else (given, other)


def configuration(name: str, data: Path, seed: int, positions: int, options: Sequence[str]) -> RunConfig:
    """The shipped configuration for a set; texts that are longer than an encoder's positions are split."""
    own, folder = SETS[name], data / name
    files = {path.stem: path for path in sorted(folder.iterdir())}
    sources = [f"finetune.data.{split}={files[split]}" for split in ("train", "dev", "test") if split in files]
    loop = [f"finetune.loop.evaluate_every={FOREVER}", f"finetune.loop.save_every={FOREVER}"]
    given = [*ROWS, *own.options, *sources, *loop, "compute.cpu_devices=1", f"seed={seed}", *options]
    config = configured(f"configs/{own.config}.py", given)
    assert config.finetune is not None
    longest = min(config.finetune.length, positions)
    return configured(f"configs/{own.config}.py", [*given, f"finetune.length={longest}"])


def labels(config: RunConfig) -> Labelled:
    """The labeled examples."""
    stage = config.finetune
    assert stage is not None
    task = finetuning(stage.task)
    rows = {"others": task.read_rows(stage.task)} if task.read_rows(stage.task) else {}
    return load_labelled(stage.data, task.labels(stage.task), config.seed, **rows)


def ours(cell: Cell, pretrained: bool = True) -> dict[str, Any]:
    """The scores, tokens per second and number of steps of bert_jax."""
    description, tokenizer = model_directory.read(cell.encoder)
    with tempfile.TemporaryDirectory() as directory:
        stage = Path(directory) / "finetune"
        result = finetune(cell.config, stage, cell.labelled, description, tokenizer, cell.encoder if pretrained else None)
        rates = [line["real_tokens_per_second"] for line in read_metrics(stage) if line.get("split") == "train"]
    return scores(result) | {"tokens_per_second": round(statistics.median(rates)), "steps": result["steps"]}


def theirs(cell: Cell) -> dict[str, Any]:
    """The same of transformers, with as many steps."""
    from torch_finetuning import Loop

    from bert_jax.data.labelled_batches import labelled_batches

    stage, labelled, seed = cell.config.finetune, cell.labelled, cell.config.seed
    assert stage is not None
    task, (_, tokenizer) = finetuning(stage.task), model_directory.read(cell.encoder)
    batches = labelled_batches(
        labelled.train, tokenizer, stage.length, stage.examples_per_row, stage.packing, stage.batch_size, seed, stage.epochs,
        task.kind, encode=task.encode,
    )  # fmt: skip
    batches.close()
    loop = Loop(cell.published, task.kind, stage, max(1, len(labelled.label_names)), seed)

    def report(step: int, steps: int) -> None:
        print(f"\rtransformers  {step}/{steps}", end="" if step < steps else "\n", flush=True)

    trained = loop.train(labelled.train, batches.steps_per_epoch, report)
    scorer = task.scorer(labelled, stage.task)
    if isinstance(scorer, Tuned):
        examples, found = loop.predict(labelled.dev)
        scorer.tune(labelled.dev.targets[examples], found)
    scorer.add(*loop.predict(labelled.test))
    return scores(scorer.result()) | trained


def scratch(cell: Cell) -> dict[str, Any]:
    """The scores of bert_jax without the pre-trained parameters."""
    return ours(cell, pretrained=False)


def baseline(cell: Cell) -> dict[str, Any]:
    """The scores of the set's simple baseline."""
    return scores(SETS[cell.name].baseline(cell.config, cell.labelled))


OURS, THEIRS = "bert_jax", "transformers"
LIBRARIES: dict[str, Callable[[Cell], dict[str, Any]]] = {OURS: ours, THEIRS: theirs, "from scratch": scratch, "baseline": baseline}


def scores(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result that a set may report."""
    names = {name for own in SETS.values() for name in own.scores}
    return {name: result[name] for name in sorted(names) if result.get(name) is not None}


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """A Markdown table: the mean and the standard deviation of each score with the number of seeds, and tokens per second."""
    libraries = [name for name in LIBRARIES if any(line["library"] == name for line in lines)]
    rows = [["set", "", *libraries], ["---"] * (2 + len(libraries))]
    for name in dict.fromkeys(line["set"] for line in lines):
        own = [[line for line in lines if (line["set"], line["library"]) == (name, library)] for library in libraries]
        for score in SETS[name].scores:
            rows.append([name, score, *(_shown([100 * line[score] for line in found if score in line]) for found in own)])
        rates = [[line["tokens_per_second"] for line in found if "tokens_per_second" in line] for found in own]
        rows.append([name, "tokens/s", *(f"{statistics.median(found):,.0f}" if found else "" for found in rates)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _shown(values: Sequence[float]) -> str:
    """A mean with the standard deviation and the number of values, if there are several."""
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} ({len(values)})"


if __name__ == "__main__":
    main()
