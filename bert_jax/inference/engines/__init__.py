"""What can compute an encoder at inference."""

from bert_jax.errors import InputError
from bert_jax.inference.engines.base import Engine
from bert_jax.inference.engines.onnx_runtime import ONNX_RUNTIME
from bert_jax.inference.engines.xla import JAX

ENGINES: tuple[Engine, ...] = (JAX, ONNX_RUNTIME)


def find_engine(name: str, dtype: str | None) -> Engine:
    """Return the engine of this name, which supports the dtype, if one is given.

    Raises:
        InputError: there is none.
    """
    for engine in ENGINES:
        if engine.name == name and (dtype is None or dtype in engine.dtypes):
            return engine
    known = "; ".join(f"{engine.name} with {' or '.join(engine.dtypes)}" for engine in ENGINES)
    raise InputError(f"There is no engine {name!r}{f' with dtype {dtype!r}' if dtype else ''}. The engines are {known}.")
