"""ONNX Runtime as the engine: the encoder is one of its graphs, in float32 or with int8 matrix products. Needs onnx and onnxruntime.

Examples share rows in our batches; here, each has a row of its own among others of about its length, since padding to the longest of a
few similar ones costs less than attention across a packed row.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import ComputeConfig, EncoderConfig
from bert_jax.data.packing import Batch
from bert_jax.errors import InputError
from bert_jax.inference.engines.base import Engine
from bert_jax.model.directory import ModelDescription
from bert_jax.runtime.cache import cpu_features, kept

_BATCH_TOKENS = 16_384
"""Tokens of a packed batch; of many examples, more are of similar length."""
_GROUP_TOKENS = 1024
"""Tokens that are computed at once."""
_LARGEST_GRAPH = 2**31 - 2**24
"""Bytes of weights in a graph: its format holds 2 GiB."""
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")
"""CPU features that add int8 products in 32 bits. x86 CPUs without them add two in 16 bits, which overflow unless weights have 7 bits."""


class _OnnxRuntime(Engine):
    name, dtypes = "onnxruntime", ("float32", "int8")

    def compute(self, compute: ComputeConfig | None, dtype: str | None) -> ComputeConfig:
        del dtype
        if compute:
            raise InputError('`compute` is for engine="jax". With engine="onnxruntime", give only `dtype`.')
        return ComputeConfig()

    def hidden_states(self, description: ModelDescription, params: Any, dtype: str | None) -> "_Encoder":
        if description.input.units:
            raise InputError(
                f"The engine onnxruntime supports only text models, but this one reads {description.input.modality} units. Use engine=jax."
            )
        _check_installed()
        own = {part: params[part] for part in ("embeddings", "encoder")}
        _check_size(own)
        return _Encoder(description.encoder.width, partial(_graph, description.encoder, own, dtype or "float32"))


class _Encoder:
    """A graph in ONNX Runtime, on all cores that this process may use."""

    tokens = _BATCH_TOKENS

    def __init__(self, width: int, graph: Callable[[], bytes]) -> None:
        """`graph` returns the graph; called again if the number of texts later calls for another use of the cores."""
        self._width, self._graph = width, graph
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._cores)
        self._sessions: dict[int, Any] = {}

    def __call__(self, fields: Batch, /) -> np.ndarray:
        cells = np.flatnonzero(fields["example_ids"])  # of all tokens, row by row and hence example by example
        tokens, segments, positions = (fields[name].reshape(-1)[cells] for name in ("tokens", "segments", "positions"))
        begins = np.flatnonzero(positions == 0)
        lengths = np.diff(begins, append=len(cells))
        feeds, places = [], []
        for group in _groups(lengths):
            columns = np.arange(lengths[group].max())
            real = columns < lengths[group, None]
            where = np.where(real, begins[group, None] + columns, begins[group, None])
            feeds.append({"tokens": tokens[where], "segments": segments[where], "lengths": lengths[group].astype(np.int32)})
            places.append((real, cells[where[real]]))
        hidden = np.zeros((fields["tokens"].size, self._width), np.float32)
        for (real, own), states in zip(places, self._states(feeds), strict=True):
            hidden[own] = states[real]
        return hidden.reshape(*fields["tokens"].shape, self._width)

    def _states(self, feeds: list[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Compute many groups one per core, which never wait for each other, and few with all cores on each."""
        many = len(feeds) >= 2 * self._cores
        session = self._session(1 if many else self._cores)
        return (self._pool.map if many else map)(lambda feed: session.run(None, feed)[0], feeds)

    def _session(self, threads: int) -> Any:
        import onnxruntime

        if threads not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.enable_mem_pattern = False  # plans memory for each shape, and there are many
            # Waiting threads would take cores from the tokenizer and from JAX.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._sessions[threads] = onnxruntime.InferenceSession(self._graph(), options, providers=["CPUExecutionProvider"])
        return self._sessions[threads]


def _groups(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the indices of examples to compute at once, longest first."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, _GROUP_TOKENS // int(lengths[order[start]]))
        yield order[start:stop]
        start = stop


def _graph(encoder: EncoderConfig, params: Any, dtype: str) -> bytes:
    """Return the graph of an encoder, kept for the next start."""
    import onnx
    import onnxruntime

    from bert_jax.convert import encoder_graph as writer

    params = jax.device_get(params)
    products: writer.Products = "float32" if dtype == "float32" else "int7" if cpu_features().isdisjoint(_DOT_PRODUCTS) else "int8"
    digest = hashlib.sha256(repr(encoder).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    # A graph is only as good as the code that wrote it, whose version may not have changed.
    digest.update(Path(writer.__file__).read_bytes())
    name = f"{digest.hexdigest()[:32]}-{products}.onnx"
    return kept(name, lambda: writer.encoder_graph(encoder, params, products), "graphs", onnx.__version__, onnxruntime.__version__)


def _check_installed() -> None:
    # By default, ONNX Runtime reports its use to Microsoft, which nobody asked us for.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            "engine=onnxruntime needs the packages onnx and onnxruntime, which are not installed: pip install onnx onnxruntime."
        ) from error


def _check_size(params: Any) -> None:
    if (size := sum(leaf.nbytes for leaf in jax.tree.leaves(params))) > _LARGEST_GRAPH:
        raise InputError(f"The engine onnxruntime is limited to encoders of 2 GiB; this one has {size / 2**30:.1f} GiB. Use engine=jax.")


ONNX_RUNTIME = _OnnxRuntime()
