"""Is next-sentence prediction of use? The next sentence, the order of sentences, or neither, on single texts and on pairs."""

from collections.abc import Iterator

from cells.cell import LANGUAGES, Cell, pairs, pretraining, sentiment, with_speed


def cells(minutes: float) -> Iterator[Cell]:
    """One cell per sentence task and language."""

    def cell(language: str, task: str) -> Cell:
        trained = pretraining(language, minutes, f"pretrain.rows.next_sentence={task}")
        return Cell(f"next_sentence/{language}/{task}", {"pretrain": trained} | sentiment(language, trained) | pairs(language, trained))

    return with_speed(cell(language, task) for language in LANGUAGES for task in ("nsp", "sop", "none"))
