"""Peak FLOP/s of the devices, the denominator of model FLOPs utilization (MFU)."""

import functools
import time

import jax
import jax.numpy as jnp

# Prefix of `device_kind` -> dense bfloat16 FLOP/s of one device, as published by the vendor (Google Cloud's pages on TPU system
# architecture; NVIDIA's data sheets, without sparsity). The first matching prefix is used.
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

_SIZE, _REPEATS = 1024, 5


def peak_flops() -> float | None:
    """Return the peak FLOP/s of all devices of the job, or None if unknown.

    For TPUs and GPUs, this is the published bfloat16 peak, whatever dtype the model computes in. For CPUs, it is the throughput of a
    float32 matmul of two 1024 x 1024 matrices (best of five, measured once per process in 100 to 500 ms) times the number of
    processes. On a machine with other load, the measured peak is too low and MFU too high.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        # The devices of a CPU share its cores.
        return jax.process_count() * _measured()
    published = published_flops(device.device_kind)
    return None if published is None else jax.device_count() * published


def published_flops(device_kind: str) -> float | None:
    """Return the published dense bfloat16 FLOP/s of one device, or None if unknown."""
    return next((flops for kind, flops in _PUBLISHED.items() if device_kind.startswith(kind)), None)


@functools.cache
def _measured() -> float:
    matmul = jax.jit(lambda a, b: a @ b)
    a = jax.device_put(jnp.ones((_SIZE, _SIZE), jnp.float32), jax.local_devices()[0])
    matmul(a, a).block_until_ready()
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        matmul(a, a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best
