"""The page at `/`: one document that asks the other routes, from the files of this folder; and the file that shares it."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from bert_jax.errors import InputError
from bert_jax.serving.failures import Failure
from bert_jax.serving.page.document import assemble
from bert_jax.serving.page.sharing import describe, share
from bert_jax.serving.served import Models


def routes(models: Models, locked: bool, watching: bool = False) -> APIRouter:
    """Return the page, the route that describes the models to it, and that of the page with the models inside.

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
    async def list_models() -> dict[str, list[dict[str, Any]]]:
        """Describe all models: what they answer, what they read, and how much of it."""
        return {"models": [describe(one.name, one.model) for one in models.by_name.values()]}

    @router.get("/shared.html", response_class=HTMLResponse)
    def shared() -> HTMLResponse:
        """Return the page with the models that read text inside, as a file that works without this server."""
        try:
            content = share({one.name: one.model for one in models.by_name.values()})
        except InputError as error:
            raise Failure(424, str(error)) from None
        return HTMLResponse(content, headers={"Content-Disposition": 'attachment; filename="bert.html"'})

    return router
