"""Where the tokens of a text are in it, for questions that answer token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.question import Ask, Encode

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import Queries
    from bert_jax.data.reader import Reader
    from bert_jax.modalities.text.tokenizer import Encoding


def with_places(
    ask: Ask, texts: Iterable[Any], start: Callable[[Any], Finish[Any]], encode: Encode
) -> list[tuple[Any, np.ndarray]]:
    """Ask about texts without pairs, and return each answer with the places of the text's tokens, of those cut off too.

    The places are start and end, int [tokens, 2], in characters of the text; units of images and recordings are counted.
    """
    places: list[np.ndarray] = []

    def encode_and_note(texts: Sequence[Any], pairs: Sequence[Any] | None, reader: Reader, positions: int, /) -> Queries:
        queries = encode(texts, pairs, reader, positions)
        places.extend(_places(texts, reader))
        return queries

    answers = [answer for chunk in ask(texts, None, start, encode_and_note) for answer in chunk]
    return [*zip(answers, places, strict=True)]


def _places(texts: Sequence[Any], reader: Reader) -> list[np.ndarray]:
    import numpy as np

    encoded = reader.encode_batch(texts)
    if reader.units:
        return [np.stack([np.arange(len(one.ids)), np.arange(len(one.ids)) + 1], 1) for one in encoded]
    return [one.offsets for one in cast("Sequence[Encoding]", encoded)]
