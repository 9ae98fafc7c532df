"""Fused attention kernels for TPUs and NVIDIA GPUs, which never materialize the [L, L] weights in memory."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from bert_jax.model.per_device import ROWS, ROWS_AND_HEADS, on_each_device

LANES = 128
"""`splash_attention` requires a row length that is a multiple of this."""
_MAX_BLOCK = 512


def splash_attention(query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array, interpret: bool = False) -> jax.Array:
    """Softmax attention within examples with JAX's Pallas kernel for TPUs: [B, L, H, K] x 3, int32 [B, L] -> [B, L, H, K].

    L must be a multiple of 128. Under a mesh (`jax.sharding.use_abstract_mesh`) each device computes its own rows and heads, since XLA
    cannot partition a custom kernel. `interpret` emulates the kernel on a CPU, slowly.
    """

    def on_one_device(query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array) -> jax.Array:
        _, length, heads, depth = query.shape
        block = next(size for size in (_MAX_BLOCK, 384, 256, LANES) if length % size == 0)
        kernel = kernels.make_splash_mha(
            masks.MultiHeadMask([masks.FullMask((length, length))] * heads),
            block_sizes=kernels.BlockSizes(
                block_q=block,
                block_kv=block,
                block_kv_compute=block,
                block_q_dkv=block,
                block_kv_dkv=block,
                block_kv_dkv_compute=block,
                block_q_dq=block,
                block_kv_dq=block,
            ),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        scaled = query * jnp.asarray(depth**-0.5, query.dtype)
        by_head = [x.transpose(0, 2, 1, 3) for x in (scaled, key, value)]
        mixed: jax.Array = jax.vmap(kernel)(*by_head, kernels.SegmentIds(example_ids, example_ids))
        return mixed.transpose(0, 2, 1, 3)

    mixed: jax.Array = on_each_device(on_one_device, (*(ROWS_AND_HEADS,) * 3, ROWS), ROWS_AND_HEADS)(query, key, value, example_ids)
    return mixed


def library_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, example_ids: jax.Array, implementation: Literal["xla", "cudnn"] = "cudnn"
) -> jax.Array:
    """Softmax attention within examples with `jax.nn`, by default with the cuDNN kernel. Shapes as in `splash_attention`."""
    same_example = example_ids[:, None, :, None] == example_ids[:, None, None, :]
    return jax.nn.dot_product_attention(query, key, value, mask=same_example, implementation=implementation)
