"""A model on its devices: queries go through compiled forward passes, several batches at the same time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.data.queries import BatchShapes, PackedBatch, Queries, packed_batches
from bert_jax.data.reader import MaskingTokens
from bert_jax.model.pooling import pool
from bert_jax.runtime.ahead import Finish

_TOKENS = {"cpu": 2048}
_ACCELERATOR_TOKENS = 32 * 512
"""Tokens that a device takes at once. A CPU works on several batches at the same time, a GPU on one."""
_PLACES, _TOKENS_A_PLACE = 32, 64
"""Covered tokens that go through the vocabulary head at once: at least so many, and one for so many tokens of a batch."""


class Forward:
    """Answers to queries, in their order. Every method sends all batches to the devices and returns what waits for them.

    Attributes:
        model: the Flax module.
        params: the parameters, on every device.
        shapes: the shapes of batches.
    """

    def __init__(self, model: Any, params: Any, special: MaskingTokens, mesh: Mesh) -> None:
        """Rows are cut over the one axis of the mesh."""
        self.params = params
        self.shapes = BatchShapes(mesh.size, _TOKENS.get(mesh.devices.flat[0].platform, _ACCELERATOR_TOKENS))
        self.model, self._special = model, special
        self._rows = NamedSharding(mesh, PartitionSpec("data"))

    def vectors(self, queries: Queries, modes: tuple[str, ...], layer: int | None, skipped: int = 0) -> Finish[np.ndarray]:
        """Of every example, from a layer below the last (0 the embeddings) or from the last: float32 [n, D * modes].

        The first `skipped` tokens of each example, [CLS] the first, do not count.
        """

        def work(batch: Any) -> jax.Array:
            hidden = self.encode(batch, layer)
            places = (batch[name] for name in ("example_ids", "positions", "cls_positions"))
            return _pool(hidden, *places, modes=modes, skipped=np.int32(skipped))

        return self.of_examples(queries, work)

    def encode(self, batch: Any, layer: int | None = None) -> jax.Array:
        """Hidden states [B, L, D] of the last layer, or of a layer below, 0 being the embeddings."""
        return _encode(self.model, self.params, batch, layer=layer)

    def _sent(self, queries: Queries) -> Iterator[tuple[PackedBatch, Any]]:
        """Batches as they are here, and as they are on the devices."""
        for packed in packed_batches(queries, self._special, self.shapes):
            yield packed, jax.device_put(packed.fields, self._rows)

    def of_examples(self, queries: Queries, work: Callable[[Any], jax.Array]) -> Finish[np.ndarray]:
        """What `work` makes of every slot of a batch [B, E, ...], for each example [n, ...]."""
        sent = [(packed.examples, work(batch)) for packed, batch in self._sent(queries)]
        return lambda: _in_order([(own.indices, (own.rows, own.columns), answers) for own, answers in sent])

    def at_masked(self, queries: Queries, head: Callable[..., Any]) -> Finish[Any]:
        """What `head` makes of all masked tokens [c, ...], some at a time.

        It gets the hidden states of a batch and, int32 [S] each, the rows and columns of masked tokens, and which they are.
        """
        sent = []
        for packed, batch in self._sent(queries):
            hidden = self.encode(batch)
            size = max(_PLACES, batch["tokens"].size // _TOKENS_A_PLACE)
            which, rows, columns = packed.masked
            for begin in range(0, len(which), size):
                # Repeated where there are fewer.
                part = (np.resize(field[begin : begin + size], size).astype(np.int32) for field in (rows, columns, which))
                own = which[begin : begin + size]
                sent.append((own, slice(len(own)), head(hidden, *part)))
        return lambda: _in_order(sent)


def _in_order(sent: list[tuple[np.ndarray, Any, Any]]) -> Any:
    """Answers, an array or several, by the indices [k] of those in each part; `where` picks these out of what the devices gave."""

    def read(where: Any, answers: Any) -> Any:
        return jax.tree.map(lambda array: np.asarray(array)[where], answers)

    order = np.argsort(np.concatenate([indices for indices, _, _ in sent]))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *(read(where, answers) for _, where, answers in sent))


# Compiled once for each architecture and shape, whatever the parameters: two models of one kind share the programs.


@partial(jax.jit, static_argnames=("model", "layer"))
def _encode(model: Any, params: Any, batch: Any, layer: int | None = None) -> jax.Array:
    """Hidden states [B, L, D] of the last layer, or of a layer below, 0 being the embeddings."""
    hidden, states = model.apply({"params": params}, batch, method="encode", every_layer=layer is not None)
    # The place is known when this is compiled, so that the layers above are left out.
    return hidden if layer is None else jax.lax.index_in_dim(states, layer, keepdims=False)


_pool = jax.jit(pool, static_argnames="modes")
