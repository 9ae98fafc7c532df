"""A model on its devices: queries run through compiled forward passes, with several batches in flight."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_jax.data.queries import BatchShapes, PackedBatch, Queries, packed_batches
from bert_jax.data.reader import MaskingTokens
from bert_jax.errors import InputError
from bert_jax.inference.engines.base import HiddenStates
from bert_jax.model.pooling import pool
from bert_jax.runtime.ahead import Finish

_TOKENS = {"cpu": 2048}
_ACCELERATOR_TOKENS = 32 * 512
"""Tokens per device and batch. A CPU computes several batches concurrently, a GPU one at a time."""
_LEAST_MASKED, _TOKENS_PER_MASKED = 32, 64
"""Masked tokens that go through the vocabulary head at once: at least 32, and in large batches one for every 64 tokens of the batch."""


class Forward:
    """Computes answers to queries, in the order of the queries.

    Methods that return a `Finish` dispatch all batches to the devices; calling the result waits for the answers.

    Attributes:
        model: the Flax module.
        params: the parameters, replicated on every device.
        shapes: the batch shapes.
    """

    def __init__(self, model: Any, params: Any, special: MaskingTokens, mesh: Mesh, hidden_states: HiddenStates | None = None) -> None:
        """Rows are sharded along the single axis of the mesh. `hidden_states` encodes batches, if another engine than JAX does."""
        self.params = params
        tokens = _TOKENS.get(mesh.devices.flat[0].platform, _ACCELERATOR_TOKENS)
        self.shapes = BatchShapes(mesh.size, hidden_states.tokens if hidden_states else tokens)
        self.model, self._special, self._hidden_states = model, special, hidden_states
        self._rows = NamedSharding(mesh, PartitionSpec("data"))

    def vectors(self, queries: Queries, modes: tuple[str, ...], layer: int | None, skipped: int = 0) -> Finish[np.ndarray]:
        """Pool the hidden states of each example: float32 [n, D * modes].

        Args:
            queries: the examples.
            modes: the poolings, whose vectors are concatenated.
            layer: the layer whose hidden states are pooled, 0 for the embeddings; None for the last layer.
            skipped: how many of the first tokens of each example, starting with [CLS], to exclude.

        Raises:
            InputError: `layer` is given, but the engine returns the states of the last layer only.
        """
        if layer is not None:
            self.check_every_layer()

        def work(batch: Any) -> jax.Array:
            hidden = self.encode(batch, layer)
            layout = (batch[name] for name in ("example_ids", "positions", "cls_positions"))
            return _pool(hidden, *layout, modes=modes, skipped=np.int32(skipped))

        return self.per_example(queries, work)

    def check_every_layer(self) -> None:
        """Check that the engine computes all layers.

        Raises:
            InputError: it returns the hidden states of the last layer only.
        """
        if self._hidden_states:
            raise InputError('This engine computes the last layer only. To look into the model, load it with engine="jax".')

    def queries_and_keys(self, batch: Any) -> jax.Array:
        """Return the queries and keys of every layer, float32 [B, L, N, 2, D]; see `BertModel.queries_and_keys`."""
        return _queries_and_keys(self.model, self.params, batch)

    def encode(self, batch: Any, layer: int | None = None) -> jax.Array:
        """Return the hidden states [B, L, D] of a layer, 0 for the embeddings; None for the last layer."""
        return _encode(self.model, self.params, batch, layer=layer)

    def _dispatch(self, queries: Queries) -> Iterator[tuple[PackedBatch, Any]]:
        """Yield each batch on the host, and its fields on the devices."""
        for packed in packed_batches(queries, self._special, self.shapes):
            fields = packed.fields | {"hidden": self._hidden_states(packed.fields)} if self._hidden_states else packed.fields
            yield packed, jax.device_put(fields, self._rows)

    def per_example(self, queries: Queries, work: Callable[[Any], jax.Array]) -> Finish[np.ndarray]:
        """Apply `work`, which returns [B, E, ...] for a batch, and return its result for each example: [n, ...]."""
        sent = [(packed.examples, work(batch)) for packed, batch in self._dispatch(queries)]
        return lambda: _in_order([(own.indices, (own.rows, own.columns), answers) for own, answers in sent])

    def per_token(self, queries: Queries, work: Callable[[Any], jax.Array]) -> Finish[np.ndarray]:
        """Apply `work`, which returns [B, L, ...] for a batch, and return its result for each token of each example.

        Returns:
            [t, ...]: the tokens of the first example from [CLS] to the last [SEP], then those of the second, and so on.
        """
        ends = np.cumsum(queries.examples.lengths)
        begins = ends - queries.examples.lengths
        sent = []
        for packed, batch in self._dispatch(queries):
            table = np.zeros(packed.fields["cls_positions"].shape, np.int64)
            table[packed.examples.rows, packed.examples.columns] = begins[packed.examples.indices]
            rows, columns = np.nonzero(packed.fields["example_ids"])
            ids, positions = (packed.fields[name][rows, columns] for name in ("example_ids", "positions"))
            sent.append((table[rows, ids - 1] + positions, (rows, columns), work(batch)))
        return lambda: _in_order(sent)

    def per_masked_token(self, queries: Queries, head: Callable[..., Any]) -> Finish[Any]:
        """Apply `head` to all masked tokens, in slices of fixed size, and return its results: [c, ...].

        `head(hidden, rows, columns, which)` gets the hidden states of a batch and, int32 [S] each, the rows and columns of masked
        tokens and their indices among all masked tokens.
        """
        sent = []
        for packed, batch in self._dispatch(queries):
            hidden = self.encode(batch)
            size = max(_LEAST_MASKED, batch["tokens"].size // _TOKENS_PER_MASKED)
            which, rows, columns = packed.masked
            for begin in range(0, len(which), size):
                # The last slice is padded to the fixed size by repetition.
                part = (np.resize(field[begin : begin + size], size).astype(np.int32) for field in (rows, columns, which))
                own = which[begin : begin + size]
                sent.append((own, slice(len(own)), head(hidden, *part)))
        return lambda: _in_order(sent)


def _in_order(sent: list[tuple[np.ndarray, Any, Any]]) -> Any:
    """Concatenate answers (arrays or trees of arrays) in the order of their indices.

    Args:
        sent: for each batch, the indices [k] of its answers, an index that selects them from the device's output, and that output.
    """

    def read(where: Any, answers: Any) -> Any:
        return jax.tree.map(lambda array: np.asarray(array)[where], answers)

    order = np.argsort(np.concatenate([indices for indices, _, _ in sent]))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *(read(where, answers) for _, where, answers in sent))


# Compiled once per architecture and shape, regardless of the parameters: models with the same architecture share the programs.


@partial(jax.jit, static_argnames=("model", "layer"))
def _encode(model: Any, params: Any, batch: Any, layer: int | None = None) -> jax.Array:
    """Return the hidden states [B, L, D] of a layer, 0 for the embeddings; None for the last layer."""
    hidden, states = model.apply({"params": params}, batch, method="encode", every_layer=layer is not None)
    # `layer` is static, so the compiler drops the layers above it.
    return hidden if layer is None else jax.lax.index_in_dim(states, layer, keepdims=False)


@partial(jax.jit, static_argnames="model")
def _queries_and_keys(model: Any, params: Any, batch: Any) -> jax.Array:
    found: jax.Array = model.apply({"params": params}, batch, method="queries_and_keys")
    return found


_pool = jax.jit(pool, static_argnames="modes")
