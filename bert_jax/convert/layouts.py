"""Converts tensors to parameters and back by a family's entries, and computes the shapes that tensors must have."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.families.base import Entry, Layout


def to_parameters(tensors: Mapping[str, np.ndarray], entries: Iterable[Entry]) -> dict[str, Any]:
    """Build the parameter tree of some entries from the tensors of a state dict.

    Raises:
        KeyError: a tensor is missing; the key is its name.
    """
    arrays: dict[tuple[str, ...], Any] = {}
    for entry in entries:
        array = entry.layout.to_ours(tensors[entry.name])
        if entry.layer is None:
            arrays[entry.path] = array
        else:
            arrays.setdefault(entry.path, []).append(array)
    tree: dict[str, Any] = {}
    for path, value in arrays.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = np.stack(value) if isinstance(value, list) else np.ascontiguousarray(value)
    return tree


def to_tensors(params: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """Return the tensors of some entries; the inverse of `to_parameters`."""
    tensors = {}
    for entry in entries:
        leaf = _leaf(params, entry)
        array = np.asarray(leaf if entry.layer is None else leaf[entry.layer])
        tensors[entry.name] = np.ascontiguousarray(entry.layout.to_theirs(array))
    return tensors


def tensor_shapes(shapes: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each entry's tensor by name, from the parameter shapes (a tree of `jax.ShapeDtypeStruct`)."""
    known: dict[tuple[Layout, tuple[int, ...]], tuple[int, ...]] = {}
    result = {}
    for entry in entries:
        shape = _leaf(shapes, entry).shape
        shape = shape if entry.layer is None else shape[1:]
        if (entry.layout, shape) not in known:
            known[entry.layout, shape] = laid_out(shape, entry.layout.to_theirs)
        result[entry.name] = known[entry.layout, shape]
    return result


def laid_out(shape: tuple[int, ...], convert: Any) -> tuple[int, ...]:
    """Return the shape that one direction of a layout gives, without computing an array."""
    return tuple(jax.eval_shape(convert, jax.ShapeDtypeStruct(shape, jnp.float32)).shape)


def _leaf(tree: Any, entry: Entry) -> Any:
    for key in entry.path:
        tree = tree[key]
    return tree
