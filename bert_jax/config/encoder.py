"""The architecture of an encoder."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

from bert_jax.config.checks import at_most, fraction, positive, require
from bert_jax.errors import InputError


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of a BERT encoder (Devlin et al. 2019, section 3).

    The vocabulary size is not part of it; the tokenizer determines it.
    """

    layers: int = 12
    """Number of layers, N."""
    width: int = 768
    """Size of the vector of a token, D; a multiple of `heads`."""
    heads: int = 12
    """Number of attention heads per layer, H."""
    feed_forward: int = 3072
    """Width of the feed-forward layer within each layer, F; four times `width` in the published models."""
    max_positions: int = 512
    """Number of position embeddings, P: the most tokens that an example can have, in training and later."""
    segment_types: int = 2
    """Number of segment types (sentence A and sentence B). An encoder with one type accepts single texts only; pairs raise an error."""
    dropout: float = 0.1
    """Dropout of the embeddings and of the two outputs of each layer, in training."""
    attention_dropout: float = 0.1
    """Dropout of attention weights, in training; only `compute.attention=dense` supports it."""
    norm_epsilon: float = 1e-12
    """Added to the variance in layer norms."""
    initializer_range: float = 0.02
    """Standard deviation of initial weights and embeddings; 0.02 suits a width of 768, while narrow encoders learn faster with more."""
    position_initializer: Literal["normal", "sinusoidal"] = "normal"
    """Initialization of the learned position embeddings: normal, as published, or sinusoidal, from which proximity is learned faster."""
    attention_initializer: Literal["normal", "neighbours"] = "normal"
    """Initialization of the first layer's heads: normal, as published, or each head attends to one preceding or following neighbor,
    which needs sinusoidal positions."""

    def __post_init__(self) -> None:
        positive(self, "layers", "width", "heads", "feed_forward", "max_positions", "segment_types", "norm_epsilon")
        positive(self, "initializer_range")
        at_most(self, layers=1 << 10, width=1 << 17, heads=1 << 17, feed_forward=1 << 17, max_positions=1 << 20, segment_types=1 << 17)
        fraction(self, "dropout", "attention_dropout")
        require(self.width % self.heads == 0, "heads", self.heads, f"it must divide the width, {self.width}.")
        require(
            self.attention_initializer == "normal" or self.position_initializer == "sinusoidal",
            "attention_initializer",
            self.attention_initializer,
            "it needs sinusoidal positions; set encoder.position_initializer=sinusoidal.",
        )
        require(
            self.position_initializer == "normal" or self.width % 2 == 0,
            "width",
            self.width,
            "it must be even, since sinusoidal positions are pairs of sine and cosine.",
        )
        require(
            self.attention_initializer == "normal" or self.width // self.heads >= 4,
            "heads",
            self.heads,
            "heads that attend to neighbors need at least four dimensions each; use fewer heads.",
        )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return an encoder of a published size (Devlin et al. 2019; Turc et al. 2019): tiny, mini, small, medium, base or large.

        Args:
            name: the size.
            changes: fields that differ from the preset.

        Raises:
            InputError: there is no such preset.
        """
        return dataclasses.replace(cls(), **(_published_sizes(name) | changes))

    def resized(self, name: str) -> Self:
        """Return this encoder with the layers, width, heads, feed-forward width and initializers of a preset; all else is unchanged.

        Raises:
            InputError: there is no such preset.
        """
        return dataclasses.replace(self, **_published_sizes(name))


def _published_sizes(name: str) -> dict[str, Any]:
    sizes = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768), "large": (24, 1024)}
    if name not in sizes:
        raise InputError(f"There is no encoder preset {name!r}. The presets are {', '.join(sizes)}.")
    layers, width = sizes[name]
    # The initializers belong to the size: what suits a narrow encoder does not suit a wide one.
    initializers = ("initializer_range", "position_initializer", "attention_initializer")
    published = {field.name: field.default for field in dataclasses.fields(EncoderConfig) if field.name in initializers}
    return {"layers": layers, "width": width, "heads": width // 64, "feed_forward": 4 * width} | published
