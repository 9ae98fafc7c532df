"""Configuration that all training stages share: the optimizer and the training loop."""

import re
from dataclasses import dataclass
from typing import Literal

from bert_jax.config.checks import fraction, not_negative, positive, require


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or LAMB with learning-rate warmup and decay, and gradient clipping."""

    name: Literal["adamw", "lamb"] = "adamw"
    """AdamW (Loshchilov and Hutter 2019), or LAMB for batches of many thousand rows (You et al. 2020)."""
    learning_rate: float = 1e-4
    """The highest learning rate, reached after the warm-up."""
    warmup_fraction: float = 0.1
    """Share of the steps in which the learning rate rises linearly to `learning_rate`."""
    decay: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls to 0 in the steps after the warm-up; `constant` keeps it."""
    weight_decay: float = 0.01
    """Decoupled weight decay of all parameters but biases and layer norms."""
    beta1: float = 0.9
    """Decay of the mean of the gradients."""
    beta2: float = 0.999
    """Decay of the mean of the squared gradients."""
    epsilon: float = 1e-6
    """Added to the root of the mean squared gradient."""
    clip_norm: float = 1.0
    """Maximum global norm of the gradient; 0 disables clipping."""
    layer_decay: float = 1.0
    """Learning rate of a layer, relative to that of the layer above; the heads have the full rate, and the embeddings the lowest."""
    frozen_layers: int = -1
    """0 keeps the embeddings as they are, and n also the first n layers; -1 trains everything."""
    ema: float = 0.0
    """Decay of an exponential moving average of the parameters, which is evaluated and saved as the model; 0 disables it."""
    skip_above: float = 0.0
    """Skip updates whose loss exceeds this multiple of the running mean loss; 0 skips only non-finite ones."""

    def __post_init__(self) -> None:
        positive(self, "learning_rate", "epsilon")
        fraction(self, "warmup_fraction", "beta1", "beta2", "ema")
        not_negative(self, "weight_decay", "clip_norm")
        require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "it must be greater than 0 and at most 1.")
        require(self.frozen_layers >= -1, "frozen_layers", self.frozen_layers, "it must be a number of layers, or -1 for none.")
        require(
            self.skip_above == 0 or self.skip_above > 1, "skip_above", self.skip_above, "it must be 0 (off) or greater than 1."
        )


@dataclass(frozen=True)
class LoopConfig:
    """How often the training loop logs, evaluates and saves, in steps, and when it gives up."""

    log_every: int = 50
    """Steps per line of training metrics in metrics.jsonl; a line has the means over these steps."""
    evaluate_every: int = 1000
    """Steps between evaluations on held-out data; there is always one after the last step."""
    save_every: int = 1000
    """Steps between checkpoints: the most that a killed run repeats. There is always one after the last step."""
    keep: int = 2
    """Number of latest checkpoints to keep, in addition to the best one."""
    verify: Literal["before", "background"] = "before"
    """When a resumed run verifies checkpoint hashes: before its first step, or in a background thread during the first steps."""
    max_skipped: int = 10
    """Number of consecutive updates skipped for a non-finite loss or gradient after which the run stops."""
    profile: str = ""
    """Range of steps to trace with jax.profiler, such as `100:105` (inclusive), into `profile` in the stage's directory; empty for none."""

    def __post_init__(self) -> None:
        positive(self, "log_every", "evaluate_every", "save_every", "keep", "max_skipped")
        steps = re.fullmatch("([0-9]+):([0-9]+)", self.profile or "1:1")
        require(
            steps is not None and 0 < int(steps[1]) <= int(steps[2]),
            "profile",
            self.profile,
            "give the first and last step to trace, counting from 1, such as 100:105.",
        )
