"""Runs the application on a socket until it is asked to stop."""

import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bert_jax.errors import InputError
from bert_jax.serving.limits import App

_HEADER_SECONDS = 10.0
_DRAIN_SECONDS = 30
_CONNECTIONS = 1024


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
        raise InputError(f"Cannot listen at {host} port {port}: {reason}. Choose another one with --host or --port.") from None


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
        limit_concurrency=_CONNECTIONS,
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
    """Closes connections that do not send the headers of their first request in time, which uvicorn waits for forever."""

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_HEADER_SECONDS, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def _close_if_idle(self) -> None:
        if self.scope is None:
            self.transport.close()
