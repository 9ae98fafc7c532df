"""How large a model to pre-train in the time there is: measurements of `benchmarks/scaling.py`, and the speed of this machine."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

FILE = "scaling.json"
"""Script -> what was measured on text of it."""
BUDGETS = {"5 minutes": 300.0, "20 minutes": 1200.0, "one hour": 3600.0}
_BEYOND = 3.0
"""How far a curve is followed beyond its last point, as a factor of its tokens; before its first it is not."""
_NEAR = 1.1
"""The same before its first point, as times of steps vary."""
_MOST_EPOCHS = 4.0
"""Passes over a corpus that are about as good as new text (Muennighoff et al. 2023)."""


@dataclass(frozen=True)
class Size:
    """What was measured of one size.

    Attributes:
        name: the size.
        tokens_per_second: in pre-training, on the machine that measured.
        points: numbers of training tokens in ascending order, each with the held-out bits per character after so many, of runs whose
            learning rate ended there.
    """

    name: str
    tokens_per_second: float
    points: Sequence[tuple[float, float]]

    def bits(self, tokens: float) -> float | None:
        """Return the bits per character after so many tokens, by the power law through the nearest points; None if they are too far."""
        if len(self.points) < 2 or not self.points[0][0] / _NEAR <= tokens <= self.points[-1][0] * _BEYOND:
            return None
        after = next((i for i, (place, _) in enumerate(self.points) if place > tokens), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[max(after, 1) - 1], self.points[max(after, 1)]
        share = math.log(tokens / x0) / math.log(x1 / x0)
        return y0 * (y1 / y0) ** share


@dataclass(frozen=True)
class Scaling:
    """What was measured on text of one script.

    Attributes:
        peak_flops: FLOP/s of the machine that measured (`bert_jax.training.peak`).
        tokens_per_character: of the text, other than white space.
        sizes: at least two, so that there is a choice.
    """

    peak_flops: float
    tokens_per_character: float
    sizes: Sequence[Size]

    def lines(self, peak_flops: float, characters: int) -> list[str]:
        """Return a line of advice for each budget that lies within what was measured.

        Args:
            peak_flops: of the machine to train on.
            characters: of the corpus, other than white space.
        """
        lines = []
        for budget, seconds in BUDGETS.items():
            found = []
            for size in self.sizes:
                tokens = size.tokens_per_second * seconds * peak_flops / self.peak_flops
                if (bits := size.bits(tokens)) is not None:
                    found.append((bits, tokens, size.name))
            if len(found) > 1:
                bits, tokens, name = min(found)
                epochs = tokens / (self.tokens_per_character * characters)
                text = f"{budget} on this machine: {name}, {_count(tokens)} tokens, about {bits:.1f} bits per character"
                lines.append(text + (f" on more text: that is {epochs:.0f} epochs of this corpus" if epochs > _MOST_EPOCHS else ""))
        return lines


def advice(script: str, characters: int) -> list[str]:
    """Return which size to pre-train for how long, one line per budget; none for text or machines unlike any that was measured.

    The speed of a CPU is measured, which takes up to a second.

    Args:
        script: of the corpus, as `bert_jax.modalities.text.inspection.Inspection` has it.
        characters: of the corpus, other than white space.
    """
    measured = scaling(json.loads(files("bert_jax.stages").joinpath(FILE).read_text(encoding="utf-8")).get(script))
    if measured is None or not characters:
        return []
    from bert_jax.training.peak import peak_flops

    flops = peak_flops()
    return measured.lines(flops, characters) if flops else []


def scaling(stored: Mapping[str, Any] | None) -> Scaling | None:
    """Return the measurements from a value of the file; None if there are none."""
    if not stored:
        return None
    sizes = [Size(name, one["tokens_per_second"], [(x, y) for x, y in one["points"]]) for name, one in stored["sizes"].items()]
    return Scaling(stored["peak_flops"], stored["tokens_per_character"], sizes)


def _count(tokens: float) -> str:
    return f"{tokens / 1e6:.0f}M" if tokens >= 1e7 else f"{tokens / 1e6:.1f}M"
