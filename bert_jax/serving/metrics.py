"""What the server counts, in the format of Prometheus."""

import time
from collections.abc import Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bert_jax.serving.limits import App, Message, Receive, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counts requests by route and status, and texts by model."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("bert_jax_requests", "Requests answered.", ("route", "status"), registry=self._registry)
        self._seconds = Histogram("bert_jax_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=self._registry)
        self._texts = Histogram("bert_jax_batch_texts", "Texts per batch.", ("model",), buckets=_TEXTS, registry=self._registry)
        self._waiting = Gauge("bert_jax_waiting_texts", "Texts in the queue.", ("model",), registry=self._registry)

    def batches(self, model: str) -> Callable[[int], None]:
        """Return the function to call with the number of texts in each batch of a model."""
        return self._texts.labels(model).observe

    def watch(self, model: str, waiting: Callable[[], int]) -> None:
        """Report the length of a model's queue."""
        self._waiting.labels(model).set_function(waiting)

    def text(self) -> bytes:
        """Return all counts in the format of Prometheus."""
        return generate_latest(self._registry)

    def counting(self, app: App, routes: frozenset[str]) -> App:
        """Return an application that counts the requests to another one; paths that are not among `routes` are counted together."""

        async def counted(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            route, begun = scope["path"] if scope["path"] in routes else "other", time.perf_counter()

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._requests.labels(route, str(message["status"])).inc()
                    self._seconds.labels(route).observe(time.perf_counter() - begun)
                await send(message)

            await app(scope, receive, noted)

        return counted
