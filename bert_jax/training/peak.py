"""How many operations a second the devices could do at most: what model FLOP/s are a share of (MFU)."""

import functools
import time

import jax
import jax.numpy as jnp

# Beginning of `device_kind` -> dense bfloat16 operations a second of one device, as the makers publish them (Google Cloud's pages
# on TPU system architecture; NVIDIA's data sheets, without sparsity). The first that fits counts.
_PUBLISHED = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200 NVL": 836e12,
    "NVIDIA H200": 989e12,
}

_SIZE, _TIMES = 1024, 5


def peak_flops() -> float | None:
    """Operations a second of all devices of the job, or None where no figure is known.

    For TPUs and GPUs the published bfloat16 figure, whatever type the model computes in. For CPUs what each process's own
    machine reaches in a float32 product of two 1024 x 1024 matrices, the best of five, measured once in 100 to 500 ms: a
    machine that others use meanwhile seems slower than it is, and a share of its peak higher.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        # The devices of a CPU share its cores.
        return jax.process_count() * _measured()
    published = published_flops(device.device_kind)
    return None if published is None else jax.device_count() * published


def published_flops(device_kind: str) -> float | None:
    """The maker's dense bfloat16 operations a second of one device, or None where no figure is known."""
    return next((flops for kind, flops in _PUBLISHED.items() if device_kind.startswith(kind)), None)


@functools.cache
def _measured() -> float:
    product = jax.jit(lambda a, b: a @ b)
    a = jax.device_put(jnp.ones((_SIZE, _SIZE), jnp.float32), jax.local_devices()[0])
    product(a, a).block_until_ready()
    best = float("inf")
    for _ in range(_TIMES):
        begun = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - begun)
    return 2 * _SIZE**3 / best
