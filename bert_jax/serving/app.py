"""The application: all routes, and failures in the shape of the convention that a route belongs to."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from bert_jax.serving.conventions import inference, media, openai, questions
from bert_jax.serving.failures import Failure
from bert_jax.serving.limits import App, ConnectionLimits, Guard
from bert_jax.serving.metrics import Metrics
from bert_jax.serving.page.routes import routes as page_routes
from bert_jax.serving.served import Models, RequestLimits
from bert_jax.serving.watching import Run
from bert_jax.serving.watching import routes as run_routes

_LOG = logging.getLogger("bert_jax.serving")
_KINDS = {424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Backend"}
"""The error types of text-embeddings-inference by status; others are Validation."""
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
"""The error codes of OpenAI by status."""


def make_app(
    models: Models, metrics: Metrics, requests: RequestLimits, connections: ConnectionLimits, version: str, key: str = "",
    run: Run | None = None,
) -> App:  # fmt: skip
    """Return the application (ASGI).

    Args:
        models: the models.
        metrics: what is counted.
        requests, connections: the limits.
        version: that of the package, for /info.
        key: the API key that clients must send, or an empty string for none.
        run: the run to show, if any.
    """
    api = FastAPI(title="bert_jax", version=version, description="Trained models over HTTP.", docs_url=None, redoc_url=None)
    conventions = (openai.routes(models), inference.routes(models, requests, version), questions.routes(models), media.routes(models))
    for router in (*conventions, page_routes(models, locked=bool(key), watching=run is not None)):
        api.include_router(router)
    if run:
        api.include_router(run_routes(run))
    _add_state(api, models, metrics)
    _add_failures(api)
    return metrics.counting(Guard(api, connections, key, failed), frozenset(api.openapi()["paths"]))


def failed(path: str, failure: Failure) -> JSONResponse:
    """Return the answer to a request that failed, in the shape of the convention of its route."""
    body: dict[str, Any]
    if path.startswith("/v1/"):
        kind = "server_error" if failure.status >= 500 else "invalid_request_error"
        code = "model_not_found" if (failure.status, failure.field) == (404, "model") else _CODES.get(failure.status)
        body = {"error": {"message": failure.message, "type": kind, "param": failure.field or None, "code": code}}
    else:
        body = {"error": failure.message, "error_type": _KINDS.get(failure.status, "Validation")}
    return JSONResponse(body, failure.status, failure.headers)


def _add_state(api: FastAPI, models: Models, metrics: Metrics) -> None:
    @api.get("/health", tags=["state"])
    async def health() -> dict[str, str]:
        """Report whether all models answer."""
        if not all(one.queue.alive for one in models.by_name.values()):
            raise Failure(503, "The server is stopping.")
        return {"status": "ok"}

    @api.get("/metrics", tags=["state"], response_class=Response)
    async def counts() -> Response:
        """Return the counts in the format of Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_failures(api: FastAPI) -> None:
    @api.exception_handler(Failure)
    async def _(request: Request, error: Failure) -> JSONResponse:
        return failed(request.url.path, error)

    @api.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        if "json" not in request.headers.get("content-type", ""):
            return failed(request.url.path, Failure(415, "Send JSON, with the header Content-Type: application/json."))
        problems = error.errors()
        syntax = any(problem["type"] == "json_invalid" for problem in problems)
        # Where a value may be of several types, what the one that it fits best says of it.
        of_first = [one for one in problems if one["loc"][:2] == problems[0]["loc"][:2]]
        chosen = max(of_first, key=lambda one: (not one["type"].endswith("_type"), len(one["loc"])))
        field = "" if syntax else _field(chosen["loc"])
        said = f"{field or 'The body'}: {chosen['msg'].removeprefix('Value error, ')}."
        message = "The body is not JSON: send a JSON object." if syntax else said
        return failed(request.url.path, Failure(400 if syntax else 422, message, field))

    @api.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        message = {404: "There is no such route.", 405: "This route needs another method."}.get(error.status_code, str(error.detail))
        return failed(request.url.path, Failure(error.status_code, message, headers=error.headers))

    @api.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:
        _LOG.error("%s failed", request.url.path, exc_info=error)
        return failed(request.url.path, Failure(500, "The server could not answer because of a fault of its own; its log has the details."))


def _field(location: Sequence[Any]) -> str:
    """Return a dotted name, without the names of the alternatives of a union."""
    names = [str(part) for part in location[1:]]
    return ".".join(name for name in names if not any(mark in name for mark in "[]( ") and name not in ("str", "list"))
