"""What every stage of training has: an optimizer and a loop."""

import re
from dataclasses import dataclass
from typing import Literal

from bert_jax.config.checks import fraction, not_negative, positive, require


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or LAMB with warm-up, decay and clipping."""

    name: Literal["adamw", "lamb"] = "adamw"
    learning_rate: float = 1e-4
    warmup_fraction: float = 0.1
    decay: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 does not clip."""
    ema: float = 0.0
    """Decay of an exponential moving average of the parameters, which is then evaluated and is the saved model; 0 keeps none."""
    skip_above: float = 0.0
    """Skip an update whose loss exceeds so many times the running mean of the losses; 0 skips none that is finite."""

    def __post_init__(self) -> None:
        positive(self, "learning_rate", "epsilon")
        fraction(self, "warmup_fraction", "beta1", "beta2", "ema")
        not_negative(self, "weight_decay", "clip_norm")
        require(
            self.skip_above == 0 or self.skip_above > 1, "skip_above", self.skip_above, "it must be 0 (off) or more than 1 time the mean."
        )


@dataclass(frozen=True)
class LoopConfig:
    """How often the loop reports, evaluates and saves, in steps; and when it gives up."""

    log_every: int = 50
    evaluate_every: int = 1000
    save_every: int = 1000
    keep: int = 2
    """Newest checkpoints kept, beside the best."""
    verify: Literal["before", "background"] = "before"
    """When a run that goes on verifies the hashes of its checkpoints: before its first step, or in a thread while the first steps run."""
    max_skipped: int = 10
    """Updates skipped in a row, for a loss or a gradient that is not finite, at which the run stops."""
    profile: str = ""
    """Steps to trace with jax.profiler into `profile` inside the stage's directory: `100:105` is the first and the last, empty none."""

    def __post_init__(self) -> None:
        positive(self, "log_every", "evaluate_every", "save_every", "keep", "max_skipped")
        steps = re.fullmatch("([0-9]+):([0-9]+)", self.profile or "1:1")
        require(
            steps is not None and 0 < int(steps[1]) <= int(steps[2]),
            "profile",
            self.profile,
            "name the first and the last step to trace, counted from 1, such as 100:105.",
        )
