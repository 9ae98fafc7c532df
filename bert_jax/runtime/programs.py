"""Keeps the programs that JAX compiles, so that the same command starts faster the next time."""

import jax
from jaxlib import version as jaxlib

from bert_jax.runtime.cache import folder

_LEAST_SECONDS = 0.01
"""Programs that compile faster are not kept; there are hundreds of them."""


def keep_programs() -> None:
    """Have JAX keep compiled programs in this user's cache, unless the user has chosen a folder for them or turned the cache off.

    Called by the commands only: a library should not decide this for a whole process.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    if directory := folder("programs", jax.__version__, jaxlib.__version__):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
