"""Runs the application on a socket until it is asked to stop."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bert_jax.errors import InputError
from bert_jax.serving.app import failed
from bert_jax.serving.failures import RETRY_SOON, Failure
from bert_jax.serving.limits import CONNECTIONS, App, Receive, Send

_HEADER_SECONDS = 10.0
_DRAIN_SECONDS = 30


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 is any free one.

    Raises:
        InputError: the address cannot be used.
    """
    bound = None
    try:
        bound = socket.socket(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0], socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        return bound
    except OSError as error:
        if bound:
            bound.close()
        reason = "another program uses it" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise InputError(f"Cannot listen on {host} port {port}: {reason}. Choose another one with --host or --port.") from None


def run(app: App, bound: socket.socket, announce: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish the requests that have arrived.

    Args:
        app: the application.
        bound: the socket.
        announce: called as soon as clients can connect and the server can be asked to stop.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    server = _Server(config)
    server.bound, server.announce = bound, announce
    server.run(sockets=[bound])


class _Server(uvicorn.Server):
    """Ends with the exit status 0 when it is asked to stop, unlike uvicorn's, which raises the signal again."""

    bound: socket.socket
    announce: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and Ctrl-C."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        self.bound.listen()
        self.announce()
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


class _Protocol(H11Protocol):
    """Closes connections whose requests do not send their headers in time, and refuses connections that are too many."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self.app = _too_many
        self._start()

    def data_received(self, data: bytes) -> None:
        """Start the clock with the first byte of a further request, for which uvicorn waits forever, and stop it with the last header."""
        if self._deadline is None and self._idle:
            self._start()
        super().data_received(data)
        if not self._idle:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _start(self) -> None:
        self._deadline = self.loop.call_later(_HEADER_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = None


async def _too_many(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    failure = Failure(503, "The server has too many connections: try again later.", headers=RETRY_SOON | {"Connection": "close"})
    await failed(scope["path"], failure)(scope, receive, send)
