"""What protects a server from its clients: those that wait, leave, are slow, or are too many."""

import asyncio
import base64
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from bert_jax.data.nouns import Nouns
from bert_jax.data.reader import Units
from bert_jax.errors import TextError
from bert_jax.serving import server
from bert_jax.serving.app import failed
from bert_jax.serving.batching import Limits
from bert_jax.serving.failures import RETRY_SOON, Failure
from bert_jax.serving.limits import ConnectionLimits, Guard
from bert_jax.serving.served import RequestLimits, Served
from bert_jax.tasks.embedding import Embed
from bert_jax.tasks.pretraining.questions import FillMask
from bert_jax.tasks.question import Question

Sent = list[dict[str, Any]]
LEAVES: dict[str, Any] = {"type": "http.disconnect"}
LIMITS = ConnectionLimits(body=10, upload=0.2, answer=0.2)


class Model:
    """A model that never answers."""

    def __init__(self) -> None:
        self.answers: Future[Any] = Future()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"good"
        await asyncio.wrap_future(self.answers)


def ask(model: Model, *parts: dict[str, Any], **scope: Any) -> Sent:
    """What is sent to a client that sends these parts of a request, each after a while, and then waits."""
    sent, rest = Sent(), [*parts]

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return rest.pop(0) if rest else await asyncio.Future()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(model, LIMITS, "", failed)({"type": "http", "path": "/embed", "headers": []} | scope, receive, send))
    return sent


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


class Recordings:
    """A model that reads files with as many units as bytes, and counts the files that are decoded, and how many at the same time."""

    tokenizer: Any
    questions: ClassVar[dict[str, Question]] = {"embed": Embed()}
    units: Any = Units(np.uint8, 1)
    vocab_size, nouns = 100, Nouns("recording", "unit", "code", "part")

    def __init__(self) -> None:
        self.tokenizer, self.decoded, self.most, self._now = self, 0, 0, 0

    def encode_flat(self, files: list[bytes]) -> Any:
        self._now += len(files)
        self.most, self.decoded = max(self.most, self._now), self.decoded + len(files)
        time.sleep(0.01)
        self._now -= len(files)
        if b"bad" in files:
            raise TextError(files.index(b"bad"), "is bad.", "recording")
        return SimpleNamespace(lengths=np.array([*map(len, files)]))

    def prefix(self, name: str, option: str = "", **options: Any) -> str:
        return ""

    def max_tokens(self, name: str) -> int:
        return 512

    def ask(self, name: str, files: list[bytes], pairs: Any = None, **options: Any) -> list[int]:
        return [*map(len, files)]


def test_one_file_is_decoded_at_a_time_and_none_beyond_the_limit() -> None:
    """A small file may hold hours of sound."""
    model: Any = Recordings()
    served = Served("model", model, Limits(), RequestLimits(tokens=250), lambda texts: None)

    async def asked(*files: bytes) -> Any:
        return await served.ask("embed", [base64.b64encode(file).decode() for file in files])

    async def many() -> Any:
        return await asyncio.gather(*(asked(b"a" * 100, b"b" * 50) for _ in range(4)))

    assert asyncio.run(many()) == [([100, 50], 150)] * 4
    assert (model.most, model.decoded) == (1, 8)
    with pytest.raises(Failure, match="texts has 300 units, more than the 250 of a request"):
        asyncio.run(asked(*[b"a" * 100] * 10))
    assert model.decoded == 11
    with pytest.raises(Failure, match=r"Recording 1 \(counted from 0\) is bad"):
        asyncio.run(asked(b"a", b"bad"))
    served.queue.close()


class Blanks(Recordings):
    """A model of texts in which every character is masked."""

    questions: ClassVar[dict[str, Question]] = {"fill_mask": FillMask()}
    units, mask_id, vocab_size, nouns = None, 4, 30_000, Nouns()

    def encode_flat(self, files: list[Any]) -> Any:
        return SimpleNamespace(lengths=np.array([*map(len, files)]), ids=np.full(sum(map(len, files)), self.mask_id))


def test_answers_with_too_many_predictions_are_refused() -> None:
    model: Any = Blanks()
    served = Served("model", model, Limits(), RequestLimits(), lambda texts: None)
    ask = functools.partial(served.ask, "fill_mask", ["_" * 60, "_" * 40])
    for options in ({}, {"top_k": 5_000}, {"top_k": 30_000, "words": ["good"]}):
        assert asyncio.run(ask(**options)) == ([60, 40], 100)
    with pytest.raises(Failure, match="texts has 100 masked tokens, for which the answer would have 600,000 predictions") as found:
        asyncio.run(ask(top_k=6_000))
    assert found.value.status == 413
    served.queue.close()


def test_a_client_that_leaves_takes_its_request_out_of_the_queue() -> None:
    model = Model()
    assert ask(model, part(b"go", more=True), part(b"od"), LEAVES) == []
    assert model.answers.cancelled()
    assert ask(model, part(b"go", more=True), LEAVES) == []


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    model = Model()
    start, body = ask(model, part(b"good"))
    assert start["status"] == 504 and "0.2 seconds" in json.loads(body["body"])["error"]
    assert model.answers.cancelled()


def test_a_request_must_arrive_in_time_and_have_an_end() -> None:
    begun = time.monotonic()
    start, body = ask(Model(), *[part(b"a", more=True)] * 9)
    assert start["status"] == 408 and time.monotonic() - begun < 5
    for parts in ([part(b"a" * 9, more=True)] * 2, [part(b"a" * 6, more=True), part(b"a" * 5)]):
        start, body = ask(Model(), *parts)
        assert start["status"] == 413 and "10 bytes" in json.loads(body["body"])["error"]
    # One that says in advance that it is too large is not read.
    assert ask(Model(), headers=[(b"content-length", b"11")])[0]["status"] == 413


@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (Failure(429, "x", headers=RETRY_SOON), "Overloaded", "rate_limit_exceeded"),
        (Failure(503, "x", headers=RETRY_SOON), "Unhealthy", None),
        (Failure(401, "x"), "Validation", "invalid_api_key"),
        (Failure(404, "x", "model"), "Validation", "model_not_found"),
        (Failure(404, "x"), "Validation", None),
        (Failure(424, "x"), "Backend", None),
    ],
)
def test_failures_have_the_shape_of_their_convention(failure: Failure, kind: str, code: str | None) -> None:
    plain, of_openai = failed("/embed", failure), failed("/v1/embeddings", failure)
    assert json.loads(plain.body) == {"error": "x", "error_type": kind}
    general = "server_error" if failure.status >= 500 else "invalid_request_error"
    assert json.loads(of_openai.body) == {"error": {"message": "x", "type": general, "param": failure.field or None, "code": code}}
    assert plain.headers.get("retry-after") == of_openai.headers.get("retry-after") == failure.headers.get("Retry-After")


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def listening(**settings: Any) -> AsyncIterator[Callable[[], Any]]:
    """Opens connections to a server."""
    config, state = uvicorn.Config(answer, http=server._Protocol, ws="none", lifespan="off", log_config=None, **settings), ServerState()
    config.load()
    opened = list[asyncio.StreamWriter]()

    def make() -> Any:
        return server._Protocol(config=config, server_state=state, app_state={})

    async def connect() -> Any:
        streams = await asyncio.open_connection(*listener.sockets[0].getsockname())
        opened.append(streams[1])
        return streams

    async with await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0) as listener:
        yield connect
        for writer in opened:
            writer.close()
            await writer.wait_closed()


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("before", [b"", REQUEST])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"])
def test_headers_must_arrive_in_time_in_every_request_of_a_connection(monkeypatch: pytest.MonkeyPatch, before: bytes, sent: bytes) -> None:
    monkeypatch.setattr(server, "_HEADER_SECONDS", 0.3)

    async def slowly() -> bytes:
        async with listening(timeout_keep_alive=1) as connect:
            reader, writer = await connect()
            writer.write(before)
            if before:
                assert b"204" in await reader.readuntil(b"\r\n\r\n")
            for byte in sent:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
            return await asyncio.wait_for(reader.read(), 10)

    assert asyncio.run(slowly()) == b""


def test_requests_that_arrive_in_time_keep_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEADER_SECONDS", 0.3)

    async def often() -> None:
        async with listening(timeout_keep_alive=60) as connect:
            reader, writer = await connect()
            for _ in range(3):
                writer.write(REQUEST[:20])
                await asyncio.sleep(0.05)
                writer.write(REQUEST[20:])
                assert b"204" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                await asyncio.sleep(0.4)

    asyncio.run(often())


def test_connections_that_are_too_many_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 1)

    async def twice() -> tuple[bytes, bytes]:
        async with listening() as connect:
            first, second = await connect(), await connect()
            for _, writer in (first, second):
                writer.write(REQUEST)
            refused, served = await asyncio.wait_for(second[0].read(), 10), await first[0].readuntil(b"\r\n\r\n")
            return refused, served

    refused, served = asyncio.run(twice())
    head, _, body = refused.partition(b"\r\n\r\n")
    assert b" 204 " in served and b" 503 " in head and b"retry-after: 1" in head.lower()
    assert json.loads(body)["error_type"] == "Unhealthy"
