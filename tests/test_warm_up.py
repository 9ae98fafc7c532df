"""What a server compiles before its first request is all that requests need."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import write_model

import bert_jax
from bert_jax.config import EncoderConfig
from bert_jax.inference import Bert, forward
from bert_jax.model.directory import ModelDescription
from bert_jax.serving.warm_up import warm_up

# An encoder that no other test compiles.
ENCODER = EncoderConfig(layers=1, width=24, heads=2, feed_forward=40, max_positions=100)


@pytest.fixture
def bert(tmp_path: Path) -> Bert:
    return bert_jax.load(write_model(tmp_path, ModelDescription("pretraining", ENCODER, 24, "nsp")))


def compiled() -> int:
    """The number of programs that encode batches."""
    return forward._encode._cache_size()


def test_no_request_compiles_what_the_server_has_compiled(bert: Bert) -> None:
    served: Any = SimpleNamespace(model=bert, questions={name: bert.questions[name] for name in ("embed", "score")})
    assert [*warm_up(served)] == ["embed", "score"]
    before, rng, seen = compiled(), np.random.default_rng(0), set()
    encode = forward.Forward.encode

    def noted(self: Any, batch: Any, layer: int | None = None) -> Any:
        seen.add(batch["tokens"].shape)
        return encode(self, batch, layer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward.Forward, "encode", noted)
        for low, high in ((1, 4), (1, 90), (30, 45), (60, 98), (98, 98)):
            for count in (1, 2, 7, 40, 150):
                bert.embed([" ".join(["很"] * words) for words in rng.integers(low, high + 1, count)])
        bert.score(["很" * words for words in (1, 5, 20, 60, 97)])
    # Rows that are longer than any text too.
    assert {length for _, length in seen} == {16, 32, 64, 128, 256, 512}
    assert compiled() == before
