"""A route of models that read images or recordings: masks parts of one, and shows what the model puts there."""

from typing import Any

from fastapi import APIRouter

from bert_jax.serving.conventions.fields import Request, Text
from bert_jax.serving.served import Models


class CompleteRequest(Request):
    """An image or a recording, as the bytes of its file in base64."""

    texts: Text
    model: str | None = None


def routes(models: Models) -> APIRouter:
    """Return the route, if there is a model for it."""
    router = APIRouter(tags=["bert_jax"])
    able = [one for one in models.by_name.values() if one.model.tokenizer.units and "fill_mask" in one.questions]
    if not able:
        return router

    @router.post("/complete")
    async def complete(request: CompleteRequest) -> dict[str, Any]:
        """Mask half of an image or a recording, and return pictures of the original, of what is left of it, and of what the model sees."""
        model = able[0] if request.model is None else models.find(request.model, "fill_mask")
        return {"model": model.name} | await model.complete(request.texts)

    return router
