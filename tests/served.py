"""Servers in processes of their own, as users start them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import children

KEY = "swordfish"


def start(*arguments: str, command: str = "serve") -> subprocess.Popen[str]:
    """Start `serve` or `explore`, with an API key in the environment, which only `serve` reads."""
    line = [sys.executable, "-W", "error", "-m", "bert_jax", command, *arguments]
    environment = children.environment(2) | {"BERT_JAX_API_KEY": KEY}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def serving(*arguments: str, command: str = "serve") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that answers, and its port."""
    process = start(*arguments, "--port=0", command=command)
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
