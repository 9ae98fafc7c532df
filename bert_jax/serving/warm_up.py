"""Compiles the programs of a model before the first request, one for each batch shape."""

from collections.abc import Iterator

import numpy as np

from bert_jax.serving.served import Served

_SHORTEST = 16
"""Tokens in the shortest rows."""


def warm_up(served: Served) -> Iterator[str]:
    """Ask each question about texts that fill batches of every shape, and yield its name before.

    Left out are questions with required options, and those whose answers are too large for the longest texts.
    """
    model = served.model
    if model.tokenizer.units:
        return
    word = _word(served)
    for name, question in served.questions.items():
        if question.files or question.quadratic:
            continue
        yield name
        most, shapes, paired = model.max_tokens(name), model.shapes, question.pairs == "required"
        length = _SHORTEST
        while length < 2 * most or length <= shapes.least[-1]:
            # Texts that are shorter than a row share it.
            size, in_row = min(length, most), max(1, length // most)
            words = max(1, (size - 3) // (1 + paired))
            # One mask is enough; and a question that masks each word in turn, but no mask, masks one.
            parts = ["[MASK]"] + [word] * (words - 1) if question.masked else [word] + ["[MASK]"] * (words - 1)
            # A full batch and a small one. Rows that are shorter than the least length are few: many texts share longer ones.
            rows = shapes.devices + (shapes.full(length) if length >= shapes.least[0] else 0)
            texts = [" ".join(parts)] * (in_row * rows)
            with model.in_rows(length):
                model.ask(name, texts, texts if paired else None)
            length *= 2


def _word(served: Served) -> str:
    """Return a word that is one token."""
    reader = served.model.tokenizer
    ids = np.asarray(reader.ordinary_ids).tolist()
    for word in reader.tokens(ids):
        if word.isalpha() and len(reader.encode_flat([word]).ids) == 1:
            return str(word)
    return str(reader.tokens(ids[:1])[0])
