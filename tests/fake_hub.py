"""A Hugging Face Hub with a few data sets, for the package `datasets` in another process (HF_ENDPOINT)."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789" * 4


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Serve the data sets in `root`, each in OWNER/NAME, and yield the address. Names that end in `gated` need a log-in."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0].removeprefix("/api").removeprefix("/datasets/")
            owner, name, what, revision, *rest = (*path.split("/"), "", "", "")
            base, inside = root / owner / name, root / owner / name / "/".join(part for part in rest if part)
            if name.endswith("gated"):
                self.send(401, {}, "GatedRepo")
            elif not base.is_dir():
                self.send(404, {}, "RepoNotFound")
            elif what and revision not in ("main", COMMIT):
                self.send(404, {}, "RevisionNotFound")
            elif what in ("resolve", "tree") and not (inside.is_file() if what == "resolve" else inside.is_dir()):
                self.send(404, {}, "EntryNotFound")
            elif what == "resolve":
                self.send(200, inside.read_bytes())
            elif what == "tree":
                self.send(200, [self.entry(path, base) for path in sorted(inside.iterdir())])
            else:
                self.send(200, {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": [], "tags": [], "downloads": 0, "private": False})

        do_GET = do_HEAD = do_POST = answer

        def entry(self, path: Path, base: Path) -> dict[str, Any]:
            kind = {"type": "file", "size": path.stat().st_size} if path.is_file() else {"type": "directory", "size": 0}
            return kind | {"path": str(path.relative_to(base)), "oid": hashlib.sha1(path.name.encode()).hexdigest()}

        def send(self, status: int, content: Any, problem: str = "") -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            if problem:
                self.send_header("X-Error-Code", problem)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
