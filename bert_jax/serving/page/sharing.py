"""Exports the page with models inside, as one file that works without a server and without a network."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_jax.errors import InputError
from bert_jax.inference.model import Model
from bert_jax.modalities.text.portable import portable
from bert_jax.serving.page.document import assemble_alone

MOST_BYTES = 30_000_000
"""Of the models in the file; browsers open more, but mail programs and chats do not take it."""


def describe(name: str, model: Model) -> dict[str, Any]:
    """Return what the page needs to know of a model: what it is called, answers and reads, and how much of it."""
    encoder = model.description.encoder
    return {
        "name": name,
        "noun": model.noun,
        "reads": model.description.input.modality,
        "questions": [*model.questions],
        "shareable": bool(model.portable),
        "labels": [*model.labels],
        "pairs": encoder.segment_types > 1,
        "max_tokens": encoder.max_positions,
        "layers": encoder.layers,
        "heads": encoder.heads,
    }


def share(models: Mapping[str, Model]) -> bytes:
    """Return the page with those of the models inside that read text, as an HTML file.

    Raises:
        InputError: none reads text, they are too large, or a vocabulary has tokens that a page cannot match.
    """
    chosen = {name: model for name, model in models.items() if model.portable}
    if not chosen:
        raise InputError("Pages with a model inside are for models that read text: share one of them.")
    sizes = [array.size for model in chosen.values() for _, array in _arrays(model.params)]
    if (size := sum(sizes) * 4 * 4 / 3) > MOST_BYTES:
        raise InputError(
            f"A page with {' and '.join(chosen)} inside would have {size / 1e6:,.0f} MB, more than the {MOST_BYTES / 1e6:.0f} MB that are "
            f"allowed: share a smaller model{', or one of these alone' if len(chosen) > 1 else ''}."
        )
    descriptions = [_description(name, model) for name, model in chosen.items()]
    elements = [f'<script type="application/json" id="models">{_json(descriptions)}</script>\n']
    for index, model in enumerate(chosen.values()):
        content = b"".join(np.asarray(array, "<f4").tobytes() for _, array in _arrays(model.params))
        elements.append(f'<script type="application/octet-stream" id="weights{index}">{base64.b64encode(content).decode()}</script>\n')
    return assemble_alone("".join(elements)).encode()


def _description(name: str, model: Model) -> dict[str, Any]:
    answers = model.portable
    return describe(name, model) | {
        "questions": [*answers],
        "answers": answers,
        "tokenizer": portable(model.tokenizer),
        "encoder": asdict(model.description.encoder),
        "pooling": model.description.pooling,
        "parameters": [[path, list(array.shape)] for path, array in _arrays(model.params)],
    }


def _arrays(params: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the parameters by their paths, such as `pooler/dense/kernel`."""
    for name, value in sorted(params.items()):
        if isinstance(value, Mapping):
            yield from _arrays(value, f"{path}{name}/")
        else:
            yield path + name, value


def _json(value: Any) -> str:
    """Return JSON that can stand in an element of a document."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
