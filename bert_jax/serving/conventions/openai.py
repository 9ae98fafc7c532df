"""The routes of OpenAI's embeddings API, so that its clients work unchanged."""

import base64
import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field, field_validator

from bert_jax.serving.conventions.fields import Request, Text, answer
from bert_jax.serving.failures import Failure
from bert_jax.serving.served import Models
from bert_jax.tasks.question import Answers


class EmbeddingsRequest(Request):
    """A request for embeddings."""

    input: Text | list[Text]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _of_texts(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
            raise ValueError("token ids belong to the vocabulary of another model: send texts")
        return value


class Embedding(BaseModel):
    """The values of a vector, or its little-endian float32 bytes in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Numbers of tokens, without special tokens."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


def routes(models: Models) -> APIRouter:
    """Return the routes under /v1."""
    router, started = APIRouter(prefix="/v1", tags=["OpenAI"]), int(time.time())

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "bert_jax"}

    @router.post("/embeddings", response_model=Embeddings)
    async def embeddings(request: EmbeddingsRequest) -> Any:
        """Compute the embeddings of texts."""
        model = models.find(request.model, "embed")
        texts = [request.input] if isinstance(request.input, str) else request.input
        vectors, tokens = await model.ask("embed", texts, field="input")
        if request.dimensions is not None:
            vectors = shortened(vectors, request.dimensions)
        as_base64 = request.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return answer({"object": "list", "data": data, "model": model.name, "usage": usage})

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        """List the models."""
        return {"object": "list", "data": [described(name) for name in models.by_name]}

    @router.get("/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        """Describe a model."""
        if name not in models.by_name:
            raise Failure(404, f"There is no model {name!r}: choose one of {', '.join(models.by_name)}.", "model")
        return described(name)

    return router


def shortened(vectors: Answers, dimensions: int) -> np.ndarray:
    """Return the first values of each vector, scaled to unit length again if the whole vectors had it.

    Raises:
        Failure: the vectors have fewer values.
    """
    whole = np.asarray(vectors)
    if dimensions > whole.shape[1]:
        raise Failure(422, f"dimensions is {dimensions}, but the vectors have {whole.shape[1]} values: ask for at most that.", "dimensions")
    part = whole[:, :dimensions]
    if not np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-3):
        return part
    return part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
