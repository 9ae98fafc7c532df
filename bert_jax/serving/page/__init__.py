"""The page at `/`: one document that asks the other routes, from the files of this folder. It loads nothing else."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from bert_jax.serving.served import Models, Served

_SCRIPTS = ("words", "core", "charts", "watching", "masking", "verdicts", "vectors", "looking", "start")
"""In the order in which they need each other."""


def routes(models: Models, locked: bool, watching: bool = False) -> APIRouter:
    """Return the page and the route that describes the models to it.

    Args:
        models: the models.
        locked: whether the page asks for the API key.
        watching: whether it shows a run.
    """
    router = APIRouter(tags=["page"])
    document, policy = assemble(locked, watching)
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    @router.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """Show the models to a person."""
        return HTMLResponse(document, headers=headers)

    @router.get("/models")
    async def describe() -> dict[str, list[dict[str, Any]]]:
        """Describe all models: what they answer, what they read, and how much of it."""
        return {"models": [_described(one) for one in models.by_name.values()]}

    return router


def assemble(locked: bool, watching: bool = False) -> tuple[str, str]:
    """Return the document, and the policy that allows a browser its script, its style, and requests to this server only."""
    own = files(__package__)
    style = own.joinpath("page.css").read_text(encoding="utf-8")
    parts = [own.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS]
    script = "\n".join(['"use strict";', "{", *parts, "}", ""])
    document = own.joinpath("index.html").read_text(encoding="utf-8").replace("@style@", style).replace("@script@", script)
    marks = "".join(f' data-{name}="true"' for name, holds in (("locked", locked), ("watching", watching)) if holds)
    document = document.replace("<body>", f"<body{marks}>")
    rules = {
        "default-src": "'none'",
        "script-src": _hashed(script),
        "style-src": _hashed(style),
        "connect-src": "'self'",
        "img-src": "data: blob:",
        "media-src": "blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return document, "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _described(one: Served) -> dict[str, Any]:
    model = one.model
    encoder = model.description.encoder
    return {
        "name": one.name,
        "noun": model.noun,
        "reads": model.description.input.modality,
        "questions": [*one.questions],
        "labels": [*model.labels],
        "pairs": encoder.segment_types > 1,
        "max_tokens": encoder.max_positions,
        "layers": encoder.layers,
        "heads": encoder.heads,
    }
