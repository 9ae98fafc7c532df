"""What can compute an encoder at inference."""

from bert_jax.errors import InputError
from bert_jax.inference.engines.base import Engine
from bert_jax.inference.engines.onnx_runtime import ONNX_RUNTIME
from bert_jax.inference.engines.xla import JAX

ENGINES: tuple[Engine, ...] = (JAX, ONNX_RUNTIME)


def find_engine(name: str) -> Engine:
    """Return the engine of this name.

    Raises:
        InputError: there is none.
    """
    for engine in ENGINES:
        if engine.name == name:
            return engine
    raise InputError(f"There is no engine {name!r}. The engines are {', '.join(engine.name for engine in ENGINES)}.")
