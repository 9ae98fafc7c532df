"""Text embeddings, which every encoder can compute, whatever its task."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.display import Json
from bert_jax.tasks.question import Ask, Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import Queries
    from bert_jax.data.reader import Reader
    from bert_jax.model.directory import EmbeddingConfig, ModelDescription


class Embed(Question):
    """Text embeddings. Options that are not given default to the model's description, which an imported model defines."""

    name = "embed"
    help = "compute embeddings of texts, images or recordings"
    examples = (
        "runs/demo/pretrain '房间很干净' '房间很整洁'",
        "runs/demo/pretrain texts.txt --output vectors.npy",
        "runs/images/pretrain photos/0.png photos/1.png",
    )
    options = ("pooling", "layer", "normalize", "prompt", "prompt_name")
    vectors = True

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add --pooling, --layer, --normalize, --prompt and --prompt-name."""
        add = command.add_argument
        add(
            "--pooling",
            metavar="MODE[+MODE]",
            help="how to pool the token vectors of an input: mean, cls, max, mean_sqrt_len_tokens, weightedmean, lasttoken, or several "
            "joined with + (default: the model's own)",
        )
        add(
            "--layer",
            type=int,
            metavar="N",
            help="the layer to take the hidden states from; 0 is the embeddings, -1 the last layer (default: -1)",
        )
        add("--normalize", action="store_const", const=True, help="scale vectors to unit length (default: the model's own setting)")
        add("--prompt", metavar="TEXT", help="a string to prepend to each text, such as 'query: '; '' for none (for models of text)")
        add("--prompt-name", metavar="NAME", help="the name of one of the model's prompts, instead of --prompt (default: the model's own)")

    def start(
        self,
        model: Loaded,
        pooling: str | None = None,
        layer: int = -1,
        prompt: str | None = None,
        prompt_name: str | None = None,
        **_: Any,
    ) -> Callable[[Queries], Finish[np.ndarray]]:
        """Return a function that computes pooled vectors, float32 [n, D * modes], before normalization."""
        from bert_jax.model.pooling import pooling_modes

        settings = model.description.embedding
        modes = pooling_modes(settings.pooling if pooling is None else pooling)
        states = model.description.encoder.layers + 1
        if not -states <= layer < states:
            raise InputError(f"layer={layer} is invalid: give a number from 0 (the embeddings) to {states - 1} or -1 (the last layer).")
        hidden_layer = layer % states if layer % states < states - 1 else None
        text_prompt = chosen_prompt(settings, prompt, prompt_name)
        if text_prompt and model.tokenizer.units:
            raise InputError(f"A prompt is text, but this model reads {model.tokenizer.nouns.input}s: leave it out.")
        skipped = uncounted_tokens(settings, text_prompt, model.tokenizer, self.max_tokens(model))
        return lambda queries: model.forward.vectors(queries, modes, hidden_layer, skipped)

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[Any], pairs: Iterable[Any] | None, **options: Any) -> np.ndarray:
        """Return the embeddings of all texts, float32 [texts, `width`]."""
        import numpy as np

        settings, start = model.description.embedding, self.start(model, **options)
        prompt = chosen_prompt(settings, options.get("prompt"), options.get("prompt_name"))
        chunks = ask(with_prompt(prompt, texts), None, start, max_tokens=self.max_tokens(model))
        pooling = options.get("pooling") or settings.pooling
        empty = np.zeros((0, model.description.encoder.width * len(pooling.split("+"))), np.float32)
        return finished(np.concatenate([empty, *chunks]), settings, vector_size(model.description, pooling), options.get("normalize"))

    def portable(self, model: Loaded) -> Json:
        """Return the function, and how the model's description says that texts are embedded."""
        from bert_jax.model.pooling import pooling_modes

        settings, longest = model.description.embedding, self.max_tokens(model)
        prompt = chosen_prompt(settings, None, None)
        return {
            "as": "vector",
            "modes": [*pooling_modes(settings.pooling)],
            "prompt": prompt,
            "skipped": uncounted_tokens(settings, prompt, model.tokenizer, longest),
            "longest": longest,
            "size": self.width(model),
            "normalize": settings.normalize,
        }

    def record(self, answer: np.ndarray) -> dict[str, Any]:
        """Return a record with `embedding`."""
        return {"embedding": answer}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """Return each text and the first 8 values of its vector."""
        return [
            f"{one['text']}\n  {' '.join(f'{x:.3f}' for x in one['embedding'][:8])} … "
            f"({len(one['embedding'])} values; use --json or --output to get all of them)"
            for one in records
        ]

    def prefix(self, model: Loaded, option: str = "", **options: Any) -> str:
        """Return the prompt."""
        return chosen_prompt(model.description.embedding, options.get("prompt"), options.get("prompt_name"))

    def width(self, model: Loaded, **options: Any) -> int:
        """Return the vector size for this pooling."""
        return vector_size(model.description, options.get("pooling") or model.description.embedding.pooling)

    def max_tokens(self, model: Loaded) -> int:
        """Return the limit in the model's description."""
        return text_length(model.description)


def vector_size(description: ModelDescription, pooling: str) -> int:
    """Return the vector size for a pooling, after truncation to the model's `dimensions`."""
    from bert_jax.model.pooling import pooling_modes

    size = description.encoder.width * len(pooling_modes(pooling))
    return min(size, description.embedding.dimensions or size)


def text_length(description: ModelDescription) -> int:
    """Return the number of tokens, including [CLS] and [SEP], to which texts are truncated."""
    positions = description.encoder.max_positions
    return min(positions, description.embedding.max_length or description.tokenizer_length or positions)


def chosen_prompt(settings: EmbeddingConfig, prompt: str | None, name: str | None) -> str:
    """Return the string to prepend to each text.

    Raises:
        InputError: both a prompt and a name are given, or there is no prompt of this name.
    """
    if prompt is not None:
        if name is not None:
            raise InputError("prompt and prompt_name are both given: give only one of them.")
        return prompt
    name = settings.default_prompt if name is None else name
    if name and name not in settings.prompts:
        names = ", ".join(settings.prompts) or "none"
        raise InputError(
            f"prompt_name={name!r} is not one of this model's prompts, which are: {names}. To use another prompt, pass its text as prompt."
        )
    return settings.prompts[name] if name else ""


def with_prompt(prompt: str, texts: Iterable[Any]) -> Iterable[Any]:
    """Prepend a prompt to each text. Values that are not strings pass through, so that the caller can reject them."""
    if not prompt:
        return texts
    if isinstance(texts, str):
        return prompt + texts
    return (prompt + text if isinstance(text, str) else text for text in texts)


def uncounted_tokens(settings: EmbeddingConfig, prompt: str, tokenizer: Reader, length: int) -> int:
    """Return the number of leading tokens excluded from pooling, [CLS] and the prompt's, in a text of at most `length` tokens."""
    if settings.include_prompt or not prompt:
        return 0
    # Count as sentence-transformers does: truncate the prompt like a text and leave out its [SEP].
    return min(int(tokenizer.encode_flat([prompt]).lengths[0]), length - 2) + 1


def finished(vectors: np.ndarray, settings: EmbeddingConfig, size: int, normalize: bool | None) -> np.ndarray:
    """Normalize pooled vectors [n, ...] as the settings or the caller request, and truncate them to `size` values each."""
    if settings.normalize and normalize is None:
        vectors = _normalized(vectors)
    return _normalized(vectors[:, :size]) if normalize else vectors[:, :size]


def _normalized(vectors: np.ndarray) -> np.ndarray:
    import numpy as np

    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
