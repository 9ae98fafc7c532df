"""Fused attention on four devices, cut over rows and heads, beside dense attention on one; prints the largest difference."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bert_jax.model.attention import attend_within
from bert_jax.model.fused_attention import splash_attention
from bert_jax.model.kernels.flash_attention import flash_attention

ids = jnp.asarray(np.repeat([[1, 2, 0]], [50, 70, 8], axis=1).repeat(4, 0), jnp.int32)
made = [jax.random.normal(key, (4, 128, 2, 64)) for key in jax.random.split(jax.random.key(0), 3)]
mesh = jax.make_mesh((2, 1, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


wanted = jax.jit(attend_within(ids, "dense"))(*made)
spread = [jax.device_put(x, NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))) for x in made]
worst = 0.0
for attend in (lambda *made: splash_attention(*made, ids, interpret=True), lambda *made: flash_attention(*made, ids)):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        found = jax.jit(attend)(*spread)
    assert found.sharding.shard_shape(found.shape) == (2, 128, 1, 64), found.sharding
    worst = max(worst, np.abs(np.asarray(found) - np.asarray(wanted))[np.asarray(ids) > 0].max())
print(worst)
