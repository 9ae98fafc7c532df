"""An hour of two cores, from raw text to a classifier, beside a linear model: configs/hour_zh.py and configs/hour_en.py."""

from collections.abc import Iterator

from cells.cell import LANGUAGES, SEEDS, SINGLE_TEXTS, Cell, Training


def hour(language: str) -> Training:
    """The whole run of the configuration on the data of a language, with three seeds of its fine-tuning."""
    name = SINGLE_TEXTS[language]
    options = (
        f"corpus.source={{corpora}}/{language}.train.txt",
        f"corpus.valid_source={{corpora}}/{language}.valid.txt",
        f"finetune.data.train={{sets}}/{name}/train.tsv",
        f"finetune.data.test={{sets}}/{name}/test.tsv",
        "finetune.data.text=text",
        SEEDS,
    )
    return Training(f"hour, {language}", f"hour_{language}", options, seconds=5400)


def cells() -> Iterator[Cell]:
    """One cell per language. What it takes an hour for is a figure, so nothing else may run."""
    return (Cell(f"hours/{language}/{SINGLE_TEXTS[language]}", {"hour": hour(language)}, alone=True) for language in LANGUAGES)
