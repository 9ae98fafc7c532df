"""The architecture of an encoder."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self

from bert_jax.config.checks import at_most, fraction, positive, require
from bert_jax.errors import InputError


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of a BERT encoder (Devlin et al. 2019, section 3).

    The size of the vocabulary is not here: it is the tokenizer's.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    max_positions: int = 512
    segment_types: int = 2
    """Sentence A and sentence B; an encoder with one type takes single texts only, and pairs are refused wherever they come up."""
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_epsilon: float = 1e-12
    initializer_range: float = 0.02
    """Standard deviation of fresh matrices and tables; 0.02 suits a width of 768, a narrow encoder learns sooner from more."""
    position_initializer: Literal["normal", "sinusoidal"] = "normal"
    """What the learned position table starts from: the published noise, or waves, from which nearness is learned sooner."""
    attention_initializer: Literal["normal", "neighbours"] = "normal"
    """What the first layer's heads start from: the published noise, or each a neighbour before or after, found by the waves."""

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
            "neighbours are found by waves; set encoder.position_initializer=sinusoidal.",
        )
        require(self.position_initializer == "normal" or self.width % 2 == 0, "width", self.width, "waves come in pairs; it must be even.")
        require(
            self.attention_initializer == "normal" or self.width // self.heads >= 4,
            "heads",
            self.heads,
            "heads that attend to neighbours need four dimensions or more each; take fewer heads.",
        )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The published sizes (Devlin et al. 2019; Turc et al. 2019): tiny, mini, small, medium, base, large.

        Raises:
            InputError: no such size.
        """
        return dataclasses.replace(cls(), **(_published_sizes(name) | changes))

    def resized(self, name: str) -> Self:
        """This encoder with a preset's layers, width, heads, feed-forward width and initializers; every other value stays.

        Raises:
            InputError: no such size.
        """
        return dataclasses.replace(self, **_published_sizes(name))


def _published_sizes(name: str) -> dict[str, Any]:
    sizes = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768), "large": (24, 1024)}
    if name not in sizes:
        raise InputError(f"There is no encoder preset {name!r}. The presets are {', '.join(sizes)}.")
    layers, width = sizes[name]
    # What suits the initialization of a narrow encoder does not suit a wide one, so it is part of the size.
    initializers = ("initializer_range", "position_initializer", "attention_initializer")
    published = {field.name: field.default for field in dataclasses.fields(EncoderConfig) if field.name in initializers}
    return {"layers": layers, "width": width, "heads": width // 64, "feed_forward": 4 * width} | published
