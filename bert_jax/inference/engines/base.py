"""The interface of an inference engine: what computes the hidden states of a model. Heads and pooling are always computed by JAX."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np

from bert_jax.config import ComputeConfig
from bert_jax.data.packing import Batch
from bert_jax.model.directory import ModelDescription


class HiddenStates(Protocol):
    """Encodes batches outside of JAX."""

    @property
    def tokens(self) -> int:
        """Tokens per device in a full batch."""

    def __call__(self, fields: Batch, /) -> np.ndarray:
        """Return the hidden states of the last layer, float32 [B, L, D], for the fields of a batch; zeros where there is padding."""


class Engine(ABC):
    """An inference engine, without state.

    Attributes:
        name: the value of `bert_jax.load(engine=...)` and of --engine.
        dtypes: the values of `dtype` that it supports.
    """

    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def compute(self, compute: ComputeConfig | None, dtype: str | None) -> ComputeConfig:
        """Return how JAX computes what is left to it.

        Raises:
            InputError: the engine has no use for `compute`.
        """

    @abstractmethod
    def hidden_states(self, description: ModelDescription, params: Any, dtype: str | None) -> HiddenStates | None:
        """Return what encodes batches, or None if JAX computes the whole model.

        Raises:
            InputError: the engine cannot compute this model, or is not installed.
        """
