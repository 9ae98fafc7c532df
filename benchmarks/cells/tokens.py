"""The size of a token: characters, word pieces, whole words or bytes, compared by bits per character and by sentiment.

Rows hold about the same text: those of smaller tokens are longer, and a batch has as many tokens. Whole words are masked with all of
them, and case and accents dropped, so that the same parts of the text are predicted. A vocabulary of words needs more entries; characters
and bytes have fewer.
"""

from collections.abc import Iterator

from cells.cell import LANGUAGES, Cell, pretraining, sentiment, with_speed

KINDS = ("characters", "wordpiece", "words", "bytes")
SMALL = {"zh": ("bytes",), "en": ("characters", "bytes")}
"""Kinds whose rows are four times as long."""


def cells(minutes: float) -> Iterator[Cell]:
    """One cell per kind of vocabulary and language."""

    def cell(language: str, kind: str) -> Cell:
        stretch = 4 if kind in SMALL[language] else 1
        rows = (f"pretrain.rows.length={128 * stretch}", f"pretrain.batch_size={16 // stretch}")
        vocabulary = (f"vocabulary.kind={kind}", f"vocabulary.size={30_000 if kind == 'words' else 8_000}")
        same = ("vocabulary.casing=uncased", "vocabulary.strip_accents=true", "pretrain.masking.whole_words=true")
        trained = pretraining(language, minutes, *rows, *vocabulary, *same)
        tuned = sentiment(language, trained, f"finetune.length={128 * stretch}", f"finetune.batch_size={16 // stretch}")
        return Cell(f"tokens/{language}/{kind}", {"pretrain": trained} | tuned)

    return with_speed(cell(language, kind) for language in LANGUAGES for kind in KINDS)
