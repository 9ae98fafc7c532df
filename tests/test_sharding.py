"""The table of shardings: nothing that is large is copied to every device by oversight."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax.sharding import PartitionSpec
from toy import toy_parameters

from bert_jax.training.sharding import tree_shardings


def specs(tree: Any) -> Any:
    return jax.tree.map(lambda sharding: sharding.spec, tree_shardings(tree, tiny.one_device_mesh()))


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("tree", "name"),
    [({"encoder": {"layers": {"gate": {"kernel": array(2, 8, 8)}}}}, r"encoder/layers/gate/kernel of shape \(2, 8, 8\)"),
     # A row for another number of dimensions is none.
     ({"encoder": {"layers": {"query": {"kernel": array(2, 8, 2, 4)}}}}, "encoder/layers/query/kernel"),
     ({"encoder": {"distances": array(8, 4)}}, "encoder/distances"),
     ({"moments": [{"encoder": {"layers": {"gate": {"kernel": array(2, 8, 8)}}}}]}, "moments/.*/encoder/layers/gate/kernel"),
     ({"embeddings": {"languages": array(5, 8)}}, "embeddings/languages")],
)  # fmt: skip
def test_a_matrix_without_a_row_is_named(tree: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.* has no entry in PARAMETER_SPECS.*bert_jax.training.sharding"):
        specs(tree)


def test_vectors_and_heads_without_a_row_are_replicated() -> None:
    tree = {
        "encoder": {"layers": {"gate": {"bias": array(2, 8)}}, "norm": {"scale": array(8)}},
        "embeddings": {"norm": {"scale": array(8)}},
        "tagger": {"dense": {"kernel": array(8, 3), "bias": array(3)}},
        **toy_parameters(),
    }
    assert set(jax.tree.leaves(specs(tree), is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))) == {PartitionSpec()}


def test_the_model_has_all_its_rows() -> None:
    found = specs(tiny.initial_parameters())
    assert found["encoder"]["layers"]["query"]["kernel"] == PartitionSpec(None, "fsdp", "tensor")
    assert set(found["embeddings"]) == {"tokens", "positions", "segments", "norm"}
