"""What a cell is, and what the families share: the texts, the labeled sets and the pre-training from which a claim departs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Training:
    """One run of `train.py`, which is made once, whatever number of cells need it.

    Attributes:
        label: what it trains. Trainings with the same label are expected to take the same time.
        config: the name of a configuration.
        options: overrides. {corpora} and {sets} are the folders with the data, {records} is that of all prepared records, and {start} the
            workdir of the training that this one starts from.
        start: that training.
        minutes: the time that the steps of pre-training are to take, from which their number is computed; 0 keeps the configuration's.
        seconds: about how long it takes on two cores, for an estimate before one was measured; `minutes` come on top.
    """

    label: str
    config: str
    options: tuple[str, ...] = ()
    start: "Training | None" = None
    minutes: float = 0.0
    seconds: float = 60.0

    @property
    def steps(self) -> "Training":
        """The same, however long it takes: what is timed of it."""
        return replace(self, minutes=0.0)


@dataclass(frozen=True)
class Cell:
    """What adds one line to the results.

    Attributes:
        name: FAMILY/LANGUAGE/VARIANT.
        trainings: by the names of their results.
        timed: instead of being trained, these are timed for some steps; the rates fix the numbers of steps of their family.
        alone: whether a figure of it is a speed, so that nothing else may run on the machine.
    """

    name: str
    trainings: Mapping[str, Training] = field(default_factory=dict)
    timed: tuple[Training, ...] = ()
    alone: bool = False


LANGUAGES = ("zh", "en")
SINGLE_TEXTS = {"zh": "chnsenticorp", "en": "sst2"}
PAIRS = {"zh": ("ocnli",), "en": ("rte", "mrpc")}
SEEDS = "finetune.seeds=0,1,2"
CORES = "compute.cpu_devices=2"
SENTIMENT_SECONDS = {"chnsenticorp": 240.0, "sst2": 120.0}


def text(language: str) -> tuple[str, ...]:
    """The options for pre-training on the corpus of a language, evaluated once, on more held-out text than usual."""
    return (
        f"corpus.source={{corpora}}/{language}.train.txt",
        f"corpus.valid_source={{corpora}}/{language}.valid.txt",
        "corpus.data_dir={records}",
        "pretrain.evaluation_batches=100",
        "pretrain.loop.evaluate_every=1000000000",
    )


RECIPE = ("encoder.attention_initializer=neighbours", "pretrain.optimizer.learning_rate=3e-3")
"""What configs/demo.py adds to configs/pretrain_folder.py, and why: a narrow encoder learns much more in minutes."""


def pretraining(language: str, minutes: float, *options: str) -> Training:
    """The pre-training from which a claim departs: `tiny`, 8,000 word pieces, 30% masked, next-sentence prediction."""
    return Training("pre-training", "pretrain_folder", (*text(language), *RECIPE, *options), minutes=minutes)


def sentiment(language: str, start: Training, *options: str) -> dict[str, Training]:
    """Fine-tuning on the sentiment of single texts, with a few thousand labels and three seeds."""
    name = SINGLE_TEXTS[language]
    labels = {"chnsenticorp": "3000", "sst2": "10000"}[name]
    own = (f"finetune.data.max_train_examples={labels}", SEEDS, CORES, *options)
    return {name: Training(name, "finetune_tsv", (*_set(name), *own), start, seconds=SENTIMENT_SECONDS[name])}


def pairs(language: str, start: Training) -> dict[str, Training]:
    """Fine-tuning on pairs of texts, with all labels and three seeds."""
    columns = ("finetune.data.text_pair=text_pair", "finetune.optimizer.learning_rate=3e-4", SEEDS, CORES)
    return {name: Training(name, "finetune_pairs", (*_set(name), *columns), start, seconds=240) for name in PAIRS[language]}


def _set(name: str) -> tuple[str, ...]:
    files = (f"finetune.data.{split}={{sets}}/{name}/{split}.tsv" for split in ("train", "test"))
    return ("finetune.checkpoint={start}/pretrain", *files, "finetune.data.text=text")


def with_speed(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Put a cell that times the pre-trainings of a family and language before the first cell of both."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.name.rpartition("/")[0], []).append(cell)
    for name, group in groups.items():
        timed = dict.fromkeys(training.steps for cell in group for training in cell.trainings.values() if training.minutes)
        yield Cell(f"{name}/speed", timed=tuple(timed), alone=True)
        yield from group
