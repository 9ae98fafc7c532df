"""Vectors of texts, which every encoder gives, whatever it has learned."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bert_jax.errors import InputError
from bert_jax.runtime.ahead import Finish
from bert_jax.tasks.base import Ask, Loaded, Question

if TYPE_CHECKING:
    import numpy as np

    from bert_jax.data.queries import Queries
    from bert_jax.modalities.text.tokenizer import Tokenizer
    from bert_jax.model.directory import EmbeddingConfig, ModelDescription


class Embed(Question):
    """Vectors of texts; what is not given is as the model's description says, which an imported model brings with it."""

    name = "embed"
    help = "turn texts into vectors"
    examples = ("runs/demo/pretrain '房间很干净' '房间很整洁'", "runs/demo/pretrain texts.txt --output vectors.npy")
    options = ("pooling", "layer", "normalize", "prompt", "prompt_name")
    vectors = True

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """--pooling, --layer, --normalize and the prompts."""
        add = command.add_argument
        add(
            "--pooling",
            metavar="MODE[+MODE]",
            help="a text's vector from those of its tokens: mean, cls, max, mean_sqrt_len_tokens, weightedmean, lasttoken, or several "
            "joined by + (default: the model's own)",
        )
        add("--layer", type=int, metavar="N", help="the layer they are from; -1 is the last (default: -1)")
        add("--normalize", action="store_const", const=True, help="scale vectors to length 1 (default: the model's own)")
        add("--prompt", metavar="TEXT", help="a text to put before each text, such as 'query: '; '' for none")
        add("--prompt-name", metavar="NAME", help="one of the model's prompts, instead (default: the model's own)")

    def start(
        self,
        model: Loaded,
        pooling: str | None = None,
        layer: int = -1,
        prompt: str | None = None,
        prompt_name: str | None = None,
        **_: Any,
    ) -> Callable[[Queries], Finish[np.ndarray]]:
        """Pooled vectors float32 [n, D * modes], before they are scaled."""
        from bert_jax.model.pooling import pooling_modes

        settings = model.description.embedding
        modes = pooling_modes(settings.pooling if pooling is None else pooling)
        states = model.description.encoder.layers + 1
        if not -states <= layer < states:
            raise InputError(f"layer={layer} is not possible: it takes 0, the embeddings, to {states - 1} or -1, the last layer.")
        below = layer % states if layer % states < states - 1 else None
        before = chosen_prompt(settings, prompt, prompt_name)
        skipped = uncounted_tokens(settings, before, model.tokenizer, self.most_tokens(model))
        return lambda queries: model.forward.vectors(queries, modes, below, skipped)

    def ask(self, model: Loaded, ask: Ask, texts: Iterable[str], pairs: Iterable[str] | None, **options: Any) -> np.ndarray:
        """float32 [texts, `width`]."""
        import numpy as np

        settings, start = model.description.embedding, self.start(model, **options)
        before = chosen_prompt(settings, options.get("prompt"), options.get("prompt_name"))
        found = ask(with_prompt(before, texts), None, start, most_tokens=self.most_tokens(model))
        pooling = options.get("pooling") or settings.pooling
        empty = np.zeros((0, model.description.encoder.width * len(pooling.split("+"))), np.float32)
        return finished(np.concatenate([empty, *found]), settings, vector_size(model.description, pooling), options.get("normalize"))

    def record(self, answer: np.ndarray) -> dict[str, Any]:
        """`embedding`."""
        return {"embedding": answer}

    def show(self, records: Sequence[dict[str, Any]]) -> list[str]:
        """The text, and the first numbers of its vector."""
        return [
            f"{one['text']}\n  {' '.join(f'{x:.3f}' for x in one['embedding'][:8])} … "
            f"({len(one['embedding'])} numbers; all of them with --json or --output)"
            for one in records
        ]

    def width(self, model: Loaded, **options: Any) -> int:
        """How many numbers a vector of this pooling has."""
        return vector_size(model.description, options.get("pooling") or model.description.embedding.pooling)

    def most_tokens(self, model: Loaded) -> int:
        """As the model's description says."""
        return text_length(model.description)


def vector_size(description: ModelDescription, pooling: str) -> int:
    """How many numbers a vector has."""
    from bert_jax.model.pooling import pooling_modes

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
    import numpy as np

    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
