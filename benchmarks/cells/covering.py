"""What covers a token, and how many: [MASK], a random token or the published mixture; a share of 15, 30 or 45%.

The held-out loss depends on what covers the tokens that are predicted. So each model is also evaluated with the published masking, by a
pre-training that continues from it for one step that changes nothing.
"""

from collections.abc import Iterator

from cells.cell import LANGUAGES, Cell, Training, pretraining, sentiment, text, with_speed

COVERS = {
    "mask": ("pretrain.masking.mask_share=1.0", "pretrain.masking.random_share=0.0"),
    "random": ("pretrain.masking.mask_share=0.0", "pretrain.masking.random_share=1.0"),
}
SHARES = {"15%": "0.15", "30%": "0.3", "45%": "0.45"}


def cells(minutes: float) -> Iterator[Cell]:
    """One cell per cover at 30% and per share of the published mixture, and language."""
    variants = {f"{cover} 30%": options for cover, options in COVERS.items()}
    variants |= {f"mixture {share}": (f"pretrain.masking.rate={rate}",) for share, rate in SHARES.items()}

    def cell(language: str, name: str) -> Cell:
        trained = pretraining(language, minutes, *variants[name])
        return Cell(
            f"covering/{language}/{name}",
            {"pretrain": trained, "published masking": published_masking(language, trained)} | sentiment(language, trained),
        )

    return with_speed(cell(language, name) for language in LANGUAGES for name in variants)


def published_masking(language: str, trained: Training) -> Training:
    """The evaluation of a model with 15% of the tokens covered as published."""
    step = ("pretrain.checkpoint={start}/pretrain", "pretrain.steps=1", "pretrain.optimizer.learning_rate=1e-12")
    return Training("evaluation", "pretrain_folder", (*text(language), *step, "pretrain.masking.rate=0.15"), trained)
