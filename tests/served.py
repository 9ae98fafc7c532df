"""Servers in processes of their own, as users start them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import children

KEY = "swordfish"


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start `serve`, with an API key."""
    command = [sys.executable, "-W", "error", "-m", "bert_jax", "serve", *arguments]
    environment = children.environment(2) | {"BERT_JAX_API_KEY": KEY}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that answers, and its port."""
    process = start(*arguments, "--port=0")
    assert process.stdout
    try:
        written = []
        for line in process.stdout:
            written.append(line)
            if line.startswith("serving at"):
                break
        assert "serving at" in written[-1], "".join(written)
        yield process, int(written[-1].split()[2].rpartition(":")[2])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
