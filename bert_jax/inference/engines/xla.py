"""JAX as the engine: encoder and heads are one program."""

import dataclasses
from typing import Any, Literal, cast

from bert_jax.config import ComputeConfig
from bert_jax.inference.engines.base import Engine
from bert_jax.model.directory import ModelDescription


class _Jax(Engine):
    name, dtypes = "jax", ("float32", "bfloat16")

    def compute(self, compute: ComputeConfig | None, dtype: str | None) -> ComputeConfig:
        compute = compute or ComputeConfig()
        return dataclasses.replace(compute, dtype=cast(Literal["float32", "bfloat16"], dtype)) if dtype else compute

    def hidden_states(self, description: ModelDescription, params: Any, dtype: str | None) -> None:
        del description, params, dtype


JAX = _Jax()
