"""Starts a server: loads the models, compiles their programs if asked to, and listens."""

import re
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_jax import __version__
from bert_jax.convert.imports import is_foreign
from bert_jax.errors import InputError, as_typed
from bert_jax.inference import TruncationWarning, load
from bert_jax.runtime.programs import keep_programs
from bert_jax.serving.app import make_app
from bert_jax.serving.batching import Limits
from bert_jax.serving.following import Following
from bert_jax.serving.limits import App, ConnectionLimits
from bert_jax.serving.metrics import Metrics
from bert_jax.serving.page.sharing import share
from bert_jax.serving.served import Models, RequestLimits, Served
from bert_jax.serving.server import listen, run
from bert_jax.serving.warm_up import warm_up
from bert_jax.serving.watching import Run
from bert_jax.storage.files import committed
from bert_jax.tasks import TASKS


@dataclass(frozen=True)
class Options:
    """How a server answers.

    Attributes:
        engine, dtype: what computes the encoders; see `bert_jax.load`.
        key: the API key that clients must send, or an empty string for none.
        warm_up: whether to compile all programs before the first request.
        batches: how requests are collected.
        requests, connections: the limits.
    """

    engine: str = "jax"
    dtype: str | None = None
    key: str = ""
    warm_up: bool = False
    batches: Limits = field(default_factory=Limits)
    requests: RequestLimits = field(default_factory=RequestLimits)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)


def serve(models: Sequence[str], host: str, port: int, options: Options, ready: Callable[[str], Any] = lambda address: None) -> None:
    """Serve models over HTTP until SIGTERM or Ctrl-C.

    Args:
        models: the directories of models, each optionally after NAME=.
        host, port: the address; port 0 is any free one.
        options: how to answer.
        ready: called with the address when clients can connect.

    Raises:
        InputError: the address cannot be used, there is no model, or two have the same name.
    """
    named = name_models(models)
    keep_programs()
    with listen(host, port) as bound:  # before the models are loaded, which takes longer
        _serve(named, host, bound, options, ready)
    print("stopped", flush=True)


def explore(workdir: Path, port: int, options: Options, ready: Callable[[str], Any] = lambda address: None) -> None:
    """Serve the models of a run, and show how it goes, to this machine until SIGTERM or Ctrl-C.

    While it trains, models appear with their first checkpoint, and are replaced by newer ones.

    Args:
        workdir: the workdir of a run, or the directory of a model.
        port: the port; 0 for any free one.
        options: how to answer.
        ready: called with the address when clients can connect.

    Raises:
        InputError: the address cannot be used, or there is neither a run nor a model.
    """
    run_of = Run(workdir)
    keep_programs()
    with listen("127.0.0.1", port) as bound:
        if run_of.exists:
            _follow(run_of, workdir, bound, options, ready)
        else:
            _serve(name_models(models_of(workdir)), "127.0.0.1", bound, options, ready)
    print("stopped", flush=True)


def write_page(directory: Path, file: Path, options: Options) -> None:
    """Write the page with the models of a run inside, or with one model; see `bert_jax.serving.page.sharing`.

    Args:
        directory: the workdir of a run, or the directory of a model.
        file: the new file.
        options: how models are loaded.

    Raises:
        InputError: there is no model, it is too large or does not read text, or the file exists.
    """
    if file.exists():
        raise InputError(f"{file} already exists: choose another file name.")
    named = name_models(models_of(directory))
    content = share({name: load(path, engine=options.engine, dtype=options.dtype) for name, path in named.items()})
    file.write_bytes(content)
    print(as_typed(f"Wrote {file} ({len(content) / 1e6:.1f} MB): it answers in any browser, without a server and without a network."))


def _serve(named: Mapping[str, str], host: str, bound: socket.socket, options: Options, ready: Callable[[str], Any]) -> None:
    loader = _Loader(options)
    served = Models([loader.load(name, path) for name, path in named.items()])
    try:
        run(loader.app(served), bound, _announcing(host, bound, ready))
    finally:
        served.close()


def _follow(run_of: Run, workdir: Path, bound: socket.socket, options: Options, ready: Callable[[str], Any]) -> None:
    loader = _Loader(options)
    with Following(
        lambda: name_models(saved_models(workdir)), loader.load, lambda models: loader.app(models, run_of), run_of
    ) as following:
        run(following, bound, _announcing("127.0.0.1", bound, ready))


class _Loader:
    """Loads models and makes applications that answer with them."""

    def __init__(self, options: Options) -> None:
        warnings.simplefilter("ignore", TruncationWarning)  # requests that do not allow it are refused
        self._options, self._metrics = options, Metrics()

    def load(self, name: str, path: str) -> Served:
        """Load a model, and compile its programs if asked to."""
        options = self._options
        bert = load(path, engine=options.engine, dtype=options.dtype)
        one = Served(name, bert, options.batches, options.requests, self._metrics.batches(name), options.dtype or "float32")
        self._metrics.watch(name, lambda: one.queue.waiting)
        print(as_typed(f"{name}: {bert.noun}, {path}; answers {', '.join(route(question) for question in one.questions)}"), flush=True)
        if options.warm_up:
            for question in warm_up(one):
                print(f"compiling {question}", flush=True)
        return one

    def app(self, models: Models, run_of: Run | None = None) -> App:
        """Return the application."""
        options = self._options
        return make_app(models, self._metrics, options.requests, options.connections, __version__, options.key, run_of)


def _announcing(host: str, bound: socket.socket, ready: Callable[[str], Any]) -> Callable[[], None]:
    def announce() -> None:
        # The colons of an IPv6 address are not those before the port.
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
        print(f"serving at {address} (Ctrl-C stops)", flush=True)
        ready(address)

    return announce


def saved_models(workdir: Path) -> list[str]:
    """Return the directories of those models of a run that have a checkpoint."""
    stages = [workdir / stage for stage in dict.fromkeys(task.stage for task in TASKS)]
    return [
        str(stage)
        for stage in stages
        if (stage / "model.json").is_file()
        and (stage / "checkpoints").is_dir()
        and any(committed(path) for path in (stage / "checkpoints").iterdir())
    ]


def models_of(workdir: Path) -> list[str]:
    """Return the directories of the models of a run, or the directory itself if it is that of a model.

    Raises:
        InputError: there is no model yet.
    """
    if found := saved_models(workdir):
        return found
    if is_foreign(workdir) or (workdir / "model.json").is_file():
        return [str(workdir)]
    raise InputError(f"There is no model in {workdir}: name the workdir of a run that has saved a checkpoint, or the directory of a model.")


def route(question: str) -> str:
    """Return the route of a question."""
    return "/" + question.replace("_", "-")


def name_models(given: Sequence[str]) -> dict[str, str]:
    """Return the directory of each model by its name; stages of a run are named after both, as demo-finetune.

    Raises:
        InputError: two models have the same name.
    """
    stages, found = {task.stage for task in TASKS}, dict[str, str]()
    for one in given:
        name, _, path = one.rpartition("=")
        if not name or not re.fullmatch(r"[\w.-]+", name) or Path(one).exists():
            path = one
            parts = [part for part in Path(one).parts if part not in ("/", "..", ".")]
            name = "-".join(parts[-2:] if parts and parts[-1] in stages else parts[-1:]) or "model"
        if name in found:
            raise InputError(f"Two models are named {name}: give one of them another name, as in other={path}.")
        found[name] = path
    return found
