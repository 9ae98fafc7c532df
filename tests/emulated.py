"""A bucket of Google Cloud Storage in this process, for the processes that a test starts."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from children import free_port
from gcp_storage_emulator import server

NAME = "bucket"


def _name(request: Any) -> str:
    """The object that a request is about."""
    found: str = request.params.get("object_id") or request.query.get("name", [""])[0]
    if not found and isinstance(request.data, dict):
        found = request.data.get("name") or request.data.get("meta", {}).get("name", "")
    return found


class Bucket:
    """The emulator, with what it leaves out: generations in answers, and writes on the condition of one.

    Attributes:
        url: where it listens.
        before: called with the method and the name of the object, before each request.
    """

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://localhost:{port}"
        self.before: Callable[[str, str], None] = lambda method, name: None
        logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
        logging.getLogger("api").setLevel(logging.CRITICAL)
        self._server = server.create_server("localhost", port, in_memory=True, default_bucket=NAME)
        self._storage = self._server._storage

    def environment(self) -> dict[str, str]:
        """What makes gcsfs, TensorStore and Google's own client speak to it, without a word of credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
            # Asks for the kind of bucket, by another protocol that the emulator does not speak.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
        }

    def objects(self) -> dict[str, bytes]:
        """Every object by its name."""
        return {name: self._storage.get_file(NAME, name) for name in list(self._storage.objects.get(NAME, {}))}

    def put(self, name: str, content: bytes) -> None:
        """Changes an object behind everybody's back."""
        self._storage.create_file(NAME, name, content, self._storage.get_file_obj(NAME, name) | {"size": str(len(content))})

    def remove(self, name: str) -> None:
        self._storage.delete_file(NAME, name)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def handle(self, inner: Callable[..., None], request: Any, response: Any, storage: Any) -> None:
        name = _name(request)
        self.before(request.method, name)
        there = storage.objects.get(NAME, {}).get(name, {}).get("generation", "0")
        wanted = request.query.get("ifGenerationMatch", [there])[0]
        if wanted != there:
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
        inner(request, response, storage)
        if request.method == "GET" and there != "0":
            response["x-goog-generation"] = there


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A bucket while the context lasts."""
    made = Bucket()
    original = server.HANDLERS

    def checked(inner: Callable[..., None]) -> Callable[..., None]:
        return lambda request, response, storage: made.handle(inner, request, response, storage)

    server.HANDLERS = tuple((path, {method: checked(inner) for method, inner in table.items()}) for path, table in original)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        server.HANDLERS = original
