"""A bucket of Google Cloud Storage in this process, for the processes that a test starts."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import HTTPServer
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.storage import Storage

NAME = "bucket"


class Bucket:
    """The emulator, with what it leaves out: generations in answers, writes on the condition of one, moves.

    Attributes:
        before: told the method and the object's name before each request; what it returns is the answer instead.
    """

    def __init__(self, port: int, storage: Storage) -> None:
        self.before: Callable[[str, str], HTTPStatus | None] = lambda method, name: None
        self._url, self._storage = f"http://localhost:{port}", storage

    def environment(self) -> dict[str, str]:
        """What makes gcsfs, TensorStore and Google's own client speak to it, without credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self._url,
            "TENSORSTORE_GCS_HTTP_URL": self._url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
            # Asks for the kind of bucket, by a protocol that the emulator does not speak.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
        }

    def names(self) -> set[str]:
        """Those of all objects."""
        return set(self._storage.objects.get(NAME, {}))

    def read(self, name: str) -> bytes:
        """The content of an object."""
        found: bytes = self._storage.get_file(NAME, name)
        return found

    def handle(self, inner: Callable[..., None], request: Any, response: Any, storage: Storage) -> None:
        name = _name(request)
        there = storage.objects.get(NAME, {}).get(name, {}).get("generation", "0")
        refused = self.before(request.method, name)
        if request.query.get("ifGenerationMatch", [there])[0] != there:
            refused = HTTPStatus.PRECONDITION_FAILED
        if refused:
            response.status = refused
            return
        inner(request, response, storage)
        if request.method == "GET" and there != "0":
            response["x-goog-generation"] = there


def _move(request: Any, response: Any, storage: Storage) -> None:
    source, target = request.params["object_id"], request.params["target_id"]
    if source not in storage.objects.get(NAME, {}):
        response.status = HTTPStatus.NOT_FOUND
        return
    entry = storage.get_file_obj(NAME, source) | {"name": target}
    storage.create_file(NAME, target, storage.get_file(NAME, source), entry)
    storage.delete_file(NAME, source)
    response.json(entry)


_HANDLERS = ((r"^/storage/v1/b/[^/]+/o/(?P<object_id>.+)/moveTo/o/(?P<target_id>.+)$", {server.POST: _move}), *server.HANDLERS)


def _name(request: Any) -> str:
    """The object that a request is about."""
    found: str = request.params.get("object_id") or request.query.get("name", [""])[0]
    if not found and isinstance(request.data, dict):
        found = request.data.get("name") or request.data.get("meta", {}).get("name", "")
    return found


class _Quiet(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """gcsfs asks for an object and for a folder of the same name, and hangs up on the second answer."""


@contextmanager
def bucket() -> Iterator[Bucket]:
    """An empty bucket, while the context lasts."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    logging.getLogger("api").setLevel(logging.CRITICAL)
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(NAME, storage)
    storage._write_config_to_file = lambda: None  # its whole index anew, at every write
    handlers = server.HANDLERS
    with _Quiet(("localhost", 0), functools.partial(server.RequestHandler, storage)) as http:
        made = Bucket(http.server_port, storage)
        server.HANDLERS = tuple(
            (path, {method: functools.partial(made.handle, inner) for method, inner in table.items()}) for path, table in _HANDLERS
        )
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            http.shutdown()
            thread.join()
            server.HANDLERS = handlers
