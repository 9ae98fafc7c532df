"""Requests per second and latency of servers of the same embedding model: bert_jax's with JAX and with ONNX Runtime, and
sentence-transformers behind FastAPI.

    pip install -r benchmarks/requirements.txt
    python benchmarks/serving.py --model=downloads/all-MiniLM-L6-v2 --texts=texts.txt --output=benchmarks/results/serving

The other server is written as people usually write it: a route calls the model's encode. Each server runs by itself, on the same cores as
the clients; each client sends a text, waits for its embedding, and sends the next one. TEXTS has a text per line, of real, mixed lengths.
Every case is repeated in turn for all servers, and the medians are reported. Writes OUTPUT.json.
"""

import argparse
import asyncio
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import checkout
import httpx
import numpy as np
from machine import CORES, machine, versions

from bert_jax.model.directory import write_json

USUAL = '''
import sys
import torch, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads({cores})
model = SentenceTransformer(sys.argv[1])
app = FastAPI()

class Texts(BaseModel):
    inputs: str

@app.post("/embed")
def embed(body: Texts):
    return model.encode([body.inputs]).tolist()

@app.get("/health")
def health():
    return "ok"

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
'''
"""The usual server; FastAPI runs the route in a pool of threads."""
CLIENTS = (1, 8, 64)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a directory that sentence-transformers reads")
    parser.add_argument("--texts", type=Path, required=True, help="a file with a text per line")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, help="output path without the extension")
    flags = parser.parse_args()
    texts = [line for line in flags.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    random.Random(0).shuffle(texts)
    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    for _ in range(flags.repeats):
        for name in SERVERS:
            with served(name, flags.model) as url:
                for clients in CLIENTS:
                    measured = asyncio.run(load(url, texts, clients, flags.seconds))
                    found.setdefault(name, {}).setdefault(clients, []).append(measured)
                    print(f"{name}, {clients} clients: {shown(measured)}", flush=True)
    lines = [
        {"server": name, "clients": clients} | {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, by_clients in found.items()
        for clients, runs in by_clients.items()
    ]
    print()
    for line in lines:
        print(f"{line['server']:<24}{line['clients']:>3} clients  {shown(line)}")
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    packages = ("torch", "sentence-transformers", "fastapi", "uvicorn")
    write_json(flags.output.with_suffix(".json"), {"machine": machine(), "versions": versions(packages), "lines": lines})


def command(name: str, model: Path, port: int, folder: Path) -> Sequence[str]:
    """The command that starts a server."""
    if name in OURS:
        return [sys.executable, "-m", "bert_jax", "serve", str(model), f"--port={port}", "--warm-up", "--truncate", *OURS[name]]
    script = folder / "usual.py"
    script.write_text(USUAL.format(cores=CORES), encoding="utf-8")
    return [sys.executable, str(script), str(model), str(port)]


OURS = {"bert_jax": (), "bert_jax, ONNX Runtime": ("--engine=onnxruntime",), "bert_jax, int8": ("--engine=onnxruntime", "--dtype=int8")}
SERVERS = (*OURS, "sentence-transformers")


@contextmanager
def served(name: str, model: Path) -> Iterator[str]:
    """Run a server, and yield its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command(name, model.resolve(), port, Path(folder)), cwd=checkout.ROOT)
        try:
            while process.poll() is None:
                try:
                    if httpx.get(f"{url}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.2)
            else:
                raise SystemExit(f"{name} does not start.")
            yield url
        finally:
            process.terminate()
            process.wait()


async def load(url: str, texts: Sequence[str], clients: int, seconds: float) -> dict[str, float]:
    """Send texts one at a time from each client, and return requests per second and latencies in milliseconds."""
    latencies: list[float] = []
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(limits=limits, timeout=60) as session:

        async def client(number: int, until: float, kept: bool) -> None:
            place = number * 997
            while time.perf_counter() < until:
                begun = time.perf_counter()
                body = json.dumps({"inputs": texts[place % len(texts)]})
                answer = await session.post(f"{url}/embed", content=body, headers={"Content-Type": "application/json"})
                answer.raise_for_status()
                if kept:
                    latencies.append(time.perf_counter() - begun)
                place += 1

        for duration, kept in ((min(2.0, seconds), False), (seconds, True)):
            begun = time.perf_counter()
            await asyncio.gather(*(client(number, begun + duration, kept) for number in range(clients)))
            elapsed = time.perf_counter() - begun
    milliseconds = np.array(latencies) * 1000
    return {"requests_per_second": len(latencies) / elapsed} | {
        f"p{share}": float(np.percentile(milliseconds, share)) for share in (50, 99)
    }


def shown(measured: dict[str, Any]) -> str:
    return f"{measured['requests_per_second']:7.1f} requests/s, p50 {measured['p50']:6.1f} ms, p99 {measured['p99']:6.1f} ms"


if __name__ == "__main__":
    main()
