"""What the routes answer for models of each kind, without a server process."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import _ENCODER, write_model

import bert_jax
from bert_jax.cli.serving import KEY_VARIABLE, _key
from bert_jax.errors import InputError
from bert_jax.inference import Bert
from bert_jax.model.directory import EmbeddingConfig, ModelDescription
from bert_jax.serving.app import make_app
from bert_jax.serving.batching import Limits, QueueFull
from bert_jax.serving.limits import ConnectionLimits
from bert_jax.serving.metrics import Metrics
from bert_jax.serving.served import Models, RequestLimits, Served
from bert_jax.serving.start import _announcing

Ask = Callable[..., httpx.Response]
TEXTS = ["good", "the cat sat", "再也不来了"]


@pytest.fixture(scope="module")
def models(tiny_pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bert]:
    folder = tmp_path_factory.mktemp("models")
    described = {
        "rating": ModelDescription("regression", _ENCODER, 32),
        "topics": ModelDescription("multilabel", _ENCODER, 32, labels=("food", "room", "price")),
        "prompted": ModelDescription("regression", _ENCODER, 32, embedding=EmbeddingConfig(prompts={"query": "好好"})),
    }
    return {name: bert_jax.load(write_model(folder / name, one)) for name, one in described.items()}


@pytest.fixture(scope="module")
def served(models: dict[str, Bert]) -> Iterator[dict[str, Served]]:
    found = {name: Served(name, bert, Limits(wait=0), RequestLimits(), lambda texts: None) for name, bert in models.items()}
    yield found
    for one in found.values():
        one.queue.close()


def asking(served: Served, key: str = "") -> Ask:
    app: Any = make_app(Models([served]), Metrics(), RequestLimits(), ConnectionLimits(), "0", key)

    async def send(method: str, route: str, **settings: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, route, **settings)

    def ask(route: str, body: Any = None, method: str = "POST", **settings: Any) -> httpx.Response:
        return asyncio.run(send(method, route, **settings | ({"json": body} if body else {})))

    return ask


def test_a_rating_is_the_number_itself(served: dict[str, Served], models: dict[str, Bert]) -> None:
    ask, true = asking(served["rating"]), [models["rating"].regress("good", text) for text in TEXTS]
    found = ask("/predict", {"inputs": [["good", text] for text in TEXTS]}).json()  # not squeezed into a probability: ratings may be 37
    assert [len(row) for row in found] == [1] * 3 and {row[0]["label"] for row in found} == {"LABEL_0"}
    np.testing.assert_allclose([row[0]["score"] for row in found], true, atol=1e-5)
    ranks = ask("/rerank", {"query": "good", "texts": TEXTS, "return_text": True}).json()
    order = sorted(range(3), key=lambda index: -true[index])
    assert [(one["index"], one["text"]) for one in ranks] == [(index, TEXTS[index]) for index in order]
    np.testing.assert_allclose([one["score"] for one in ranks], [true[index] for index in order], atol=1e-5)
    assert "text" not in ask("/rerank", {"query": "good", "texts": TEXTS}).json()[0]


def test_several_labels_have_a_probability_each(served: dict[str, Served], models: dict[str, Bert]) -> None:
    ask = asking(served["topics"])
    true = models["topics"].classify("good").probabilities
    assert sum(true.values()) != pytest.approx(1, abs=0.01)
    # A list with one text is that text, as the convention has it.
    for inputs in ("good", ["good"]):
        found = ask("/predict", {"inputs": inputs}).json()
        assert {one["label"]: one["score"] for one in found} == pytest.approx(true, abs=1e-5)
        assert sorted(found, key=lambda one: -one["score"]) == found


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("/v1/embeddings", {"input": [1, 2]}, "input: token ids belong to the vocabulary of another model: send texts."),
        ("/v1/embeddings", {"input": [[1], [2]]}, "input: token ids"),
        ("/v1/embeddings", {"input": ["a", None]}, "input.1: Input should be a valid string."),
        ("/v1/embeddings", b'{"input": "a\\ud800"}', "input: character 1 is an unpaired surrogate"),
        ("/embed", b'{"inputs": ["a", "\\ud800"]}', "inputs.1: character 0 is an unpaired surrogate"),
        ("/predict", {"inputs": []}, "inputs: List should have at least 1 item"),
        ("/predict", {"inputs": [["a"], []]}, "inputs.1: List should have at least 1 item"),
        ("/tokenize", {"inputs": []}, "inputs is empty"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, "truncate: Input should be a valid boolean."),
        ("/embed", {"inputs": "a", "trunc": True}, "trunc: Extra inputs are not permitted."),
    ],
)
def test_messages_name_what_is_wrong(served: dict[str, Served], route: str, body: Any, said: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = asking(served["rating"])(route, content=content, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == 422 and (error["message"] if route.startswith("/v1") else error).startswith(said), answer.text


@pytest.mark.filterwarnings("ignore:.*were truncated")
def test_what_is_put_before_a_text_takes_tokens_from_it(served: dict[str, Served]) -> None:
    """The model reads 48 tokens: 46 of a text, of which the prompt has two."""
    ask = asking(served["prompted"])
    assert ask("/embed", {"inputs": "很" * 46}).status_code == 200
    too_long: dict[str, Any] = {
        "/embed": {"inputs": "很" * 46, "prompt_name": "query"},
        "/similar": {"texts": "很" * 46, "among": ["很" * 46]},
    }
    for route, asked in too_long.items():
        answer = ask(route, asked)
        assert answer.status_code == 413 and "of 48 tokens, with its prompt, more than the 46 that" in answer.json()["error"]
        assert ask(route, asked | {"truncate": True}).status_code == 200
    assert ask("/similar", {"texts": "很" * 44, "among": ["很" * 46]}).status_code == 200


class Full:
    """A queue in which there is no room."""

    alive = True

    def submit(self, *_: Any, **__: Any) -> Any:
        raise QueueFull


def test_a_full_queue_says_when_to_come_back(models: dict[str, Bert], served: dict[str, Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served["rating"], "queue", Full())
    ask = asking(served["rating"])
    for route, body in (("/embed", {"inputs": "a"}), ("/v1/embeddings", {"input": "a"}), ("/regress", {"texts": "a"})):
        answer = ask(route, body)
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1" and "try again" in answer.text
    monkeypatch.setattr(Full, "alive", False)
    answer = ask("/health", method="GET")
    assert answer.status_code == 503 and answer.json()["error_type"] == "Unhealthy"


def test_the_key_is_that_of_the_file_or_of_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("swordfish\n")
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setenv(KEY_VARIABLE, "other ")
    assert _key(tmp_path / "key") == "swordfish" and _key(None) == "other"
    with pytest.raises(InputError, match="has no API key"):
        _key(tmp_path / "empty")
    monkeypatch.delenv(KEY_VARIABLE)
    assert _key(None) == ""


def test_the_address_of_an_ipv6_host_can_be_opened(capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []
    for host in ("127.0.0.1", "::1"):
        bound: Any = SimpleNamespace(getsockname=lambda: ("", 8080))
        _announcing(host, bound, opened.append)()
    assert opened == ["http://127.0.0.1:8080", "http://[::1]:8080"] and f"serving at {opened[1]} " in capsys.readouterr().out


def test_headers_that_the_protocol_demands(served: dict[str, Served]) -> None:
    refused = asking(served["rating"])("/embed", method="GET")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST"
    ask = asking(served["rating"], key="swordfish")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "swordfish"}, {"X-API-Key": "sword"}):
        answer = ask("/embed", {"inputs": "good"}, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    for headers in (
        {"Authorization": "Bearer swordfish"}, {"authorization": "bearer swordfish"}, {"X-API-Key": "swordfish"},
        {"Authorization": "Basic eDp5", "X-API-Key": "swordfish"},
    ):  # fmt: skip
        assert ask("/embed", {"inputs": "good"}, headers=headers).status_code == 200
