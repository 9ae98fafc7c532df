"""The commands that serve models over HTTP."""

import argparse
import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

from bert_jax.cli.arguments import Add, add_engine, anywhere, disk
from bert_jax.errors import InputError

KEY_VARIABLE = "BERT_JAX_API_KEY"


def add_serving_commands(add: Add) -> None:
    """Add explore and serve."""
    command = add(
        "explore",
        _explore,
        "explore the models of a run in the browser: fill in blanks, see what tokens attend to, compare texts",
        "runs/demo",
        "runs/demo --share demo.html",
        more="This serves the models of the run to this machine alone and, if run from a terminal, opens the page. While the run trains, "
        "the page shows its curves. Ctrl-C stops the server.",
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="the workdir of a run, or the directory of a model")
    command.add_argument("--port", type=int, default=0, help="the port; 0 for any free one (default: %(default)s)")
    command.add_argument(
        "--share", type=disk, metavar="FILE.html", help="only write the page, with the models inside, to a new file that needs no server"
    )
    add_engine(command)

    command = add(
        "serve",
        _serve,
        "serve models to other programs over HTTP, with the routes of OpenAI's embeddings and Hugging Face's text-embeddings-inference",
        "runs/demo/finetune runs/demo/pretrain",
        "runs/demo/pretrain --port 8080 --warm-up",
        "reviews=runs/demo/finetune",
        more="A request names a model by its directory without the path, such as demo-finetune, or by the NAME before =. Without a name, "
        "the first model that can answer does. The routes are listed at /openapi.json. On Ctrl-C or SIGTERM, the server finishes open "
        "requests and stops.",
    )
    command.add_argument("models", nargs="+", metavar="MODEL", help="the directory of a trained stage, or NAME=DIRECTORY")
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on; 0.0.0.0 for all interfaces (default: %(default)s)")
    command.add_argument("--port", type=int, default=8000, help="the port; 0 for any free one (default: %(default)s)")
    command.add_argument("--warm-up", action="store_true", help="compile all programs before the first request")
    command.add_argument(
        "--api-key-file", type=disk, metavar="FILE", help=f"require the API key in this file (or in the variable {KEY_VARIABLE})"
    )
    command.add_argument("--truncate", action="store_true", help="truncate texts that are too long instead of refusing them")
    add_engine(command)
    for flag, default, meaning in (
        ("--max-texts", 256, "texts in a request"),
        ("--max-tokens", 65536, "tokens in a request"),
        ("--max-bytes", 4 << 20, "bytes in a request"),
        ("--max-waiting", 4096, "texts that may wait for a model; further requests get status 429"),
        ("--batch-texts", 256, "texts that are answered together"),
    ):
        command.add_argument(flag, type=int, default=default, metavar="N", help=f"maximum number of {meaning} (default: %(default)s)")
    for flag, seconds, meaning in (
        ("--max-wait-ms", 2.0, "longest wait for more requests to share a batch, in milliseconds"),
        ("--timeout", 60.0, "seconds within which a request must be answered; otherwise it gets status 504"),
    ):
        command.add_argument(flag, type=float, default=seconds, metavar="N", help=f"{meaning} (default: %(default)s)")


def _explore(flags: argparse.Namespace) -> None:
    start = _start()
    _check_port(flags.port)
    options = start.Options(flags.engine, flags.dtype)
    if flags.share:
        start.write_page(flags.workdir, flags.share, options)
        return

    def ready(address: str) -> None:
        if sys.stdout.isatty():  # typed by a person
            webbrowser.open(address)

    start.explore(flags.workdir, flags.port, options, ready)


def _start() -> Any:
    """Return the module that starts servers.

    Raises:
        InputError: a package that it needs is not installed.
    """
    try:
        from bert_jax.serving import start
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "prometheus_client", "uvicorn"):
            raise
        package = error.name.replace("_", "-")
        raise InputError(f"Serving needs the package {package}: pip install fastapi uvicorn prometheus-client.") from None
    return start


def _check_port(port: int) -> None:
    if not 0 <= port < 1 << 16:
        raise InputError(f"--port must be a number from 0 to 65535, not {port}.")


def _serve(flags: argparse.Namespace) -> None:
    start = _start()
    from bert_jax.serving.batching import Limits
    from bert_jax.serving.limits import ConnectionLimits
    from bert_jax.serving.served import RequestLimits

    for name in ("max_texts", "max_tokens", "max_bytes", "max_waiting", "batch_texts", "timeout"):
        if getattr(flags, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, not {getattr(flags, name)}.")
    _check_port(flags.port)
    if flags.max_wait_ms < 0:
        raise InputError(f"--max-wait-ms must not be negative, not {flags.max_wait_ms}.")
    options = start.Options(
        flags.engine,
        flags.dtype,
        _key(flags.api_key_file),
        flags.warm_up,
        Limits(flags.max_wait_ms / 1000, flags.batch_texts, flags.max_waiting),
        RequestLimits(flags.max_texts, flags.max_tokens, flags.truncate),
        ConnectionLimits(flags.max_bytes, answer=flags.timeout),
    )
    start.serve(flags.models, flags.host, flags.port, options)


def _key(file: Path | None) -> str:
    """Return the API key, or an empty string for none."""
    if file is None:
        return os.environ.get(KEY_VARIABLE, "").strip()
    key = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if not key:
        raise InputError(f"{file} has no API key: write it to the file, as its only line.")
    return key
