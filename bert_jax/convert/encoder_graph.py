"""Writes an encoder as an ONNX graph of ONNX Runtime's fused operators, in float32 or with int8 matrix products. Needs the package onnx.

Nothing is traced or matched: each layer is written directly as the operators that ONNX Runtime has for it
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from typing import Any, Literal, TypeAlias

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bert_jax.config import EncoderConfig

OUTPUT = "hidden"
_INPUTS = {"tokens": ("B", "L"), "segments": ("B", "L"), "lengths": ("B",)}
_FUSED = "com.microsoft"
_OPSET, _IR_VERSION = 17, 10
_BLOCK = 128
"""Inputs of a product that share a scale, in products by blocks."""

Products: TypeAlias = Literal["float32", "int8", "int7"]


def encoder_graph(encoder: EncoderConfig, params: Any, products: Products) -> bytes:
    """Return an ONNX model that encodes one text, or pair of texts, per row.

    Its inputs are int32: `tokens` [B, L], `segments` [B, L] and `lengths` [B], how many tokens at the start of each row are not padding.
    Its output `hidden` is float32 [B, L, D], arbitrary where there is padding.

    Args:
        encoder: the architecture.
        params: its parameters `embeddings` and `encoder`, as arrays.
        products: type of the products with weights. `int8`: weights are scaled per output, and the inputs of a product by their range when
            it is computed; of the product that follows GELU, whose inputs have outliers, per block of 128, which costs more. `int7`: 7-bit
            weights, for CPUs that add two products in 16 bits. All else is float32.
    """
    graph = _Graph(encoder, products)
    hidden = graph.embed(params["embeddings"])
    layers = params["encoder"]["layers"]
    for index in range(encoder.layers):
        own = {name: {leaf: np.asarray(array[index]) for leaf, array in part.items()} for name, part in layers.items()}
        hidden = graph.layer(hidden, own)
    graph.add("Identity", [hidden], OUTPUT, domain="")
    return graph.serialized()


class _Graph:
    """The nodes and weights of a graph under construction. Methods add nodes and return the name of their output."""

    def __init__(self, encoder: EncoderConfig, products: Products) -> None:
        self._encoder, self._products = encoder, products
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def add(self, operator: str, inputs: list[str], *outputs: str, domain: str = _FUSED, **attributes: Any) -> str:
        names = outputs or (f"{operator}_{len(self._nodes)}",)
        self._nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names[0]

    def weight(self, array: Any) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def embed(self, params: Any) -> str:
        tables = [self.weight(params[name]) for name in ("tokens", "positions", "segments")]
        norm = [self.weight(params["norm"][leaf]) for leaf in ("scale", "bias")]
        epsilon = self._encoder.norm_epsilon
        return self.add("EmbedLayerNormalization", ["tokens", "segments", *tables, *norm], "embedded", "unused", epsilon=epsilon)

    def layer(self, hidden: str, params: Any) -> str:
        # One product for query, key and value.
        kernel, bias = (np.concatenate([params[name][leaf] for name in ("query", "key", "value")], -1) for leaf in ("kernel", "bias"))
        mixed = self.product(self.attention(hidden, kernel, bias), params["attention_output"]["kernel"])
        hidden = self.add_and_norm(mixed, hidden, params["attention_output"], params["attention_norm"])
        inner = self.product(hidden, params["feed_forward"]["kernel"])
        inner = self.add("BiasGelu", [inner, self.weight(params["feed_forward"]["bias"])])
        kernel = params["feed_forward_output"]["kernel"]
        outer = self.product_by_blocks(inner, kernel) if self._products == "int8" else self.product(inner, kernel)
        return self.add_and_norm(outer, hidden, params["feed_forward_output"], params["feed_forward_norm"])

    def attention(self, hidden: str, kernel: np.ndarray, bias: np.ndarray) -> str:
        heads, width = self._encoder.heads, self._encoder.width
        if self._products == "float32":
            return self.add("Attention", [hidden, self.weight(kernel), self.weight(bias), "lengths"], num_heads=heads)
        projected = self.product(hidden, kernel, bias)
        parts = [f"{name}_{len(self._nodes)}" for name in ("query", "key", "value")]
        self.add("Split", [projected, self.weight(np.full(3, width, np.int64))], *parts, domain="", axis=-1)
        return self.add("MultiHeadAttention", [*parts, "", "lengths"], num_heads=heads)

    def add_and_norm(self, hidden: str, residual: str, dense: Any, norm: Any) -> str:
        weights = [self.weight(array) for array in (norm["scale"], norm["bias"], dense["bias"])]
        return self.add("SkipLayerNormalization", [hidden, residual, *weights], epsilon=self._encoder.norm_epsilon)

    def product(self, hidden: str, kernel: np.ndarray, bias: np.ndarray | None = None) -> str:
        if self._products == "float32":
            return self.add("MatMul", [hidden, self.weight(kernel)], domain="")
        scale = _scale(kernel, 0, 127 if self._products == "int8" else 63)
        inputs = [hidden, self.weight(np.rint(kernel / scale).astype(np.int8)), self.weight(scale[0])]
        return self.add("DynamicQuantizeMatMul", inputs + ([] if bias is None else ["", self.weight(bias)]))

    def product_by_blocks(self, hidden: str, kernel: np.ndarray) -> str:
        inputs, outputs = kernel.shape
        padded = np.pad(kernel, ((0, -inputs % _BLOCK), (0, 0)))
        blocks = padded.T.reshape(outputs, -1, _BLOCK)
        scale = _scale(blocks, -1, 127)
        weights = [self.weight((np.rint(blocks / scale) + 128).astype(np.uint8)), self.weight(scale.reshape(-1))]
        sizes = {"K": inputs, "N": outputs, "bits": 8, "block_size": _BLOCK}
        return self.add("MatMulNBits", [hidden, *weights], accuracy_level=4, **sizes)  # 4: int8 inputs

    def serialized(self) -> bytes:
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, axes) for name, axes in _INPUTS.items()]
        output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["B", "L", self._encoder.width])
        graph = helper.make_graph(self._nodes, "encoder", inputs, [output], self._weights)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString()


def _scale(kernel: np.ndarray, axis: int, greatest: int) -> np.ndarray:
    """Return the scale with which the integers -greatest to greatest cover the values along an axis, which is kept."""
    return np.maximum(np.abs(kernel).max(axis, keepdims=True) / np.float32(greatest), np.finfo(np.float32).tiny)
