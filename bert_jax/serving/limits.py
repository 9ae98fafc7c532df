"""What protects the server from its clients: limits on requests, deadlines and an API key."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from bert_jax.serving.failures import Failure

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Respond: TypeAlias = Callable[[str, Failure], App]
"""Returns the application that answers a request for this path with a failure."""

CONNECTIONS = 1024
"""The number of connections from which further ones are refused."""
OPEN = ("/", "/health")
"""Routes that need no key."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may use.

    Attributes:
        body: bytes of a request.
        upload: seconds until all of a request must have arrived.
        answer: seconds until it must have been answered.
    """

    body: int = 4 << 20
    upload: float = 10.0
    answer: float = 60.0


class Guard:
    """Reads the whole request before anything is done about it, and stops the work for a request whose client has left.

    Args:
        app: the application.
        limits: what a connection may use.
        key: the API key, or an empty string for none.
        respond: returns the application that answers with a failure.
    """

    def __init__(self, app: App, limits: ConnectionLimits, key: str, respond: Respond) -> None:
        self._app, self._limits, self._key, self._respond = app, limits, key.encode(), respond

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_key(scope)
            body = await asyncio.wait_for(self._body(scope, receive), self._limits.upload)
        except TimeoutError:
            failure = Failure(408, f"The request took longer than {self._limits.upload:g} seconds to arrive: send it again.")
        except Failure as error:
            failure = error
        else:
            if body is not None:
                await self._answer(scope, body, receive, send)
            return
        await self._respond(scope["path"], failure)(scope, receive, send)

    def _check_key(self, scope: MutableMapping[str, Any]) -> None:
        if not self._key or scope["path"] in OPEN:
            return
        headers = dict(scope["headers"])
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            given = headers.get(b"x-api-key", b"")
        if not hmac.compare_digest(given, self._key):
            message = "The API key is missing or wrong: send it in the header Authorization: Bearer KEY."
            raise Failure(401, message, headers={"WWW-Authenticate": "Bearer"})

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes | None:
        """Return the body of a request; None if the client leaves before all of it has arrived."""
        most = self._limits.body
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        parts, size = [], int(stated) if stated.isdigit() else 0
        received = 0
        while True:
            if max(size, received) > most:
                raise Failure(413, f"The request has more than {most:,} bytes: send fewer texts at once.")
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            received += len(parts[-1])
            if not message.get("more_body"):
                if received > most:
                    continue
                return b"".join(parts)

    async def _answer(self, scope: MutableMapping[str, Any], body: bytes, receive: Receive, send: Send) -> None:
        rest = [{"type": "http.request", "body": body, "more_body": False}]
        begun = False

        async def replay() -> Message:
            if rest:
                return rest.pop()
            return await asyncio.Future[Message]()  # the client is watched below

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        answer, gone = asyncio.ensure_future(self._app(scope, replay, noted)), asyncio.ensure_future(left())
        try:
            done, _ = await asyncio.wait((answer, gone), timeout=self._limits.answer, return_when=asyncio.FIRST_COMPLETED)
            if answer in done:
                await answer
            elif gone not in done and not begun:
                answer.cancel()
                failure = Failure(504, f"The answer took longer than {self._limits.answer:g} seconds: send fewer texts at once.")
                await self._respond(scope["path"], failure)(scope, receive, send)
        finally:
            # A cancelled request leaves the queue of its model.
            answer.cancel()
            gone.cancel()
