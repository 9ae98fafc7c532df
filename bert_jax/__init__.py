"""bert_jax: pre-train, fine-tune and use BERT encoders in JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bert_jax.runtime import moved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from bert_jax.config import ComputeConfig
    from bert_jax.inference import Bert
    from bert_jax.modalities.base import Modality
    from bert_jax.tasks.base import Task

__all__ = ["__version__", "load"]
__version__ = "0.1.0"

moved.install()


def load(
    path: str | Path,
    compute: ComputeConfig | None = None,
    tasks: Sequence[Task] = (),
    modalities: Sequence[Modality[Any, Any]] = (),
    *,
    engine: str = "jax",
    dtype: str | None = None,
) -> Bert:
    """Load a trained model for inference; shorthand for `bert_jax.inference.load`."""
    from bert_jax import inference  # imports JAX, which `import bert_jax` should not have to wait for

    return inference.load(path, compute, tasks, modalities, engine=engine, dtype=dtype)
