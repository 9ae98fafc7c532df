"""Which size to pick for a budget: four sizes, each pre-trained for half, twice and six times the minutes of a claim.

With the default of ten minutes the budgets are 5, 20 and 60 minutes. Between `tiny` and `mini` is a size of three layers of width 192,
because the best size for an hour of two cores is expected there (20 tokens per parameter, Hoffmann et al. 2022, section 3.4). Matrices are
initialized with a deviation in proportion to 1/sqrt(width) and trained with a learning rate in proportion to 1/width, from what
configs/demo.py found for width 128. The text is an encyclopedia that none of them reads twice.
"""

from collections.abc import Iterator

from cells.cell import LANGUAGES, Cell, pretraining, with_speed

SIZES = {"tiny": (2, 128), "3x192": (3, 192), "mini": (4, 256), "small": (4, 512)}
BUDGETS = (0.5, 2, 6)
"""In units of the minutes of a claim."""
HEAD, WIDTH, DEVIATION, RATE = 32, 128, 0.08, 3e-3
"""Width of a head, and what suits a width of 128."""


def encoder(size: str) -> tuple[str, ...]:
    """The options of an encoder of this size."""
    layers, width = SIZES[size]
    return (
        f"encoder.layers={layers}",
        f"encoder.width={width}",
        f"encoder.heads={width // HEAD}",
        f"encoder.feed_forward={4 * width}",
        f"encoder.initializer_range={DEVIATION * (WIDTH / width) ** 0.5:.4f}",
        f"pretrain.optimizer.learning_rate={RATE * WIDTH / width:.2e}",
    )


def cells(minutes: float) -> Iterator[Cell]:
    """One cell per language, budget and size; small budgets come first."""

    def cell(language: str, budget: float, size: str) -> Cell:
        source = (f"corpus.source={{corpora}}/large/{language}_wikipedia.txt.xz", "corpus.leaks=leave_out")
        trained = pretraining(language, budget, *source, *encoder(size))
        return Cell(f"scaling/{language}/{size} {budget:g} min", {"pretrain": trained})

    budgets = [share * minutes for share in BUDGETS]
    return with_speed(cell(language, budget, size) for language in LANGUAGES for budget in budgets for size in SIZES)
