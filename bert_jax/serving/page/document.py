"""The page as one document that loads nothing else: for a server, or with models inside, to be opened as a file."""

import base64
import hashlib
from importlib.resources import files

_SECTIONS = ("masking", "media", "verdicts", "vectors", "looking", "start")
SERVED = ("words", "core", "server", "charts", "watching", *_SECTIONS)
ALONE = ("words", "core", "alone/tokenizer", "alone/encoder", "alone/answers", "alone/ask", *_SECTIONS)
"""The scripts in the order in which they need each other."""


def assemble(locked: bool, watching: bool = False) -> tuple[str, str]:
    """Return the document for a server, and the policy that allows a browser its script, its style, and requests to this server only.

    Args:
        locked: whether the page asks for the API key.
        watching: whether it shows a run.
    """
    script, style = _script(SERVED), _style()
    policy = _policy(script, style, {"connect-src": "'self'", "media-src": "blob:", "frame-ancestors": "'none'"})
    marks = "".join(f' data-{name}="true"' for name, holds in (("locked", locked), ("watching", watching)) if holds)
    return _document(script, style, "lead", f"<body{marks}>"), policy


def assemble_alone(data: str) -> str:
    """Return the document that answers by itself, with elements that hold models."""
    script, style = _script(ALONE), _style()
    # A browser lets no page that is opened as a file be put in a frame of another one, and ignores the rule for that in a document.
    policy = f'\n<meta http-equiv="Content-Security-Policy" content="{_policy(script, style, {})}">'
    return _document(script, style, "leadShared", "<body>", policy, data)


def _document(script: str, style: str, lead: str, body: str, policy: str = "", data: str = "") -> str:
    text = files("bert_jax.serving.page").joinpath("index.html").read_text(encoding="utf-8").replace("<body>", body)
    # The data last: nothing in them is replaced.
    for name, value in {"policy": policy, "lead": lead, "style": style, "script": script, "data": data}.items():
        text = text.replace(f"@{name}@", value, 1)
    return text


def _script(names: tuple[str, ...]) -> str:
    parts = [files("bert_jax.serving.page").joinpath(f"{name}.js").read_text(encoding="utf-8") for name in names]
    return "\n".join(['"use strict";', "{", *parts, "}", ""])


def _style() -> str:
    return files("bert_jax.serving.page").joinpath("page.css").read_text(encoding="utf-8")


def _policy(script: str, style: str, further: dict[str, str]) -> str:
    rules = {
        "default-src": "'none'",
        "script-src": _hashed(script),
        "style-src": _hashed(style),
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    } | further
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
