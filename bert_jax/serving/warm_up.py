"""Compiles the programs of a model before the first request, one for each batch shape."""

from collections.abc import Iterator

import numpy as np

from bert_jax.serving.served import Served

_SHORTEST = 16
"""Tokens in the shortest rows."""
_FULL = 128
"""Tokens from which rows come in full batches; many shorter texts share longer rows."""


def warm_up(served: Served) -> Iterator[str]:
    """Ask each question about texts of every length, and yield its name before.

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
        most = model.max_tokens(name)
        length = _SHORTEST
        while length < 2 * most:
            size = min(length, most) - 3
            paired = question.pairs == "required"
            words = max(1, size // (1 + paired) - question.masked)
            text = " ".join(["[MASK]"] * question.masked + [word] * words)
            for count in (1, model.full_batch(length)) if length >= _FULL else (1,):
                model.ask(name, [text] * count, [text] * count if paired else None)
            length *= 2


def _word(served: Served) -> str:
    """Return a word that is one token."""
    reader = served.model.tokenizer
    ids = np.asarray(reader.ordinary_ids).tolist()
    for word in reader.tokens(ids):
        if word.isalpha() and len(reader.encode_flat([word]).ids) == 1:
            return str(word)
    return str(reader.tokens(ids[:1])[0])
