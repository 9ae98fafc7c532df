"""A server, over HTTP: the clients that people have, what they are refused, and how it stops."""

import base64
import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import children
import httpx
import numpy as np
import pytest
from served import KEY, serving, start

import bert_jax
from bert_jax.errors import InputError
from bert_jax.inference import Bert
from bert_jax.serving.page.document import assemble
from bert_jax.serving.start import models_of

TEXTS = ["the cat sat", "这家酒店的服务很好", "good", "on the mat", "房间也很干净", "再也不来了"]
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
LIMITS = ("--max-texts=20", "--max-tokens=300", "--max-bytes=20000", "--timeout=30")


class Server(NamedTuple):
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    idle: socket.socket
    """A connection that sends half of a request, and when it was opened."""
    idle_since: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, route: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(f"{self.url}{route}", content=content, headers=HEADERS | headers, timeout=60)


@pytest.fixture(scope="module")
def server(tiny_pretrained: Path, tiny_classifier: Path) -> Iterator[Server]:
    models = f"pretrain={tiny_pretrained}", f"moods={tiny_classifier}"
    with serving(*models, *LIMITS) as (process, port), socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\n")
        yield Server(process, port, idle, time.monotonic())


@pytest.fixture(scope="module")
def bert(tiny_pretrained: Path) -> Bert:
    return bert_jax.load(tiny_pretrained)


@pytest.fixture(scope="module")
def classifier(tiny_classifier: Path) -> Bert:
    return bert_jax.load(tiny_classifier)


def test_the_client_of_openai_works_unchanged(server: Server, bert: Bert) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        # Without a format the client asks for base64, and decodes it.
        found = client.embeddings.create(model="pretrain", input=TEXTS)
        assert [one.index for one in found.data] == list(range(len(TEXTS)))
        vectors = np.array([one.embedding for one in found.data])
        np.testing.assert_allclose(vectors, bert.embed(TEXTS), atol=1e-5)
        assert found.usage.total_tokens == found.usage.prompt_tokens == sum(len(one.ids) for one in bert.tokenizer.encode_batch(TEXTS))
        as_numbers = client.embeddings.create(model="pretrain", input=TEXTS[0], encoding_format="float")
        np.testing.assert_allclose(as_numbers.data[0].embedding, vectors[0], atol=1e-6)
        short = client.embeddings.create(model="pretrain", input=TEXTS[0], dimensions=5)
        np.testing.assert_allclose(short.data[0].embedding, vectors[0][:5], atol=1e-6)
        assert [one.id for one in client.models.list()] == ["pretrain", "moods"]
        with pytest.raises(openai.NotFoundError, match="choose one of pretrain, moods"):
            client.embeddings.create(model="gpt", input="a")
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.embeddings.create(model="pretrain", input=TEXTS[0], dimensions=4096)
        assert refused.value.param == "dimensions"


def test_the_client_of_hugging_face_works_unchanged(server: Server, bert: Bert) -> None:
    hub = pytest.importorskip("huggingface_hub")
    client = hub.InferenceClient(f"{server.url}/embed", token=KEY)
    found = client.feature_extraction(TEXTS[0], normalize=True, truncate=True)
    np.testing.assert_allclose(np.ravel(found), bert.embed(TEXTS[0], normalize=True), atol=1e-5)
    client = hub.InferenceClient(f"{server.url}/similarity", token=KEY)
    cosines = client.sentence_similarity(TEXTS[0], TEXTS[1:])
    vectors = bert.embed(TEXTS, normalize=True)
    np.testing.assert_allclose(cosines, vectors[1:] @ vectors[0], atol=1e-5)


def test_the_routes_of_text_embeddings_inference(server: Server, bert: Bert, classifier: Bert) -> None:
    vectors = server.post("/embed", {"inputs": TEXTS, "normalize": False}).json()
    np.testing.assert_allclose(vectors, bert.embed(TEXTS), atol=1e-5)
    one = server.post("/predict", {"inputs": TEXTS[0]}).json()
    true = classifier.classify(TEXTS[0])
    assert one[0]["label"] == true.label
    assert {label["label"]: label["score"] for label in one} == pytest.approx(true.probabilities, abs=1e-5)
    pair = server.post("/predict", {"inputs": TEXTS[:2]}).json()
    assert pair[0]["score"] == pytest.approx(max(classifier.classify(TEXTS[0], TEXTS[1]).probabilities.values()), abs=1e-5)
    batch = server.post("/predict", {"inputs": [[TEXTS[0]], TEXTS[:2], [TEXTS[2]]]}).json()
    assert [row["label"] for row in batch[0]] == [row["label"] for row in one]
    assert batch[1][0]["score"] == pytest.approx(pair[0]["score"], abs=1e-5) and len(batch) == 3
    tokens = server.post("/tokenize", {"inputs": [TEXTS[0]]}).json()[0]
    encoding = bert.tokenizer.encode(TEXTS[0])
    assert [token["id"] for token in tokens[1:-1]] == encoding.ids.tolist() and tokens[0]["text"] == "[CLS]" and tokens[0]["special"]
    assert [(token["start"], token["stop"]) for token in tokens[1:-1]] == [tuple(place) for place in encoding.offsets.tolist()]
    info = server.post("/info", b"").status_code, httpx.get(f"{server.url}/info", headers={"X-API-Key": KEY}).json()
    assert info[0] == 405 and info[1]["model_id"] == "pretrain" and info[1]["max_input_length"] == 48


def test_every_question_has_a_route(server: Server, bert: Bert, classifier: Bert) -> None:
    masked = "the [MASK] sat"
    filled = server.post("/fill-mask", {"texts": masked, "top_k": 2, "words": ["cat", "mat"]}).json()
    expected = bert.fill_mask(masked, top_k=2, words=["cat", "mat"])[0]
    assert [one["token"] for one in filled["answers"][0]["masks"][0]] == [one.token for one in expected]
    scores = server.post("/score", {"texts": TEXTS[:2]}).json()["answers"]
    np.testing.assert_allclose([one["score"] for one in scores], bert.score(TEXTS[:2]), atol=1e-3)
    tokens = server.post("/score", {"texts": TEXTS[0], "tokens": True}).json()["answers"][0]["tokens"]
    assert [one["token"] for one in tokens] == ["the", "cat", "sat"] and tokens[1]["start"] == 4
    seen = server.post("/attention", {"texts": TEXTS[0], "layer": -1}).json()["answers"][0]
    np.testing.assert_allclose(seen["weights"], bert.attention(TEXTS[0], layer=-1).weights, atol=1e-5)
    follows = server.post("/next-sentence", {"texts": "the cat", "pairs": "sat on the mat"}).json()
    assert next(iter(follows["answers"][0].values())) == pytest.approx(bert.next_sentence("the cat", "sat on the mat"), abs=1e-5)
    found = server.post("/classify", {"texts": TEXTS}).json()
    assert found["model"] == "moods" and [one["label"] for one in found["answers"]] == [one.label for one in classifier.classify(TEXTS)]
    near = server.post("/similar", {"texts": "cat", "among": TEXTS, "top_k": 2, "model": "pretrain"}).json()["answers"][0]["nearest"]
    assert [one["index"] for one in near] == [one.index for one in bert.similar("cat", TEXTS, top_k=2)]


def test_an_answer_does_not_depend_on_who_shares_the_row(server: Server, bert: Bert) -> None:
    texts = [" ".join([TEXTS[index % 6]] * (1 + index % 3)) for index in range(64)]
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda text: server.post("/embed", {"inputs": text, "normalize": False}).json()[0], texts)
    np.testing.assert_allclose(list(answers), [bert.embed(text) for text in texts], atol=1e-5)


LONG = "很" * 60


@pytest.mark.parametrize(
    ("route", "body", "status", "named"),
    [
        ("/embed", b"{", 400, "JSON"),
        ("/embed", b"[" * 5000, 400, ""),
        ("/embed", b"\xff\xfe", 400, ""),
        ("/embed", b"", 422, ""),
        ("/embed", {"inputs": "a", "input": "b"}, 422, "input"),
        ("/embed", {"inputs": 3}, 422, "inputs"),
        ("/embed", {"inputs": []}, 422, "inputs is empty"),
        ("/embed", {"inputs": ""}, 422, "no readable"),
        ("/embed", {"inputs": ["good", "\x00"]}, 422, "Text 1"),
        ("/embed", b'{"inputs": "a\\ud800"}', 422, "surrogate"),
        ("/embed", {"inputs": ["good"] * 21}, 413, "more than the 20"),
        ("/embed", {"inputs": [LONG[:45]] * 10}, 413, "more than the 300"),
        ("/embed", {"inputs": [LONG]}, 413, "truncate"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "prompt"),
        ("/embed", b"a" * 20001, 413, "20,000 bytes"),
        ("/similar", {"texts": "good", "among": ["good"] * 20}, 413, "more than the 20"),
        ("/similar", {"texts": "good", "among": [LONG]}, 413, "among"),
        ("/similar", {"texts": "good", "among": []}, 422, "search"),
        ("/fill-mask", {"texts": "good"}, 422, "MASK"),
        ("/fill-mask", {"texts": "[MASK]" * 19 + " a", "top_k": 10**9}, 422, "top_k"),
        ("/fill-mask", {"texts": "[MASK]", "top_k": "5"}, 422, "top_k"),
        ("/fill-mask", {"texts": "[MASK]" * 1000}, 413, "1,000 tokens"),
        ("/fill-mask", {"texts": "[MASK]" * 200, "truncate": True}, 422, "fewer masks"),
        ("/fill-mask", {"texts": " " * 1000}, 422, "no readable"),
        ("/next-sentence", {"texts": ["a", "b"], "pairs": ["c"]}, 422, "pair"),
        ("/next-sentence", {"texts": ["a"]}, 422, "pairs"),
        ("/classify", {"texts": "good", "model": "pretrain"}, 424, "classifier"),
        ("/rerank", {"query": "a", "texts": ["b"]}, 424, "regress"),
        ("/v1/embeddings", {"input": [1, 2]}, 422, "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 422, "encoding_format"),
        ("/nowhere", {}, 404, "route"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_in_the_shape_of_their_convention(
    server: Server, tiny_pretrained: Path, route: str, body: Any, status: int, named: str
) -> None:
    answer = server.post(route, body)
    error = answer.json()["error"]
    message = error["message"] if route.startswith("/v1") else error
    assert (answer.status_code, named in message or named == error) == (status, True), answer.text
    assert str(tiny_pretrained.parent) not in answer.text and "Traceback" not in answer.text
    assert server.post("/embed", {"inputs": "good"}).status_code == 200


def test_texts_that_are_too_long_are_truncated_if_the_request_says_so(server: Server, bert: Bert) -> None:
    for inputs in (LONG, [LONG]):
        found = server.post("/embed", {"inputs": inputs, "truncate": True, "normalize": False}).json()
        np.testing.assert_allclose(found[0], bert.embed(LONG[:46]), atol=1e-5)


def test_the_key_is_needed_everywhere_but_for_the_state(server: Server) -> None:
    assert server.post("/embed", {"inputs": "a"}, Authorization="Bearer wrong").status_code == 401
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    assert httpx.get(f"{server.url}/models").status_code == 401
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    assert "data-locked" in httpx.get(server.url).text and "data-locked" not in assemble(locked=False)[0]


def test_models_are_described_without_their_places(server: Server, bert: Bert, tiny_pretrained: Path) -> None:
    answer = httpx.get(f"{server.url}/models", headers=HEADERS)
    pretrained, moods = answer.json()["models"]
    assert pretrained["questions"] == [*bert.questions] and [pretrained[name] for name in ("layers", "heads", "max_tokens")] == [2, 2, 48]
    assert [moods[name] for name in ("name", "noun", "reads")] == ["moods", "a classifier", "text"]
    assert moods["labels"] == ["negative", "neutral", "positive"]
    assert str(tiny_pretrained.parent) not in answer.text


def test_only_json_is_read(server: Server) -> None:
    answer = server.post("/embed", {"inputs": "a"}, **{"Content-Type": "text/plain"})
    assert answer.status_code == 415 and "application/json" in answer.json()["error"]


def test_a_path_in_a_request_is_a_text(server: Server, bert: Bert) -> None:
    found = server.post("/embed", {"inputs": "/etc/passwd", "normalize": False}).json()
    np.testing.assert_allclose(found[0], bert.embed("/etc/passwd"), atol=1e-5)


def test_what_it_counts(server: Server) -> None:
    server.post("/embed", {"inputs": TEXTS})
    counts = httpx.get(f"{server.url}/metrics", headers={"X-API-Key": KEY}).text
    assert 'bert_jax_requests_total{route="/embed",status="200"}' in counts and 'bert_jax_waiting_texts{model="moods"} 0.0' in counts
    assert 'route="/nowhere"' not in counts


def test_base64_is_the_same_as_numbers(server: Server) -> None:
    body = {"input": TEXTS[0]}
    as_numbers = server.post("/v1/embeddings", body).json()["data"][0]["embedding"]
    encoded = server.post("/v1/embeddings", body | {"encoding_format": "base64"}).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(encoded), "<f4"), np.float32(as_numbers))


def test_clients_that_leave_or_send_half_a_request_stop_nobody(server: Server) -> None:
    for sent in (b"", b'{"inputs": "a', b'{"inputs": "a"}'):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.putrequest("POST", "/embed")
        connection.putheader("Authorization", f"Bearer {KEY}")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "15")
        connection.endheaders(sent)
        connection.close()
    assert server.post("/embed", {"inputs": "good"}).status_code == 200


def test_slow_headers_do_not_keep_a_connection(server: Server) -> None:
    server.idle.settimeout(max(0.1, server.idle_since + 20 - time.monotonic()))
    assert server.idle.recv(1) == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/none"], "runs/none"),
        (["a={model}", "a={model}"], "Two models are named a"),
        (["{model}", "--port={port}"], "another program uses it"),
        (["{model}", "--port=70000"], "--port"),
        (["{model}", "--max-texts=0"], "--max-texts must be positive"),
        (["{model}", "--api-key-file=missing.txt"], "has no API key"),
    ],
)
def test_a_server_that_cannot_start_says_why(server: Server, tiny_pretrained: Path, arguments: list[str], message: str) -> None:
    process = start(*(one.format(model=tiny_pretrained, port=server.port) for one in arguments))
    written, _ = process.communicate(timeout=children.LIMIT)
    assert process.returncode == 2 and message in written and "Traceback" not in written, written


def test_it_finishes_what_has_arrived_and_stops(server: Server) -> None:
    connection, body = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60), json.dumps({"inputs": TEXTS}).encode()
    connection.putrequest("POST", "/embed")
    for name, value in (HEADERS | {"Content-Length": str(len(body))}).items():
        connection.putheader(name, value)
    connection.endheaders()
    time.sleep(0.5)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    connection.send(body)
    answer = connection.getresponse()
    assert answer.status == 200 and len(json.load(answer)) == len(TEXTS)
    connection.close()
    assert server.process.wait(60) == 0
    assert server.process.stdout and server.process.stdout.read() == "stopped\n"


def test_exploring_a_run_serves_its_models(tiny_classifier: Path) -> None:
    workdir = tiny_classifier.parent
    with serving(str(workdir), command="explore") as (process, port):
        models = httpx.get(f"http://127.0.0.1:{port}/models").json()["models"]
        assert {one["name"] for one in models} == {f"{workdir.name}-pretrain", f"{workdir.name}-finetune"}
        assert "<html" in httpx.get(f"http://127.0.0.1:{port}/").text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_there_must_be_a_model_to_explore(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model in"):
        models_of(tmp_path)
