"""Low-rank adaptation (LoRA, Hu et al. 2021) as a transformation of parameters: models do not know of it.

The effective kernel of an adapted matrix is W + alpha / r * A B. The embeddings and the encoder with its kernels W are frozen; the factors
A [N, in, r] and B [N, r, out] and the head are trained. B starts at zero, so training starts from the pre-trained model.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from bert_jax.config import EncoderConfig, LoraConfig
from bert_jax.errors import InputError

_A, _B, _SCALE = "lora_a", "lora_b", "lora_scale"
_FROZEN = ("embeddings", "encoder")


def check_rank(config: LoraConfig, encoder: EncoderConfig) -> None:
    """Raise InputError if the rank exceeds that of an adapted matrix."""
    smallest = min([encoder.width, *(encoder.feed_forward for matrix in config.matrices if matrix.startswith("feed_forward"))])
    if config.rank > smallest:
        raise InputError(
            f"finetune.lora.rank={config.rank} exceeds the smaller side of a matrix of the encoder, {smallest}. Set "
            "--config.finetune.lora.rank to 4, 8 or 16, as is usual, or to 0 to train every parameter."
        )


def add_factors(params: Any, config: LoraConfig, key: jax.Array) -> Any:
    """Return a model's parameters with the factors and the scale alpha / r beside each adapted kernel [N, in, out].

    A is uniform within 1 / sqrt(in) of 0, as in the authors' implementation (github.com/microsoft/LoRA).
    """
    flat = flatten_dict(params)
    for index, matrix in enumerate(config.matrices):
        place = ("encoder", "layers", matrix)
        kernel = flat[(*place, "kernel")]
        layers, width, outputs = kernel.shape
        bound = 1 / math.sqrt(width)
        shape = (layers, width, config.rank)
        flat[(*place, _A)] = jax.random.uniform(jax.random.fold_in(key, index), shape, kernel.dtype, -bound, bound)
        flat[(*place, _B)] = jnp.zeros((layers, config.rank, outputs), kernel.dtype)
        flat[(*place, _SCALE)] = jnp.asarray(config.alpha / config.rank, kernel.dtype)
    return unflatten_dict(flat)


def divide(params: Any) -> tuple[Any, Any]:
    """Divide parameters with factors into those that are trained and those that are frozen; without factors, None is frozen."""
    flat = flatten_dict(params)
    if not any(path[-1] == _A for path in flat):
        return params, None
    trained = {path: leaf for path, leaf in flat.items() if path[-1] in (_A, _B) or path[0] not in _FROZEN}
    return unflatten_dict(trained), unflatten_dict({path: leaf for path, leaf in flat.items() if path not in trained})


def merge(trained: Any, frozen: Any) -> Any:
    """Return the parameters of the model, with the effective kernels."""
    return _combined(trained, frozen, _effective)


def base(trained: Any, frozen: Any) -> Any:
    """Return the parameters of the model without the factors' part of the kernels; also of shapes or shardings."""
    return _combined(trained, frozen, lambda kernel, a, b, scale: kernel)


def rebase(model: Any, trained: Any, frozen: Any) -> tuple[Any, Any]:
    """Return `trained` and `frozen` with the same factors for another model's parameters."""
    factors = {path: leaf for tree in (trained, frozen) for path, leaf in flatten_dict(tree).items() if path[-1] in (_A, _B, _SCALE)}
    return divide(unflatten_dict(flatten_dict(model) | factors))


def _combined(trained: Any, frozen: Any, kernel_of: Callable[..., Any]) -> Any:
    if frozen is None:
        return trained
    flat = flatten_dict(frozen) | flatten_dict(trained)
    for *place, name in list(flat):
        if name == _A:
            kernel, *factors = ((*place, part) for part in ("kernel", _A, _B, _SCALE))
            flat[kernel] = kernel_of(flat[kernel], *(flat.pop(factor) for factor in factors))
    return unflatten_dict(flat)


def _effective(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: jax.Array) -> jax.Array:
    # In full precision also where products of float32 are computed in bfloat16: the result is what is saved as the model.
    return kernel + scale * jnp.einsum("nir,nro->nio", a, b, precision=jax.lax.Precision.HIGHEST)
