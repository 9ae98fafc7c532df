"""The models of a run that may still be training: they are loaded when they appear, and again when they have changed."""

import logging
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Self

from bert_jax.model.directory import fingerprint
from bert_jax.serving.limits import App, Receive, Send
from bert_jax.serving.served import Models, Served
from bert_jax.serving.watching import Run
from bert_jax.storage.files import resolve_path

_LOG = logging.getLogger("bert_jax.serving")
_SECONDS = 5.0
"""Between two looks at the checkpoints; requests to models that were replaced have as long to be answered."""


class Following:
    """An application that answers with the newest models of a run. As a context, it looks for newer ones until its end.

    Args:
        find: returns the directories of the models, by name.
        load: loads one.
        make: makes an application of models.
        run: counts how often they change.
    """

    def __init__(
        self, find: Callable[[], Mapping[str, str]], load: Callable[[str, str], Served], make: Callable[[Models], App], run: Run
    ) -> None:
        self._find, self._load, self._make, self._run = find, load, make, run
        self._marks: dict[str, str] = {}
        self._models, self._replaced = Models([]), Models([])
        self._app = make(self._models)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="models", daemon=True)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._app(scope, receive, send)

    def __enter__(self) -> Self:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._replaced.close()
        self._models.close()

    def look(self) -> None:
        """Load the models that are new or have changed, and answer with them from now on.

        Raises:
            Exception: a model cannot be loaded though nothing is being trained.
        """
        self._replaced.close()
        served = dict(self._models.by_name)
        replaced = []
        for name, path in self._find().items():
            try:
                mark = fingerprint(resolve_path(path))
                if self._marks.get(name) == mark:
                    continue
                self._marks[name] = mark
                one = self._load(name, path)
            except Exception as error:  # a checkpoint that training has just removed, for example
                if not self._run.running:
                    raise
                _LOG.warning("%s could not be loaded (%s); its next checkpoint will be tried", name, error)
                continue
            if name in served:
                replaced.append(served[name])
            served[name] = one
        if any(served[name] is not self._models.by_name.get(name) for name in served):
            self._models, self._replaced = Models([*served.values()]), Models(replaced)
            self._app = self._make(self._models)
            self._run.models += 1

    def _keep_looking(self) -> None:
        while not self._ended.wait(_SECONDS):
            try:
                self.look()
            except Exception:
                _LOG.exception("the newest models cannot be loaded")
