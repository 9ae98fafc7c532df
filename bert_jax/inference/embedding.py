"""What makes a vector of a text beside the encoder: a prompt before it, a length to which it is cut, the scale of the vector."""

from collections.abc import Iterable

import numpy as np

from bert_jax.errors import InputError
from bert_jax.modalities.text.tokenizer import Tokenizer
from bert_jax.model.directory import EmbeddingConfig, ModelDescription
from bert_jax.model.pooling import pooling_modes


def vector_size(description: ModelDescription, pooling: str) -> int:
    """How many numbers a vector has."""
    whole = description.encoder.width * len(pooling_modes(pooling))
    return min(whole, description.embedding.dimensions or whole)


def text_length(description: ModelDescription) -> int:
    """The tokens, [CLS] and [SEP] among them, to which a text is cut."""
    positions = description.encoder.max_positions
    return min(positions, description.embedding.max_length or description.tokenizer_length or positions)


def chosen_prompt(settings: EmbeddingConfig, prompt: str | None, name: str | None) -> str:
    """The text that is put before each text.

    Raises:
        InputError: a prompt and a name, or a name that there is not.
    """
    if prompt is not None:
        if name is not None:
            raise InputError("prompt and prompt_name are both given: give one of them.")
        return prompt
    name = settings.default_prompt if name is None else name
    if name and name not in settings.prompts:
        names = ", ".join(settings.prompts) or "none"
        raise InputError(f"prompt_name={name!r} is not one of this model's prompts, which are: {names}. Give the text itself as prompt.")
    return settings.prompts[name] if name else ""


def with_prompt(prompt: str, texts: str | Iterable[str]) -> str | Iterable[str]:
    """Each text behind a prompt; what is not a text stays, for those who refuse it."""
    if not prompt:
        return texts
    if isinstance(texts, str):
        return prompt + texts
    return (prompt + text if isinstance(text, str) else text for text in texts)


def uncounted_tokens(settings: EmbeddingConfig, prompt: str, tokenizer: Tokenizer, length: int) -> int:
    """The tokens at the start of a text of at most `length` that take no part in the pooling: [CLS] and those of the prompt, if any."""
    if settings.include_prompt or not prompt:
        return 0
    # As sentence-transformers counts them: the prompt is cut as a text is, and its [SEP] is left out.
    return min(len(tokenizer.encode(prompt)), length - 2) + 1


def finished(vectors: np.ndarray, settings: EmbeddingConfig, size: int, normalize: bool | None) -> np.ndarray:
    """Pooled vectors [n, ...], scaled as the settings or the caller want, cut to `size` numbers each."""
    if settings.normalize and normalize is None:
        vectors = _scaled(vectors)
    return _scaled(vectors[:, :size]) if normalize else vectors[:, :size]


def _scaled(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
