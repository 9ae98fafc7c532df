"""The cells of the campaign as data, a module per family: what is trained, and what each training is called in the results."""

from cells import covering, hours, labels, next_sentence, scaling, tokens
from cells.cell import Cell


def all_cells(minutes: float) -> list[Cell]:
    """All cells, in the order in which they are measured; `minutes` is the time that the cells of a claim pre-train for."""
    claims = [cell for family in (next_sentence, covering, tokens) for cell in family.cells(minutes)]
    return [*hours.cells(), *labels.cells(), *claims, *scaling.cells(minutes)]
