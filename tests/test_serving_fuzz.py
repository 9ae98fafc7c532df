"""Anything sent to any route is answered with JSON, and never with a fault of the server."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from conftest import _ENCODER, write_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bert_jax
from bert_jax.model.directory import ModelDescription
from bert_jax.serving.app import make_app
from bert_jax.serving.batching import Limits
from bert_jax.serving.limits import App, ConnectionLimits
from bert_jax.serving.metrics import Metrics
from bert_jax.serving.served import Models, RequestLimits, Served

EXAMPLES = 20_000 if os.environ.get("LONG_TESTS") else 150
WORDS = ["", "good", "the [MASK] sat", "[MASK]" * 9, "很" * 60, "\x00", "\ud800", "</script>", "a\u0301", "🏳️‍🌈", "nan", "../../etc/passwd"]
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from(WORDS), st.text(max_size=8)
)  # fmt: skip
FIELDS = ["texts", "inputs", "model", "truncate", "top_k", "extra"]
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)), max_leaves=8
)
GOOD = st.sampled_from(["good", "the [MASK] sat", "很" * 60])
ANY = st.sampled_from(WORDS)
TEXTS = st.one_of(GOOD, st.lists(GOOD, min_size=1, max_size=2), ANY, st.lists(ANY, max_size=4), VALUES)
SENTENCES = st.fixed_dictionaries({"source_sentence": TEXTS, "sentences": TEXTS})


# As a server does: a request that does not allow it is refused.
pytestmark = pytest.mark.filterwarnings("ignore::bert_jax.inference.TruncationWarning")
Routes: TypeAlias = tuple[App, dict[str, st.SearchStrategy[Any]]]
"""The application, and the bodies for each route."""


def bodies(schema: Any) -> st.SearchStrategy[Any]:
    """Bodies for a route, most of them with the fields that it requires, so that what is wrong with them is found late."""
    names, required = schema["properties"], schema.get("required", [])
    texts = {name: st.one_of(TEXTS, SENTENCES) if name == "inputs" else TEXTS for name in required}
    return st.one_of(
        st.fixed_dictionaries(texts),
        st.fixed_dictionaries(texts, optional={name: VALUES for name in (*names, "extra") if name not in texts}),
        VALUES,
    )


@pytest.fixture(scope="module")
def served(tiny_pretrained: Path, tiny_classifier: Path) -> Iterator[Routes]:
    requests = RequestLimits(texts=8, tokens=200)
    rating = write_model(tiny_pretrained.parent / "rating", ModelDescription("regression", _ENCODER, 32))
    models = Models(
        [
            Served(name, bert_jax.load(path), Limits(wait=0), requests, lambda texts: None)
            for name, path in (("encoder", tiny_pretrained), ("classifier", tiny_classifier), ("rating", rating))
        ]
    )
    app = make_app(models, Metrics(), requests, ConnectionLimits(body=100_000), "0")
    described = asyncio.run(send(app, "GET", "/openapi.json", b"")).json()
    routes = {}
    for path, methods in described["paths"].items():
        if "post" in methods:
            name = methods["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            routes[path] = bodies(described["components"]["schemas"][name])
    yield app, routes
    models.close()


async def send(app: App, method: str, route: str, content: bytes) -> httpx.Response:
    # A fault is raised here instead of being answered.
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://fuzz") as client:  # type: ignore[arg-type]
        return await client.request(method, route, content=content, headers={"Content-Type": "application/json"})


def answered(app: App, route: str, content: bytes) -> None:
    found = asyncio.run(send(app, "POST", route, content))
    assert found.status_code < 500, found.text
    body: Any = found.json()
    if found.status_code != 200:
        message = body["error"]["message"] if route.startswith("/v1") else body["error"]
        assert message and "Traceback" not in message


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_json(served: Routes, data: st.DataObject) -> None:
    app, routes = served
    route = data.draw(st.sampled_from(sorted(routes)))
    answered(app, route, json.dumps(data.draw(routes[route])).encode())


@settings(max_examples=EXAMPLES // 5, deadline=None)
@given(data=st.data())
def test_any_bytes(served: Routes, data: st.DataObject) -> None:
    app, routes = served
    answered(app, data.draw(st.sampled_from(sorted(routes))), data.draw(st.binary(max_size=40)))


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"texts":' * 5000, b'{"inputs": "' + b"a" * 90_000 + b'"}', b'{"inputs": ["good", NaN]}']
)
def test_deep_and_large_bodies(served: Routes, content: bytes) -> None:
    for route in served[1]:
        answered(served[0], route, content)
